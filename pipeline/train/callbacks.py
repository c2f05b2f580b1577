"""When a training ends before its last step, and what its evaluations change: patience, a budget of time, a plateau."""

import time
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from pipeline.core.distributed import broadcast_object
from pipeline.train.schedules import PlateauRate


class WhileTraining(TrainerCallback):
    """Knows whether a step has been made: the evaluation before the first one, which a resumed training repeats, is none."""

    is_training = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        self.is_training = False
        super().on_train_begin(args, state, control, **rest)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.is_training = True


class Patience(WhileTraining, EarlyStoppingCallback):
    """Early stopping that counts each evaluation once."""

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any],
        **rest: Any,
    ) -> None:
        if self.is_training:
            super().on_evaluate(args, state, control, metrics, **rest)


class FollowPlateau(WhileTraining):
    """Shows each validation loss to the schedule `plateau`, and takes over its rate for the next step."""

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any],
        optimizer: Any,
        lr_scheduler: Any,
        **_: Any,
    ) -> None:
        if not self.is_training:
            return
        rate: PlateauRate = lr_scheduler.lr_lambdas[0]
        rate.observe(metrics["eval_validation_loss"])
        rates = [base * rate(lr_scheduler.last_epoch) for base in lr_scheduler.base_lrs]
        for group, learning_rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = learning_rate
        lr_scheduler._last_lr = rates


class TimeBudget(TrainerCallback, ExportableState):
    """Ends the training after the step that passes so many minutes, evaluated and saved.

    What was spent is kept in the checkpoints, so an interrupted training does not begin anew; what it spent after its
    last one is not known any more. Of several processes, the main one's clock counts.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes, self.spent, self.since = minutes, 0.0, 0.0

    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.since if self.since else self.spent

    def state(self) -> dict[str, Any]:
        return {"args": {"minutes": self.minutes}, "attributes": {"spent": self.seconds()}}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.since = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if broadcast_object(self.seconds() > 60 * self.minutes):
            control.should_log = control.should_evaluate = control.should_save = control.should_training_stop = True
