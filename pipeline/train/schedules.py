"""Learning rate schedules as pure functions from the optimizer step to a factor of train.learning_rate.

`rate_function` returns the function for a configured schedule. The Trainer's LambdaLR multiplies by its values
(pipeline/train/trainer.py), and `python -m pipeline.schedule` plots them. linear, cosine, cosine_with_restarts, inverse_sqrt
and constant_with_warmup are those of transformers.optimization; step and exponential are those of torch.optim.lr_scheduler,
here after a linear warmup from 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pipeline.config.options import (
    Constant,
    ConstantWithWarmup,
    Cosine,
    CosineWithRestarts,
    Exponential,
    InverseSquareRoot,
    Linear,
    Plateau,
    Schedule,
    Step,
    WarmupStableDecay,
)
from pipeline.config.params import Train

RateFunction = Callable[[int], float]  # optimizer steps done → factor of train.learning_rate for the next step


def total_steps(options: Train, rows: int, processes: int = 1) -> int:
    """The optimizer steps of a training on `rows` rows, which are distributed over the processes."""
    return options.max_steps or math.ceil(steps_per_epoch(options, rows, processes) * options.epochs)


def steps_per_epoch(options: Train, rows: int, processes: int = 1) -> int:
    return math.ceil(rows / rows_per_step(options, processes))


def rows_per_step(options: Train, processes: int = 1) -> int:
    """The rows of an optimizer step, over all processes."""
    return options.batch_size * options.gradient_accumulation * processes


def warmup_steps_of(options: Train, steps: int) -> int:
    """The warmup steps of a training of `steps` optimizer steps."""
    return options.warmup_steps if options.warmup_share is None else math.ceil(options.warmup_share * steps)


def rate_function(options: Train, steps: int) -> RateFunction:
    """The configured schedule for a training of `steps` optimizer steps."""
    schedule, warmup_steps = options.schedule, warmup_steps_of(options, steps)
    if isinstance(schedule, Plateau):
        return PlateauRate(warmup_steps, **schedule.model_dump(exclude={"kind"}))
    return partial(rate_factor, schedule, warmup_steps, steps)


def rate_factor(schedule: Schedule, warmup_steps: int, steps: int, step: int) -> float:
    """The factor after `step` of `steps` optimizer steps: a linear rise from 0 in the warmup, then the schedule's curve."""
    if isinstance(schedule, Constant):
        return 1.0
    if step < warmup_steps:
        return step / warmup_steps
    done, length = step - warmup_steps, max(1, steps - warmup_steps)
    match schedule:
        case ConstantWithWarmup():
            return 1.0
        case Linear(floor=floor):
            return with_floor(floor, max(0.0, (length - done) / length))  # the same bits as transformers' schedule
        case Cosine(floor=floor):
            return with_floor(floor, cosine(done / length))
        case CosineWithRestarts(cycles=cycles, floor=floor):
            return with_floor(floor, cosine_restarts(done / length, cycles))
        case Step(every_steps=every_steps, factor=factor, floor=floor):
            return max(floor, factor ** (done // every_steps))
        case Exponential(factor=factor, floor=floor):
            return max(floor, factor**done)
        case InverseSquareRoot(timescale=timescale):
            return inverse_square_root(done, timescale or warmup_steps or 10_000)
        case WarmupStableDecay(decay=decay, decay_share=decay_share, floor=floor):
            decay_start = max(warmup_steps, steps - math.ceil(decay_share * steps))
            return with_floor(floor, CURVES[decay](max(0.0, (step - decay_start) / max(1, steps - decay_start))))
    raise TypeError(schedule)


def with_floor(floor: float, factor: float) -> float:
    """A factor from 0 to 1, rescaled to the range from `floor` to 1.

    >>> with_floor(0.1, 1.0), with_floor(0.5, 0.5)
    (1.0, 0.75)
    """
    return floor + (1 - floor) * factor


def linear(progress: float) -> float:
    return max(0.0, 1 - progress)


def cosine(progress: float) -> float:
    """Half a cosine: SGDR without restarts (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def cosine_restarts(progress: float, cycles: int) -> float:
    """SGDR with warm restarts (Loshchilov and Hutter 2017); all cycles have the same length."""
    return 0.0 if progress >= 1 else cosine(cycles * progress % 1)


def one_minus_sqrt(progress: float) -> float:
    """The best decay for warmup-stable-decay (Hu et al. 2024, arXiv:2404.06395) in Hägele et al. 2024
    (arXiv:2405.18392)."""
    return 1 - math.sqrt(min(1.0, progress))


def inverse_square_root(done: int, timescale: int) -> float:
    """1/√(1 + done/timescale), as in Zhai et al. 2022 (arXiv:2106.04560), after Vaswani et al. 2017 (arXiv:1706.03762)."""
    return 1 / math.sqrt((done + timescale) / timescale)


CURVES: dict[str, Callable[[float], float]] = {"linear": linear, "cosine": cosine, "1-sqrt": one_minus_sqrt}


@dataclass
class PlateauRate:
    """A rate that is multiplied by `factor` after more than `patience` evaluations in a row without improvement.

    It counts like torch's ReduceLROnPlateau (threshold_mode="abs"), which has no warmup and cannot be used in a LambdaLR.
    LambdaLR saves the attributes in checkpoints.
    """

    warmup_steps: int
    factor: float
    patience: int
    threshold: float
    floor: float
    best_loss: float = math.inf
    bad_evaluations: int = 0  # in a row, without improvement
    scale: float = 1.0

    def __call__(self, step: int) -> float:
        return self.scale * (step / self.warmup_steps if step < self.warmup_steps else 1.0)

    def observe(self, loss: float) -> None:
        """Update the rate after an evaluation with this validation loss."""
        if loss < self.best_loss - self.threshold:
            self.best_loss, self.bad_evaluations = loss, 0
        else:
            self.bad_evaluations += 1
        if self.bad_evaluations > self.patience:
            self.scale, self.bad_evaluations = max(self.floor, self.scale * self.factor), 0
