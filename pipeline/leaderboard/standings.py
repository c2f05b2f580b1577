"""What the leaderboard says: figures with their intervals, who is better than whom, and a rating.

All intervals are over the test rows (bootstrap percentiles, 95%). A configuration of several seeds has each row's mean
over its seeds; how far the seeds lie apart is given beside, as the sample's standard deviation.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from pipeline.errors import ConfigError, DataError
from pipeline.leaderboard.entries import Entry
from pipeline.leaderboard.ratings import Rating, percentile_interval, rate_entries, win_matrix
from pipeline.scoring.metrics import ALL_METRICS, Metric, metrics_of
from pipeline.scoring.significance import BETTER, bootstrap, holm, paired_test, verdict

PREFERRED = ("f1", "exact_match", "bleu", "loss", "rougeL")
WHOLE = ("loss", "perplexity")  # metrics that evaluate wrote of all rows together, where rows do not have them
FEWEST_RESAMPLES = 100
Array = np.ndarray


class MetricValue(NamedTuple):
    """A metric of a configuration; no interval where its rows do not have it, no spread where it ran once."""

    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None


class Place(NamedTuple):
    """A row of the leaderboard."""

    entry: Entry
    figures: dict[str, MetricValue]
    rating: Rating | None


class PairwiseResult(NamedTuple):
    """Two places, by rank, the better figure first: by how much, how surely, and on how many rows."""

    first: int
    second: int
    delta: float
    low: float | None
    high: float | None
    p: float
    p_corrected: float
    wins: int
    ties: int
    losses: int
    verdict: str  # in the words of resampling.py
    within_seeds: bool  # by no more than another seed makes


class Standings(NamedTuple):
    by: str
    places: list[Place]
    duels: list[PairwiseResult]
    notes: list[str]


class Counted(NamedTuple):
    """An entry with the statistics of its runs: measure → (runs, rows, k)."""

    entry: Entry
    statistics: dict[str, Array]


def rank_entries(entries: list[Entry], by: str | None, resamples: int, seed: int, partial: bool) -> Standings:
    """The places in order, the duels and what is to be said of them; `partial`: on some of the test rows only.

    ConfigError if there is no metric `by`, or too few resamples.
    """
    if resamples < FEWEST_RESAMPLES:
        raise ConfigError(f"--resamples {resamples}: too few to tell anything by; expected {FEWEST_RESAMPLES} or more")
    measures = shared_metrics(entries)
    whole = [] if partial else [name for name in WHOLE if name not in measures and _all_have(entries, name)]
    by = choose_metric([*measures, *whole], by)
    counted = [Counted(entry, {name: _statistics(entry, measures[name]) for name in measures}) for entry in entries]
    figures = [_figures(each, whole, resamples, seed) for each in counted]
    sign = -1 if ALL_METRICS[by].higher_is_better else 1
    order = sorted(range(len(entries)), key=lambda at: sign * figures[at][by].value)
    ordered, figures = [counted[at] for at in order], [figures[at] for at in order]
    rated, duels, notes = _contest(ordered, [each[by] for each in figures], by, resamples, seed)
    places = [Place(each.entry, *rest) for each, *rest in zip(ordered, figures, rated, strict=True)]
    return Standings(by, places, duels, notes)


def _contest(
    ordered: list[Counted], figures: list[MetricValue], by: str, resamples: int, seed: int
) -> tuple[list[Rating | None], list[PairwiseResult], list[str]]:
    """(ratings, duels, notes) by one metric."""
    unrated: list[Rating | None] = [None] * len(ordered)
    if by not in ordered[0].statistics:
        note = (
            f"Only the {ALL_METRICS[by].title.lower()} of all rows together is known, not that of each row: no intervals, "
            "verdicts and ratings. Evaluate with the present code to have them: dvc repro"
        )
        return unrated, [], [note]
    duels = _duels(ordered, figures, ALL_METRICS[by], resamples, seed)
    if figures[0].low is None:
        return unrated, duels, ["One test row has no spread: no intervals and no ratings."]
    scores = [_scores(each.statistics[by], ALL_METRICS[by]) for each in ordered]
    return [*rate_entries(win_matrix(scores), resamples, seed)], duels, []


def shared_metrics(entries: list[Entry]) -> dict[str, Metric]:
    """The measures that the rows of every run have what is needed for."""
    found = [metrics_of(run.rows) for entry in entries for run in entry.runs]
    return {name: measure for name, measure in found[0].items() if all(name in each for each in found)}


def _all_have(entries: list[Entry], name: str) -> bool:
    values = [run.metrics.get(name) for entry in entries for run in entry.runs]
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def choose_metric(names: list[str], by: str | None) -> str:
    """The metric to order by: the one asked for, or the most telling one there is."""
    good = [name for name in names if ALL_METRICS[name].higher_is_better is not None]
    if not good:
        raise ConfigError("these runs have no metric in common; evaluate them with the present code: dvc repro")
    if by is None:
        return next((name for name in PREFERRED if name in good), good[0])
    if by not in good:
        why = "more of it is neither better nor worse" if by in names else "these runs have no such metric in common"
        raise ConfigError(f"--by {by}: {why}; there are {', '.join(good)}")
    return by


def _statistics(entry: Entry, measure: Metric) -> Array:
    """(runs, rows, k)"""
    found = []
    for run in entry.runs:
        try:
            found.append(measure.statistics(run.rows))
        except DataError as error:
            raise DataError(f"{run.name}: {error}") from None
    return np.array(found)


def _scores(statistics: Array, measure: Metric) -> Array:
    """(runs, rows): each row's own value, turned so that more is better."""
    values = np.array([measure.each(run) for run in statistics])
    return values if measure.higher_is_better else -values


def _figures(counted: Counted, whole: list[str], resamples: int, seed: int) -> dict[str, MetricValue]:
    """Each metric's figure; the rows are drawn once for all of them."""
    found = {name: _whole_figure(counted.entry, name) for name in whole}
    if not counted.statistics:
        return found
    means = {name: each.mean(axis=0) for name, each in counted.statistics.items()}
    drawn = bootstrap(np.hstack([*means.values()]), resamples, seed)
    ends = np.cumsum([mean.shape[1] for mean in means.values()])
    for (name, mean), sums in zip(means.items(), np.split(drawn, ends[:-1], axis=1), strict=True):
        value = ALL_METRICS[name].value
        each = [float(value(run.sum(axis=0))) for run in counted.statistics[name]]
        low, high = map(float, percentile_interval(value(sums))) if len(mean) > 1 else (None, None)
        found[name] = MetricValue(float(value(mean.sum(axis=0))), low, high, _spread(each))
    return {name: found[name] for name in ALL_METRICS if name in found}


def _whole_figure(entry: Entry, name: str) -> MetricValue:
    each = [float(run.metrics[name]) for run in entry.runs]
    return MetricValue(float(np.mean(each)), spread=_spread(each))


def _spread(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _duels(
    ordered: list[Counted], figures: list[MetricValue], measure: Metric, resamples: int, seed: int
) -> list[PairwiseResult]:
    """Each place against each below it, tested as one family."""
    means = [each.statistics[measure.name].mean(axis=0) for each in ordered]
    pairs = list(itertools.combinations(range(len(ordered)), 2))
    found = [paired_test(means[second], means[first], measure, resamples, seed) for first, second in pairs]
    adjusted = holm([each.p_randomisation for each in found])
    runs = [len(each.entry.runs) for each in ordered]
    noise = pooled_seed_std(figures, runs)
    duels = []
    for (first, second), each, p in zip(pairs, found, adjusted, strict=True):
        said = verdict(each, p, measure.higher_is_better, len(pairs))
        error = noise * math.sqrt(1 / runs[first] + 1 / runs[second])
        told = (each.delta, each.low, each.high, each.p_randomisation, p, each.wins, each.ties, each.losses, said)
        duels.append(PairwiseResult(first + 1, second + 1, *told, said == BETTER and abs(each.delta) <= 2 * error))
    return duels


def pooled_seed_std(figures: list[MetricValue], runs: list[int]) -> float:
    """The standard deviation of one run among seeds, pooled over the configurations that ran more than once; else 0.

    >>> pooled_seed_std([MetricValue(0.5, spread=0.03), MetricValue(0.5, spread=0.01), MetricValue(0.5)], [2, 4, 1]).__round__(6)
    0.017321
    """
    known = [
        (figure.spread, count - 1) for figure, count in zip(figures, runs, strict=True) if figure.spread is not None
    ]
    freedom = sum(count for _, count in known)
    return math.sqrt(sum(spread**2 * count for spread, count in known) / freedom) if freedom else 0.0
