"""The order of an epoch's rows: train draws it, and the tokenize stage's audit measures the padding that it leaves.

The random source is an argument, torch's in training and NumPy's in the audit, which therefore does not import torch.
"""

from collections.abc import Callable, Sequence
from itertools import cycle, islice

Permutation = Callable[[int], list[int]]  # n → 0 to n - 1 in random order

WINDOW_STEPS = 50  # optimizer steps in a window, within which rows are sorted by length


def sample_order(lengths: Sequence[int], rows_per_step: int, permutation: Permutation) -> list[int]:
    """The row indices of one epoch, with rows of similar length next to each other.

    The rows are shuffled, sorted by length within windows of WINDOW_STEPS optimizer steps, and cut into steps. The steps are
    then shuffled, with two exceptions: the full step with the longest row comes first, so that a run that does not fit into
    memory fails at once, and the step that is not full comes last. transformers' LengthGroupedSampler sorts at most a
    quarter of a small data set at a time, which leaves twice the padding.

    >>> sample_order([3, 9, 4, 8, 5], rows_per_step=2, permutation=lambda n: list(range(n)))
    [1, 3, 4, 2, 0]
    """
    rows, window = permutation(len(lengths)), WINDOW_STEPS * rows_per_step
    windows = [rows[start : start + window] for start in range(0, len(rows), window)]
    steps = [step for rows in windows for step in _steps_by_length(rows, lengths, rows_per_step)]
    shuffled = [steps[index] for index in permutation(len(steps))]
    shuffled.sort(key=len, reverse=True)  # stable: only the step that is not full moves

    def longest_row(index: int) -> tuple[bool, int]:
        step = shuffled[index]
        return len(step) == rows_per_step, max(lengths[row] for row in step)

    shuffled.insert(0, shuffled.pop(max(range(len(shuffled)), key=longest_row)))
    return [row for step in shuffled for row in step]


def _steps_by_length(rows: list[int], lengths: Sequence[int], rows_per_step: int) -> list[list[int]]:
    rows = sorted(rows, key=lambda row: -lengths[row])
    return [rows[start : start + rows_per_step] for start in range(0, len(rows), rows_per_step)]


def even_batches(order: list[int], batch_size: int, processes: int) -> list[int]:
    """The order with its first rows repeated at the end, so that all processes get the same number of full batches.

    This is what Accelerate does (`even_batches`), where consecutive batches go to the processes in turn. A single process
    gets a smaller last batch instead.

    >>> even_batches([5, 6, 7], batch_size=2, processes=2), even_batches([5, 6, 7], batch_size=2, processes=1)
    ([5, 6, 7, 5], [5, 6, 7])
    """
    missing = -len(order) % (batch_size * processes) if processes > 1 else 0
    return [*order, *islice(cycle(order), missing)]
