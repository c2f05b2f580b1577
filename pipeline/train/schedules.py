"""The learning rate over the optimizer steps, as a factor of train.learning_rate: plain functions of the step.

`rate_function` gives the function for a configured schedule; the Trainer's LambdaLR multiplies by it (pipeline/train/trainer.py), and
`python -m pipeline.schedule` draws it. linear, cosine, their restarts, inverse_sqrt and constant_with_warmup are those of
transformers.optimization, step and exponential those of torch.optim.lr_scheduler, each after a linear warmup from 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.config.options import (
    Constant,
    ConstantWithWarmup,
    Cosine,
    CosineWithRestarts,
    Exponential,
    InverseSquareRoot,
    Linear,
    Plateau,
    Step,
    WarmupStableDecay,
)
from pipeline.config.params import Train

Rate = Callable[[int], float]  # optimizer steps done → factor of train.learning_rate for the next one


def total_steps(options: Train, rows: int, processes: int = 1) -> int:
    """The optimizer steps of a training on so many rows, which the processes share."""
    return options.max_steps or math.ceil(steps_per_epoch(options, rows, processes) * options.epochs)


def steps_per_epoch(options: Train, rows: int, processes: int = 1) -> int:
    return math.ceil(rows / rows_per_step(options, processes))


def rows_per_step(options: Train, processes: int = 1) -> int:
    """The rows of an optimizer step."""
    return options.batch_size * options.gradient_accumulation * processes


def warmup_of(options: Train, steps: int) -> int:
    """The optimizer steps of the warmup, of so many in all."""
    return options.warmup_steps if options.warmup_share is None else math.ceil(options.warmup_share * steps)


def rate_function(options: Train, steps: int) -> Rate:
    """The configured schedule over so many optimizer steps."""
    schedule, warmup = options.schedule, warmup_of(options, steps)
    if isinstance(schedule, Plateau):
        return PlateauRate(warmup, **schedule.model_dump(exclude={"kind"}))
    return partial(rate_factor, schedule, warmup, steps)


def rate_factor(schedule: Any, warmup: int, steps: int, step: int) -> float:
    """The factor after `step` of `steps` optimizer steps: up from 0 in the warmup, then as the schedule says."""
    if isinstance(schedule, Constant):
        return 1.0
    if step < warmup:
        return step / warmup
    done, length = step - warmup, max(1, steps - warmup)
    match schedule:
        case ConstantWithWarmup():
            return 1.0
        case Linear(floor=floor):
            return with_floor(floor, max(0.0, (length - done) / length))  # to the last bit as transformers has it
        case Cosine(floor=floor):
            return with_floor(floor, cosine(done / length))
        case CosineWithRestarts(cycles=cycles, floor=floor):
            return with_floor(floor, cosine_restarts(done / length, cycles))
        case Step(every_steps=every, rate_factor=share, floor=floor):
            return max(floor, share ** (done // every))
        case Exponential(rate_factor=share, floor=floor):
            return max(floor, share**done)
        case InverseSquareRoot(timescale=timescale):
            return inverse_square_root(done, timescale or warmup or 10_000)
        case WarmupStableDecay(decay=decay, decay_share=share, floor=floor):
            begin = max(warmup, steps - math.ceil(share * steps))
            return with_floor(floor, CURVES[decay](max(0.0, (step - begin) / max(1, steps - begin))))
    raise TypeError(schedule)


def with_floor(floor: float, height: float) -> float:
    """A height from 0 to 1, above a floor.

    >>> with_floor(0.1, 1.0), with_floor(0.5, 0.5)
    (1.0, 0.75)
    """
    return floor + (1 - floor) * height


def linear(progress: float) -> float:
    return max(0.0, 1 - progress)


def cosine(progress: float) -> float:
    """Half a cosine, as without restarts in Loshchilov and Hutter 2017 (arXiv:1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def cosine_restarts(progress: float, cycles: int) -> float:
    """SGDR's warm restarts (Loshchilov and Hutter 2017), all cycles of one length."""
    return 0.0 if progress >= 1 else cosine(cycles * progress % 1)


def one_minus_root(progress: float) -> float:
    """The decay that Hägele et al. 2024 (arXiv:2405.18392) find best for warmup-stable-decay (Hu et al. 2024,
    arXiv:2404.06395)."""
    return 1 - math.sqrt(min(1.0, progress))


def inverse_square_root(done: int, timescale: int) -> float:
    """1/√(1 + done/timescale), as of Zhai et al. 2022 (arXiv:2106.04560); from Vaswani et al. 2017."""
    return 1 / math.sqrt((done + timescale) / timescale)


CURVES: dict[str, Callable[[float], float]] = {"linear": linear, "cosine": cosine, "1-sqrt": one_minus_root}


@dataclass
class PlateauRate:
    """The rate falls by `rate_factor` when more than `patience` evaluations in a row bring no improvement.

    As torch's ReduceLROnPlateau (threshold_mode="abs") counts, which knows no warmup and takes no LambdaLR. All its state
    is numbers, which LambdaLR keeps in its checkpoints.
    """

    warmup: int
    factor: float
    patience: int
    threshold: float
    floor: float
    best: float = math.inf
    waited: int = 0
    share: float = 1.0

    def __call__(self, step: int) -> float:
        return self.share * (step / self.warmup if step < self.warmup else 1.0)

    def observe(self, loss: float) -> None:
        """Take note of an evaluation's validation loss."""
        if loss < self.best - self.threshold:
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        if self.waited > self.patience:
            self.share, self.waited = max(self.floor, self.share * self.factor), 0
