"""The step log: what each optimizer step was, exactly, so that two trainings can be compared step by step.

metrics/details/train_steps.tsv has one line per optimizer step:

    step            from 1
    rows            12 hex digits of the SHA-256 of the ids of its rows, "id,id,…", in the order in which they were drawn:
                    batch by batch, and the processes' batches in the order of their ranks
    loss            nats per token, the mean over the step's labeled tokens
    grad_norm       of all gradients together, before they are clipped
    learning_rate   with which the step was taken

Numbers have all digits of their float64. Checkpoints contain the log up to their step.
"""

import hashlib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch

from pipeline.core.files import atomic_write


class LoggedStep(NamedTuple):
    """One line of the step log."""

    step: int
    rows: str
    loss: float
    grad_norm: float
    learning_rate: float


class HostCopy:
    """Numbers on their way from a device to the host, which waits for them only when it reads them."""

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values.to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event() if values.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def read(self) -> list[float]:
        if self._copied is not None:
            self._copied.synchronize()
        return self._values.tolist()


class TakenStep(NamedTuple):
    """What one process knows of a step."""

    step: int
    row_ids: list[list[int]]  # of each batch
    numbers: HostCopy  # the loss of each batch, as its part of the step's, and the gradient norm
    learning_rate: float

    def read(self) -> tuple[float, float]:
        """(loss, gradient norm)."""
        *losses, grad_norm = self.numbers.read()
        return sum(losses), grad_norm


def rows_hash(row_ids: Iterable[int]) -> str:
    """
    >>> rows_hash([17, 203])
    'd683e3b85376'
    """
    return hashlib.sha256(",".join(map(str, row_ids)).encode()).hexdigest()[:12]


def drawn_order(row_ids: Iterable[list[list[int]]]) -> list[int]:
    """A step's row ids as they were drawn. row_ids: those of each batch, of each process.

    >>> drawn_order([[[1, 2], [5, 6]], [[3, 4], [7, 8]]])
    [1, 2, 3, 4, 5, 6, 7, 8]
    """
    return list(chain.from_iterable(chain.from_iterable(zip(*row_ids, strict=True))))


def write_step_log(path: Path, steps: Iterable[LoggedStep]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines("\t".join(map(str, line)) + "\n" for line in (LoggedStep._fields, *steps))


def read_step_log(path: Path) -> list[LoggedStep]:
    _, *lines = path.read_text(encoding="utf-8").splitlines()
    cells = (line.split("\t") for line in lines)
    return [LoggedStep(int(step), rows, *map(float, numbers)) for step, rows, *numbers in cells]
