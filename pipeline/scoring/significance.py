"""Whether a difference is real: intervals and tests by drawing the test rows anew.

Resamples are those of sacrebleu's paired tests (`--paired-bs`, `--paired-ar`): a seed gives its p-values and intervals
of BLEU and chrF, and the same rows for every measure. References: Efron and Tibshirani 1993 (bootstrap), Koehn 2004
(paired bootstrap), Noreen 1989 and Riezler and Maxwell 2005 (approximate randomisation), Holm 1979, McNemar 1947.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.scoring.metrics import Metric

ALPHA = 0.05  # of the whole family of tests; intervals hold 1 - ALPHA each
CELLS = 2**22  # rows × resamples at a time: 32 MiB of counts
EQUAL = 1e-9  # of the larger figure: no difference, but another order of adding up

BETTER, WORSE, WITHIN_NOISE, TOO_FEW, MIXED = "better", "worse", "within noise", "too few rows to tell", "mixed"
Array = np.ndarray


class Interval(NamedTuple):
    value: float
    low: float | None  # None: one row has no spread
    high: float | None


class PairedResult(NamedTuple):
    """Two models on the same rows; delta is other - base, and its interval is that of the paired bootstrap."""

    base: float
    other: float
    delta: float
    low: float | None
    high: float | None
    p_bootstrap: float
    p_randomisation: float
    wins: int  # rows on which other is better (higher, where neither is)
    ties: int
    losses: int
    base_interval: Interval
    other_interval: Interval

    @property
    def rows(self) -> int:
        return self.wins + self.ties + self.losses


def bootstrap_interval(statistics: Array, measure: Metric, resamples: int, seed: int) -> Interval:
    """A measure of statistics (rows, k), with its percentile interval."""
    values = measure.value(bootstrap(statistics, resamples, seed))
    return _interval(float(measure.value(statistics.sum(axis=0))), values, len(statistics))


def paired_test(base: Array, other: Array, measure: Metric, resamples: int, seed: int) -> PairedResult:
    """One measure of two models, each (rows, k), whose rows are the same test rows in the same order."""
    return paired_tests([measure], [base], [other], resamples, seed)[0]


def paired_tests(
    measures: Sequence[Metric], base: Sequence[Array], other: Sequence[Array], resamples: int, seed: int
) -> list[PairedResult]:
    """`paired_test` of several measures at once: the rows are drawn once for all of them."""
    first, second = np.hstack(base), np.hstack(other)
    drawn = bootstrap(np.hstack([first, second]), resamples, seed)
    mixed, rest = approximate_randomization(first, second, resamples, seed)
    ends = np.cumsum([0, *(each.shape[1] for each in base)])
    results = []
    for i, measure in enumerate(measures):
        own = slice(ends[i], ends[i + 1])
        values = measure.value(drawn[:, own]), measure.value(drawn[:, ends[-1] :][:, own])
        exchanged = measure.value(rest[:, own]) - measure.value(mixed[:, own])
        results.append(_paired(measure, base[i], other[i], values, exchanged))
    return results


def _paired(measure: Metric, base: Array, other: Array, drawn: tuple[Array, Array], exchanged: Array) -> PairedResult:
    before, after = (float(measure.value(each.sum(axis=0))) for each in (base, other))
    delta, rows = after - before, len(base)
    differences = drawn[1] - drawn[0]
    least = abs(delta) - EQUAL * max(abs(before), abs(after))
    sizes = np.abs(differences)
    gains = measure.each(other) - measure.each(base)
    gains = gains if measure.higher_is_better is not False else -gains
    level = EQUAL * np.maximum(np.abs(measure.each(other)), np.abs(measure.each(base)))
    wins, losses = int((gains > level).sum()), int((gains < -level).sum())
    return PairedResult(
        before,
        after,
        delta,
        *_interval(delta, differences, rows)[1:],
        p_bootstrap=_share(sizes - sizes.mean() >= least),
        p_randomisation=_share(np.abs(exchanged) >= least),
        wins=wins,
        ties=rows - wins - losses,
        losses=losses,
        base_interval=_interval(before, drawn[0], rows),
        other_interval=_interval(after, drawn[1], rows),
    )


def _share(as_extreme: Array) -> float:
    """A p-value, what was observed counted in: never 0."""
    return (int(as_extreme.sum()) + 1) / (len(as_extreme) + 1)


def _interval(value: float, values: Array, rows: int) -> Interval:
    """The middle 1 - ALPHA of resampled values, by sacrebleu's order statistics."""
    if rows < 2:
        return Interval(value, None, None)
    ordered, cut = np.sort(values), int(len(values) * ALPHA / 2)
    return Interval(value, float(ordered[cut]), float(ordered[-cut - 1]))


def bootstrap(statistics: Array, resamples: int, seed: int) -> Array:
    """Sums of as many rows drawn with replacement: (rows, k) → (resamples, k)."""
    rows, generator, sums = len(statistics), np.random.default_rng(seed), []
    for size in _chunks(resamples, rows):
        drawn = generator.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
        sums.append(counts.astype(np.float64) @ statistics)
    return np.concatenate(sums)


def approximate_randomization(base: Array, other: Array, resamples: int, seed: int) -> tuple[Array, Array]:
    """Sums of two systems in which each row's two answers changed places or did not: (resamples, k) each."""
    rows, generator, sums = len(base), np.random.default_rng(seed), []
    for size in _chunks(resamples, rows):
        stays = generator.integers(2, size=(size, rows), dtype=bool)
        sums.append(stays.astype(np.float64) @ (base - other))
    mixed = np.concatenate(sums) + other.sum(axis=0)
    return mixed, base.sum(axis=0) + other.sum(axis=0) - mixed


def _chunks(resamples: int, rows: int) -> Iterator[int]:
    """Sizes that add up to the resamples. Multiples of 32 but for the last: numpy draws booleans 32 at a time, so the draws
    are those of one call."""
    size = max(CELLS // rows // 32, 1) * 32
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def mcnemar(base: Array, other: Array) -> float:
    """The exact two-sided p-value that base and other (rows,), right or wrong, are right equally often.

    >>> mcnemar(np.array([0, 0, 0, 0, 0, 0, 1]), np.array([1, 1, 1, 1, 1, 1, 1]))
    0.03125
    """
    gained, lost = int(((base == 0) & (other == 1)).sum()), int(((base == 1) & (other == 0)).sum())
    tail, term = 0, 1
    for k in range(min(gained, lost) + 1):
        tail, term = tail + term, term * (gained + lost - k) // (k + 1)
    return min(1.0, 2 * tail / 2 ** (gained + lost))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: below ALPHA with probability ALPHA at most for any of them by chance.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def min_rows(tests: int) -> int:
    """The fewest rows by which a family of so many tests can find anything: n rows have 2^n ways to be exchanged.

    >>> min_rows(1), min_rows(9)
    (6, 9)
    """
    return math.ceil(1 + math.log2(tests / ALPHA))


def verdict(result: PairedResult, p_corrected: float, higher_is_better: bool | None, tests: int = 1) -> str:
    """What a test of a family of `tests` says of other, in words."""
    if result.rows < min_rows(tests):
        return TOO_FEW
    if p_corrected >= ALPHA or not result.delta:
        return WITHIN_NOISE
    return BETTER if (result.delta > 0) == (higher_is_better is not False) else WORSE


def overall_verdict(verdicts: Iterable[str]) -> str:
    """One verdict from those of a family: better or worse where no other says the opposite, else mixed.

    >>> overall_verdict(["better", "within noise"]), overall_verdict(["better", "worse"]), overall_verdict(["within noise"])
    ('better', 'mixed', 'within noise')
    """
    found = set(verdicts)
    if {BETTER, WORSE} <= found:
        return MIXED
    return next((each for each in (BETTER, WORSE, TOO_FEW) if each in found), WITHIN_NOISE)
