"""Warns before a training on few rows of what makes it weak. The warnings are also metrics; no setting is changed.

The warmup is not shortened, because params.yaml does not tell a default from a choice. A validation set that is too small to
choose the best weights is not reported here, as `format` warns of it.
"""

from pipeline.config.options import Constant
from pipeline.config.params import Train
from pipeline.train.schedules import rate_function, total_steps, warmup_steps_of

MAX_WARMUP_SHARE = 1 / 3  # of the steps; common recipes have 0.03 to 0.1
SUGGESTED_SHARE = 0.1


def training_warnings(options: Train, rows: int, processes: int = 1) -> list[str]:
    """One or two sentences for each weakness of a training on this number of rows."""
    steps = total_steps(options, rows, processes)
    found = (_warmup_warning(options, steps), _no_checkpoints_warning(options, steps))
    return [warning for warning in found if warning]


def _warmup_warning(options: Train, steps: int) -> str | None:
    """Not about a share of the steps that was chosen as such, unless it is all of them."""
    if isinstance(options.schedule, Constant):
        return None
    warmup, peak = warmup_steps_of(options, steps), max(map(rate_function(options, steps), range(steps)))
    if peak > 0 and (options.warmup_share is not None or warmup <= MAX_WARMUP_SHARE * steps):
        return None
    effect = (
        f"the learning rate reaches only {peak:.0%} of train.learning_rate"
        if warmup >= steps
        else f"for {warmup / steps:.0%} of them the learning rate is below train.learning_rate"
    )
    remedy = f"train.warmup_share={SUGGESTED_SHARE}" if SUGGESTED_SHARE * steps > 0.5 else "train.warmup_steps=0"
    return f"The warmup takes {warmup} of this training's {steps:,} steps: {effect}. Set {remedy}"


def _no_checkpoints_warning(options: Train, steps: int) -> str | None:
    if options.eval_steps is None or options.eval_steps <= steps or not options.keep_best:
        return None
    return (
        f"train.eval_steps={options.eval_steps} is more than this training's {steps:,} steps, so train.keep_best has only the "
        "last step to choose from. Lower train.eval_steps, or set it to null"
    )
