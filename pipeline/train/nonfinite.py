"""What to tell a user whose training meets a number that is not finite: where it is, what came before, what to change."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedModel

from pipeline.config.params import Train
from pipeline.core.paths import TRAIN_ROWS, shorten_path
from pipeline.errors import ModelError
from pipeline.modeling.loading import nonfinite_weights
from pipeline.train.checkpoint_manifest import last_complete_step
from pipeline.train.step_log import LoggedStep

SHOWN_IDS = 5


class FailedStep(NamedTuple):
    """A step whose loss or gradient norm is not finite."""

    logged: LoggedStep
    row_ids: list[int]  # of all its rows
    unlabeled_ids: list[int]  # of those without a token to predict
    broken_ids: list[int] | None  # of those that have no finite loss, although other rows do; None if unknown


def require_finite_weights(model: PreTrainedModel, where: str, remedy: str) -> None:
    """Raise ModelError if a weight is NaN or infinite; one pass over the weights, about 0.2 seconds per GB."""
    if broken := nonfinite_weights(model):
        more = f" and {len(broken) - 1} more tensors" if broken[1:] else ""
        raise ModelError(f"{where}: {broken[0]}{more} contain NaN or infinity. {remedy}")


def failed_step_error(
    failed: FailedStep, previous: LoggedStep | None, options: Train, bf16: bool, checkpoints: Path
) -> ModelError:
    """The error for a step; `previous` is the one before it."""
    step = failed.logged
    named = [("loss", step.loss), ("gradient norm", step.grad_norm)]
    (subject, value), (other, other_value) = named if not math.isfinite(step.loss) else reversed(named)
    facts = [f"learning rate {step.learning_rate:.4g}", f"{other} {other_value:.4g}"]
    facts.append(f"loss before {previous.loss:.4g}" if previous else "no step before")
    return ModelError(
        f"the {subject} is {value} at step {step.step}: {listed_ids(failed.row_ids)} (ids in {TRAIN_ROWS}); "
        f"{', '.join(facts)}. "
        f"{kept_checkpoint(checkpoints)} Training again with the same parameters would end the same way. "
        + _step_advice(failed, previous, options, bf16)
    )


def _step_advice(failed: FailedStep, previous: LoggedStep | None, options: Train, bf16: bool) -> str:
    if len(failed.unlabeled_ids) == len(failed.row_ids):
        return "None of these rows has a labeled token: leave them out (tokenize.gates.max_unlabelled: 0 finds them)"
    if failed.broken_ids:
        precision = ", or set train.precision=fp32" if bf16 else ""
        return (
            f"The loss of {listed_ids(failed.broken_ids)} is not finite, that of other rows is. "
            f"Correct that text or leave it out{precision}"
        )
    if previous is None:
        return (
            "No step was taken before, so the learning rate is not the cause: look at these rows"
            + (", set train.precision=fp32" if bf16 else "")
            + ", or use another base model"
        )
    advice = divergence_advice(options, bf16)
    if failed.broken_ids is None:
        return f"If the loss was rising, training has diverged: {advice}. If not, look at these rows"
    return f"Training has diverged: {advice}"


def divergence_advice(options: Train, bf16: bool) -> str:
    """The parameters that keep a training from diverging."""
    advice = "lower train.learning_rate, or raise train.warmup_steps"
    if options.max_grad_norm > 1:
        advice += ", or set train.max_grad_norm=1"
    return advice + (", or set train.precision=fp32" if bf16 else "")


def validation_error(
    loss: float, broken_ids: Sequence[int], last: LoggedStep | None, options: Train, bf16: bool, checkpoints: Path
) -> ModelError:
    """The error for a validation loss; `last` is the last step, None for the base model."""
    rows = f" on {listed_ids(broken_ids)} (ids in {TRAIN_ROWS.with_stem('validation')})" if broken_ids else ""
    if last is None:
        return ModelError(
            f"the validation loss of the base model is {loss}{rows}; no step was taken. Look at these rows"
            + (", set train.precision=fp32" if bf16 else "")
            + ", or use another base model"
        )
    return ModelError(
        f"the validation loss is {loss} after step {last.step}{rows}; learning rate {last.learning_rate:.4g}, gradient norm "
        f"{last.grad_norm:.4g}, training loss {last.loss:.4g}. {kept_checkpoint(checkpoints)} "
        "Training again with the same parameters would end the same way. "
        f"Training has diverged: {divergence_advice(options, bf16)}"
    )


def listed_ids(ids: Sequence[int]) -> str:
    """
    >>> listed_ids([17]), listed_ids([17, 203]), listed_ids(range(10))
    ('row 17', 'rows 17 and 203', 'rows 0, 1, 2, 3, 4 and 5 more')
    """
    if len(ids) == 1:
        return f"row {ids[0]}"
    shown = [str(id) for id in ids[:SHOWN_IDS]]
    last = f"{len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else shown.pop()
    return f"rows {', '.join(shown)} and {last}"


def kept_checkpoint(folder: Path) -> str:
    """A sentence about the last complete checkpoint in a folder."""
    if (step := last_complete_step(folder)) is None:
        return "There is no checkpoint yet."
    return f"{shorten_path(folder / f'checkpoint-{step}')} is kept, with the weights of step {step}."
