"""The order of rows in training, with group_by_length."""

import random

from pipeline.train.trainer import LengthGroupedSampler


def order_of(lengths: list[int], rows_per_step: int, seed: int = 0) -> list[int]:
    return list(LengthGroupedSampler(lengths, rows_per_step, seed))


def test_rows_come_once_longest_step_first_incomplete_step_last() -> None:
    lengths = random.Random(0).choices(range(1, 500), k=1003)
    order = order_of(lengths, 8)
    assert sorted(order) == list(range(1003))
    assert lengths[order[0]] == max(lengths)
    assert order_of(lengths, 8) == order
    assert order_of(lengths, 8, seed=1) != order
    steps = [order[start : start + 8] for start in range(0, 1003, 8)]
    assert len(steps[-1]) == 3
    padded = sum(max(lengths[row] for row in step) * len(step) for step in steps)
    assert padded < 1.03 * sum(lengths)  # in a random order 1.8 times
    longest = [max(lengths[row] for row in step) for step in steps]
    assert longest != sorted(longest, reverse=True)  # or training would end with the short rows alone


def test_set_of_fewer_rows_than_a_step() -> None:
    assert order_of([3, 9, 4], 8) == [1, 2, 0]
    assert order_of([5], 1) == [0]
