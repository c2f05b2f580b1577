"""Significance of the differences between two models: confidence intervals and tests by resampling the test rows.

Resampling follows sacrebleu's paired tests (`--paired-bs`, `--paired-ar`): the same seed gives the same p-values and
intervals of BLEU and chrF, and every metric uses the same resamples. References: Efron and Tibshirani 1993 (bootstrap),
Koehn 2004 (paired bootstrap), Noreen 1989 and Riezler and Maxwell 2005 (approximate randomization), Holm 1979,
McNemar 1947.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.metrics import Array, Metric

ALPHA = 0.05  # family-wise error rate of the tests; every interval has confidence 1 - ALPHA
CHUNK_ELEMENTS = 2**22  # rows × resamples at a time: 32 MiB of counts
RELATIVE_TOLERANCE = 1e-9  # a smaller difference comes from the order of summation

BETTER, WORSE, WITHIN_NOISE, TOO_FEW, MIXED = "better", "worse", "within noise", "too few rows to tell", "mixed"


class Interval(NamedTuple):
    value: float
    low: float | None  # None for a single row, which has no spread
    high: float | None


class PairedResult(NamedTuple):
    """Two models on the same rows. delta is other - base, and its interval comes from the paired bootstrap."""

    base: float
    other: float
    delta: float
    low: float | None
    high: float | None
    p_bootstrap: float
    p_randomisation: float  # this spelling is a column of verdicts.csv
    wins: int  # rows on which other is better, or higher where neither direction is better
    ties: int
    losses: int
    base_interval: Interval
    other_interval: Interval

    @property
    def rows(self) -> int:
        return self.wins + self.ties + self.losses


def bootstrap_interval(statistics: Array, metric: Metric, resamples: int, seed: int) -> Interval:
    """The metric of statistics (rows, k) with its percentile bootstrap interval."""
    values = metric.value(bootstrap(statistics, resamples, seed))
    return _percentile_interval(float(metric.value(statistics.sum(axis=0))), values, len(statistics))


def paired_test(base: Array, other: Array, metric: Metric, resamples: int, seed: int) -> PairedResult:
    """Compare two models by one metric. Both statistics are (rows, k), for the same test rows in the same order."""
    return paired_tests([metric], [base], [other], resamples, seed)[0]


def paired_tests(
    metrics: Sequence[Metric], base: Sequence[Array], other: Sequence[Array], resamples: int, seed: int
) -> list[PairedResult]:
    """`paired_test` by several metrics, which share one set of resamples."""
    stacked_base, stacked_other = np.hstack(base), np.hstack(other)
    resampled = bootstrap(np.hstack([stacked_base, stacked_other]), resamples, seed)
    swapped_base, swapped_other = approximate_randomization(stacked_base, stacked_other, resamples, seed)
    bounds = np.cumsum([0, *(statistics.shape[1] for statistics in base)])
    results = []
    for i, metric in enumerate(metrics):
        columns = slice(bounds[i], bounds[i + 1])
        values = metric.value(resampled[:, columns]), metric.value(resampled[:, bounds[-1] :][:, columns])
        null_deltas = metric.value(swapped_other[:, columns]) - metric.value(swapped_base[:, columns])
        results.append(_paired_result(metric, base[i], other[i], values, null_deltas))
    return results


def _paired_result(
    metric: Metric, base: Array, other: Array, resampled: tuple[Array, Array], null_deltas: Array
) -> PairedResult:
    """resampled: the metric of base and of other in each bootstrap resample; null_deltas: its deltas after random swaps."""
    base_value, other_value = (float(metric.value(statistics.sum(axis=0))) for statistics in (base, other))
    delta, rows = other_value - base_value, len(base)
    deltas = resampled[1] - resampled[0]
    least_extreme = abs(delta) - RELATIVE_TOLERANCE * max(abs(base_value), abs(other_value))
    sizes = np.abs(deltas)
    wins, losses = _wins_and_losses(metric, base, other)
    return PairedResult(
        base_value,
        other_value,
        delta,
        *_percentile_interval(delta, deltas, rows)[1:],
        p_bootstrap=_p_value(sizes - sizes.mean() >= least_extreme),
        p_randomisation=_p_value(np.abs(null_deltas) >= least_extreme),
        wins=wins,
        ties=rows - wins - losses,
        losses=losses,
        base_interval=_percentile_interval(base_value, resampled[0], rows),
        other_interval=_percentile_interval(other_value, resampled[1], rows),
    )


def _wins_and_losses(metric: Metric, base: Array, other: Array) -> tuple[int, int]:
    base_values, other_values = metric.row_values(base), metric.row_values(other)
    gains = other_values - base_values if metric.higher_is_better is not False else base_values - other_values
    tolerance = RELATIVE_TOLERANCE * np.maximum(np.abs(other_values), np.abs(base_values))
    return int((gains > tolerance).sum()), int((gains < -tolerance).sum())


def _p_value(as_extreme: NDArray[np.bool_]) -> float:
    """The share of resamples as extreme as the observation, which counts as one of them, so it is never 0."""
    return (int(as_extreme.sum()) + 1) / (len(as_extreme) + 1)


def _percentile_interval(value: float, values: Array, rows: int) -> Interval:
    """The middle 1 - ALPHA of the resampled values, by the order statistics that sacrebleu uses."""
    if rows < 2:
        return Interval(value, None, None)
    ordered, cut = np.sort(values), int(len(values) * ALPHA / 2)
    return Interval(value, float(ordered[cut]), float(ordered[-cut - 1]))


def bootstrap(statistics: Array, resamples: int, seed: int) -> Array:
    """Sums over as many rows, drawn with replacement: (rows, k) → (resamples, k)."""
    rows, generator, sums = len(statistics), np.random.default_rng(seed), []
    for size in _chunk_sizes(resamples, rows):
        indices = generator.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        counts = np.bincount(indices.ravel(), minlength=size * rows).reshape(size, rows)
        sums.append(counts.astype(np.float64) @ statistics)
    return np.concatenate(sums)


def approximate_randomization(base: Array, other: Array, resamples: int, seed: int) -> tuple[Array, Array]:
    """Sums of two systems after each row's two answers are swapped with probability ½: twice (resamples, k)."""
    rows, generator, sums = len(base), np.random.default_rng(seed), []
    for size in _chunk_sizes(resamples, rows):
        unswapped = generator.integers(2, size=(size, rows), dtype=bool)
        sums.append(unswapped.astype(np.float64) @ (base - other))
    swapped_base = np.concatenate(sums) + other.sum(axis=0)
    return swapped_base, base.sum(axis=0) + other.sum(axis=0) - swapped_base


def _chunk_sizes(resamples: int, rows: int) -> Iterator[int]:
    """Chunk sizes that add up to `resamples`. All but the last are multiples of 32, because numpy draws booleans 32 at a
    time; so the chunks draw the same numbers as one call would."""
    size = max(CHUNK_ELEMENTS // rows // 32, 1) * 32
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def mcnemar(base: Array, other: Array) -> float:
    """The two-sided p-value of McNemar's exact test that two systems are right equally often.

    base and other: (rows,), 1 where the system is right and 0 where it is wrong.

    >>> mcnemar(np.array([0, 0, 0, 0, 0, 0, 1]), np.array([1, 1, 1, 1, 1, 1, 1]))
    0.03125
    """
    gained, lost = int(((base == 0) & (other == 1)).sum()), int(((base == 1) & (other == 0)).sum())
    tail, binomial = 0, 1
    for k in range(min(gained, lost) + 1):
        tail, binomial = tail + binomial, binomial * (gained + lost - k) // (k + 1)
    return float(min(1.0, 2 * tail / 2 ** (gained + lost)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order of `p_values`. They control the family-wise error rate: the probability that
    any of them is below ALPHA by chance is at most ALPHA.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def min_rows(tests: int) -> int:
    """The fewest rows with which a family of `tests` tests can find a difference: n rows can be swapped in 2^n ways.

    >>> min_rows(1), min_rows(9)
    (6, 9)
    """
    return math.ceil(1 + math.log2(tests / ALPHA))


def verdict(result: PairedResult, p_corrected: float, higher_is_better: bool | None, tests: int = 1) -> str:
    """The verdict on the other model by one metric. tests: the number of tests that p_corrected is corrected for."""
    if result.rows < min_rows(tests):
        return TOO_FEW
    if p_corrected >= ALPHA or not result.delta:
        return WITHIN_NOISE
    return BETTER if (result.delta > 0) == (higher_is_better is not False) else WORSE


def overall_verdict(verdicts: Iterable[str]) -> str:
    """One verdict for a family of tests: better or worse if no test contradicts it, mixed if tests disagree.

    >>> overall_verdict(["better", "within noise"]), overall_verdict(["better", "worse"]), overall_verdict(["within noise"])
    ('better', 'mixed', 'within noise')
    """
    distinct = set(verdicts)
    if {BETTER, WORSE} <= distinct:
        return MIXED
    return next((verdict for verdict in (BETTER, WORSE, TOO_FEW) if verdict in distinct), WITHIN_NOISE)
