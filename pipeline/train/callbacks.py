"""Callbacks that end a training before its last step or follow its evaluations: early stopping, time budget, plateau."""

import time
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from pipeline.core.distributed import broadcast_object
from pipeline.train.schedules import PlateauRate


class StepAwareCallback(TrainerCallback):
    """Knows whether this run has taken a step yet.

    The evaluation before the first step does not count: a resumed training repeats it.
    """

    has_stepped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.has_stepped = False
        super().on_train_begin(args, state, control, **kwargs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.has_stepped = True


class ResumableEarlyStoppingCallback(StepAwareCallback, EarlyStoppingCallback):
    """Early stopping that counts each evaluation once, however often the training is interrupted and resumed."""

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **kwargs: Any
    ) -> None:
        if self.has_stepped:
            super().on_evaluate(args, state, control, metrics, **kwargs)  # type: ignore[no-untyped-call]  # no types there


class PlateauCallback(StepAwareCallback):
    """Reports each validation loss to the `plateau` schedule and applies its learning rate to the next step."""

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self.has_stepped:
            return
        optimizer, lr_scheduler = kwargs["optimizer"], kwargs["lr_scheduler"]
        rate: PlateauRate = lr_scheduler.lr_lambdas[0]
        rate.observe(kwargs["metrics"]["eval_validation_loss"])
        learning_rates = [base_lr * rate(lr_scheduler.last_epoch) for base_lr in lr_scheduler.base_lrs]
        for group, learning_rate in zip(optimizer.param_groups, learning_rates, strict=True):
            group["lr"] = learning_rate
        lr_scheduler._last_lr = learning_rates


class TimeBudgetCallback(TrainerCallback, ExportableState):
    """Ends the training after the step that exceeds the time budget, with an evaluation and a checkpoint.

    Checkpoints hold the time spent so far, so a resumed training keeps its budget; time spent after the last checkpoint
    is not counted. With several processes, the main process's clock decides.
    """

    def __init__(self, max_minutes: float) -> None:
        self.max_minutes, self.previous_seconds, self.started_at = max_minutes, 0.0, 0.0

    def elapsed_seconds(self) -> float:
        """The training time so far, that of interrupted runs included."""
        return self.previous_seconds + time.monotonic() - self.started_at if self.started_at else self.previous_seconds

    def state(self) -> dict[str, Any]:
        return {
            "args": {"max_minutes": self.max_minutes},
            "attributes": {"previous_seconds": self.elapsed_seconds()},
        }

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.started_at = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if broadcast_object(self.elapsed_seconds() > 60 * self.max_minutes):
            control.should_log = control.should_evaluate = control.should_save = control.should_training_stop = True
