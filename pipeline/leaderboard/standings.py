"""Ranks the entries of the leaderboard: metric values with intervals, pairwise tests and ratings.

All intervals are 95% bootstrap percentile intervals over the test rows. A configuration with several seeds uses each row's
mean over its seeds; `spread` is the sample standard deviation over the seeds.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from pipeline.errors import ConfigError, DataError
from pipeline.leaderboard.entries import Entry
from pipeline.leaderboard.ratings import Rating, percentile_interval, rate_entries, win_matrix
from pipeline.scoring.metrics import ALL_METRICS, Array, Metric, metrics_of
from pipeline.scoring.significance import BETTER, bootstrap, holm, paired_test, verdict

PREFERRED_METRICS = ("f1", "exact_match", "bleu", "loss", "rougeL")  # the first that all runs have ranks the entries
AGGREGATE_METRICS = ("loss", "perplexity")  # known for all rows together even if the predictions lack them
MIN_RESAMPLES = 100


class MetricValue(NamedTuple):
    """A metric of one configuration, without an interval if the rows lack it, without a spread if it has one run."""

    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None


class RankedEntry(NamedTuple):
    """One row of the leaderboard."""

    entry: Entry
    values: dict[str, MetricValue]
    rating: Rating | None


class PairwiseResult(NamedTuple):
    """The comparison of two entries by the ranking metric; the fields are the columns of pairs.csv."""

    first: int  # rank of the entry with the better value
    second: int
    delta: float
    low: float | None
    high: float | None
    p: float
    p_corrected: float
    wins: int
    ties: int
    losses: int
    verdict: str  # of scoring/significance.py
    within_seeds: bool  # better, but by no more than training seeds vary


class Standings(NamedTuple):
    metric: str  # ranks the entries
    entries: list[RankedEntry]
    pairs: list[PairwiseResult]
    notes: list[str]


class EntryStatistics(NamedTuple):
    """An entry with the statistics of its runs: metric → (runs, rows, k)."""

    entry: Entry
    statistics: dict[str, Array]


def rank_entries(entries: list[Entry], by: str | None, resamples: int, seed: int, partial: bool) -> Standings:
    """The entries in order of the metric `by`, with pairwise results and notes.

    `partial`: some runs have more test rows than the shared ones, so their metrics over all rows do not apply. Raises
    ConfigError if the runs do not share the metric or there are too few resamples.
    """
    if resamples < MIN_RESAMPLES:
        raise ConfigError(f"--resamples {resamples}: too few for intervals and tests; expected {MIN_RESAMPLES} or more")
    metrics = shared_metrics(entries)
    aggregates = [
        name for name in AGGREGATE_METRICS if not partial and name not in metrics and _all_runs_have(entries, name)
    ]
    ranking_metric = choose_metric([*metrics, *aggregates], by)
    statistics = [
        EntryStatistics(entry, {name: _run_statistics(entry, metric) for name, metric in metrics.items()})
        for entry in entries
    ]
    values = [_metric_values(entry, aggregates, resamples, seed) for entry in statistics]
    sign = -1 if ALL_METRICS[ranking_metric].higher_is_better else 1
    order = sorted(range(len(entries)), key=lambda i: sign * values[i][ranking_metric].value)
    statistics, values = [statistics[i] for i in order], [values[i] for i in order]
    ranking_values = [entry_values[ranking_metric] for entry_values in values]
    ratings, pairs, notes = _compare_entries(statistics, ranking_values, ranking_metric, resamples, seed)
    ranked = [
        RankedEntry(entry.entry, entry_values, rating)
        for entry, entry_values, rating in zip(statistics, values, ratings, strict=True)
    ]
    return Standings(ranking_metric, ranked, pairs, notes)


def _compare_entries(
    ranked: list[EntryStatistics], values: list[MetricValue], name: str, resamples: int, seed: int
) -> tuple[list[Rating | None], list[PairwiseResult], list[str]]:
    """(ratings, pairwise results, notes) by one metric."""
    no_ratings: list[Rating | None] = [None] * len(ranked)
    if name not in ranked[0].statistics:
        note = (
            f"Only the {ALL_METRICS[name].title.lower()} over all rows is known, not that of each row, so there are no "
            "intervals, verdicts or ratings. To get them, evaluate with the current code: dvc repro"
        )
        return no_ratings, [], [note]
    pairs = _pairwise_results(ranked, values, ALL_METRICS[name], resamples, seed)
    if values[0].low is None:
        return no_ratings, pairs, ["With a single test row there are no intervals and no ratings."]
    scores = [_row_scores(entry.statistics[name], ALL_METRICS[name]) for entry in ranked]
    return [*rate_entries(win_matrix(scores), resamples, seed)], pairs, []


def shared_metrics(entries: list[Entry]) -> dict[str, Metric]:
    """The metrics that can be computed from the rows of every run."""
    metrics_by_run = [metrics_of(run.rows) for entry in entries for run in entry.runs]
    return {
        name: metric
        for name, metric in metrics_by_run[0].items()
        if all(name in run_metrics for run_metrics in metrics_by_run)
    }


def _all_runs_have(entries: list[Entry], name: str) -> bool:
    values = [run.metrics.get(name) for entry in entries for run in entry.runs]
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def choose_metric(names: list[str], by: str | None) -> str:
    """The metric that ranks the entries: `by`, or the first of PREFERRED_METRICS.

    Raises ConfigError if it is not in `names` or has no better direction.
    """
    directed = [name for name in names if ALL_METRICS[name].higher_is_better is not None]
    if not directed:
        raise ConfigError("these runs have no metric in common; evaluate them with the current code: dvc repro")
    if by is None:
        return next((name for name in PREFERRED_METRICS if name in directed), directed[0])
    if by not in directed:
        reason = (
            "a higher value is neither better nor worse" if by in names else "not a metric that all these runs have"
        )
        raise ConfigError(f"--by {by}: {reason}; choose one of {', '.join(directed)}")
    return by


def _run_statistics(entry: Entry, metric: Metric) -> Array:
    """(runs, rows, k)"""
    statistics = []
    for run in entry.runs:
        try:
            statistics.append(metric.statistics(run.rows))
        except DataError as error:
            raise DataError(f"{run.name}: {error}") from None
    return np.array(statistics)


def _row_scores(statistics: Array, metric: Metric) -> Array:
    """(runs, rows): the metric of each row, negated if lower is better."""
    values = np.array([metric.row_values(run) for run in statistics])
    return values if metric.higher_is_better else -values


def _metric_values(entry: EntryStatistics, aggregates: list[str], resamples: int, seed: int) -> dict[str, MetricValue]:
    """All metrics of an entry, which share one set of resamples."""
    values = {name: _aggregate_value(entry.entry, name) for name in aggregates}
    if not entry.statistics:
        return values
    means = {name: statistics.mean(axis=0) for name, statistics in entry.statistics.items()}
    resampled = bootstrap(np.hstack([*means.values()]), resamples, seed)
    ends = np.cumsum([mean.shape[1] for mean in means.values()])
    for (name, mean), sums in zip(means.items(), np.split(resampled, ends[:-1], axis=1), strict=True):
        metric_value = ALL_METRICS[name].value
        run_values = [float(metric_value(run.sum(axis=0))) for run in entry.statistics[name]]
        low, high = map(float, percentile_interval(metric_value(sums))) if len(mean) > 1 else (None, None)
        values[name] = MetricValue(float(metric_value(mean.sum(axis=0))), low, high, _seed_std(run_values))
    return {name: values[name] for name in ALL_METRICS if name in values}


def _aggregate_value(entry: Entry, name: str) -> MetricValue:
    run_values = [float(run.metrics[name]) for run in entry.runs]
    return MetricValue(float(np.mean(run_values)), spread=_seed_std(run_values))


def _seed_std(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _pairwise_results(
    ranked: list[EntryStatistics], values: list[MetricValue], metric: Metric, resamples: int, seed: int
) -> list[PairwiseResult]:
    """Each entry against every lower-ranked one, with p-values corrected over all pairs."""
    means = [entry.statistics[metric.name].mean(axis=0) for entry in ranked]
    pairs = list(itertools.combinations(range(len(ranked)), 2))
    paired = [paired_test(means[second], means[first], metric, resamples, seed) for first, second in pairs]
    corrected = holm([result.p_randomisation for result in paired])
    runs = [len(entry.entry.runs) for entry in ranked]
    seed_std = pooled_seed_std(values, runs)
    results = []
    for (first, second), result, p_corrected in zip(pairs, paired, corrected, strict=True):
        pair_verdict = verdict(result, p_corrected, metric.higher_is_better, len(pairs))
        seed_error = seed_std * math.sqrt(1 / runs[first] + 1 / runs[second])
        results.append(
            PairwiseResult(
                *(first + 1, second + 1, result.delta, result.low, result.high, result.p_randomisation, p_corrected),
                *(result.wins, result.ties, result.losses, pair_verdict),
                within_seeds=pair_verdict == BETTER and abs(result.delta) <= 2 * seed_error,
            )
        )
    return results


def pooled_seed_std(values: list[MetricValue], runs: list[int]) -> float:
    """The standard deviation of single runs over seeds, pooled over all configurations with several; 0 if there are none.

    >>> pooled_seed_std([MetricValue(0.5, spread=0.03), MetricValue(0.5, spread=0.01), MetricValue(0.5)], [2, 4, 1]).__round__(6)
    0.017321
    """
    known = [(value.spread, count - 1) for value, count in zip(values, runs, strict=True) if value.spread is not None]
    degrees_of_freedom = sum(freedom for _, freedom in known)
    if not degrees_of_freedom:
        return 0.0
    return math.sqrt(sum(spread**2 * freedom for spread, freedom in known) / degrees_of_freedom)
