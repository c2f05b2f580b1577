"""Callbacks that end a training before its last step or follow its evaluations: early stopping, time budget, plateau."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import IntervalStrategy

from pipeline.core.distributed import broadcast_object, gather_objects, is_distributed
from pipeline.errors import PipelineError
from pipeline.train.schedules import PlateauRate

TERMINATED, RESUME_HINT = "terminated by SIGTERM", "Run it again to resume from the last checkpoint"


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


class SigtermCallback(TrainerCallback):
    """Once `received` is set, writes a checkpoint after the current step and ends the training with a PipelineError.

    If an epoch's evaluation follows the step, or one is under way, the training ends without a new checkpoint. Several
    processes get the signal at different steps, so they agree on one: on GPUs at the next step that is logged, where the
    host waits for the GPU anyway.
    """

    received = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # A training that resumed after an epoch would miss the evaluation at its end.
        is_evaluated_next = args.eval_strategy == IntervalStrategy.EPOCH and (
            control.should_training_stop or float(state.epoch or 0).is_integer()
        )
        if is_distributed() and (args.device.type == "cpu" or control.should_log):
            self.received = any(gather_objects(self.received))
        if self.received and not is_evaluated_next:
            control.should_save = True

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.received and not is_distributed():  # an evaluation may take longer than the time before SIGKILL
            raise PipelineError(f"{TERMINATED} in an evaluation. {RESUME_HINT}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.received:
            raise PipelineError(
                f"{TERMINATED}; checkpoint-{state.global_step} is written. Run it again to resume from there"
            )


@contextmanager
def checkpoint_on_sigterm(trainer: Trainer) -> Iterator[None]:
    """Have SIGTERM end the trainer's training after a checkpoint, or, once the last step is done, without a new one."""
    callback = SigtermCallback()
    trainer.add_callback(callback)  # the last one: the history must not log at its checkpoint

    def receive(*_: Any) -> None:
        callback.received = True

    previous = signal.signal(signal.SIGTERM, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        trainer.remove_callback(callback)
    if callback.received:
        raise PipelineError(f"{TERMINATED} after the last step. {RESUME_HINT}")
