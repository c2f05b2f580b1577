"""What the leaderboard says: figures with their intervals, who is better than whom, and a rating.

All intervals are over the test questions (bootstrap percentiles, 95%). A configuration of several seeds has each
question's mean over its seeds; how far the seeds lie apart is given beside, as the sample's standard deviation.
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from pipeline.entries import Entry
from pipeline.errors import ConfigError
from pipeline.measures import Measure, measures_of
from pipeline.ratings import Rating, ratings, wins_of
from pipeline.resampling import bootstrap, corrected, paired

PREFERRED = ("f1", "exact_match", "bleu", "loss", "rougeL")
WHOLE = ("loss", "perplexity")  # metrics that evaluate writes of all rows together, where rows do not have them
LEVEL = 0.05  # of the verdicts, over all pairs together
FEWEST_RESAMPLES = 100
Measures = dict[str, Measure]


class Figure(NamedTuple):
    """A metric of a configuration; no interval where its rows do not have it, no spread where it ran once."""

    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None


class Place(NamedTuple):
    """A row of the leaderboard."""

    entry: Entry
    figures: dict[str, Figure]
    rating: Rating | None


class Duel(NamedTuple):
    """Two places, by rank, the better figure first: by how much, how surely, and on how many questions."""

    first: int
    second: int
    delta: float
    low: float
    high: float
    p: float
    p_corrected: float
    wins: int
    ties: int
    losses: int
    verdict: str  # better, or within noise
    within_seeds: bool  # by no more than another seed makes


class Standings(NamedTuple):
    by: str
    places: list[Place]
    duels: list[Duel]
    notes: list[str]


def standings(entries: list[Entry], by: str | None, resamples: int, seed: int, partial: bool) -> Standings:
    """The places in order, the duels and what is to be said of them; `partial`: on some of the test rows only.

    ConfigError if there is no metric `by`.
    """
    if resamples < FEWEST_RESAMPLES:
        raise ConfigError(
            f"--resamples: {resamples} are too few to tell anything by; expected {FEWEST_RESAMPLES} or more"
        )
    measures = shared_measures(entries)
    whole = [] if partial else [name for name in WHOLE if name not in measures and _all_have(entries, name)]
    by = chosen([*measures, *whole], by)
    lower_first = not measures[by].higher_is_better if by in measures else True
    figures = [_figures(entry, measures, whole, resamples, seed) for entry in entries]
    order = sorted(range(len(entries)), key=lambda at: figures[at][by].value * (1 if lower_first else -1))
    ordered = [entries[at] for at in order]
    if by in measures:
        rated: list[Any] = ratings(wins_of([_scores(entry, measures[by]) for entry in ordered]), resamples, seed)
        duels = _duels(ordered, [figures[at][by] for at in order], measures[by], resamples, seed)
        notes = []
    else:
        rated, duels = [None] * len(entries), []
        notes = [
            f"Only the {by} of all rows together is known, not of each row: no intervals, verdicts and ratings. "
            "Evaluate again with the present code: dvc repro"
        ]
    places = [Place(entries[at], figures[at], rating) for at, rating in zip(order, rated, strict=True)]
    return Standings(by, places, duels, notes)


def shared_measures(entries: list[Entry]) -> Measures:
    """The measures that the rows of every run have what is needed for."""
    found = [measures_of(run.rows) for entry in entries for run in entry.runs]
    return {name: measure for name, measure in found[0].items() if all(name in each for each in found)}


def _all_have(entries: list[Entry], name: str) -> bool:
    values = [run.metrics.get(name) for entry in entries for run in entry.runs]
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def chosen(names: list[str], by: str | None) -> str:
    """The metric to order by: the one asked for, or the most telling one there is."""
    if not names:
        raise ConfigError("these runs have no metric in common; evaluate them again with the present code: dvc repro")
    if by is None:
        return next((name for name in PREFERRED if name in names), names[0])
    if by not in names:
        raise ConfigError(f"--by {by}: these runs have no such metric in common; there are {', '.join(names)}")
    return by


def _statistics(entry: Entry, measure: Measure) -> np.ndarray:
    """(rows, k): each row's mean over the seeds."""
    return np.mean([measure.statistics(run.rows) for run in entry.runs], axis=0)


def _scores(entry: Entry, measure: Measure) -> np.ndarray:
    """(runs, rows): each row's own value, turned so that more is better."""
    values = np.array([measure.value(measure.statistics(run.rows)) for run in entry.runs])
    return values if measure.higher_is_better else -values


def _figures(entry: Entry, measures: Measures, whole: list[str], resamples: int, seed: int) -> dict[str, Figure]:
    found = {}
    for name, measure in measures.items():
        interval = bootstrap(_statistics(entry, measure), measure, resamples, seed)
        each = [float(measure.value(measure.statistics(run.rows).sum(axis=0))) for run in entry.runs]
        found[name] = Figure(interval.value, interval.low, interval.high, _spread(each))
    for name in whole:
        each = [float(run.metrics[name]) for run in entry.runs]
        found[name] = Figure(float(np.mean(each)), spread=_spread(each))
    return found


def _spread(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _duels(entries: list[Entry], figures: list[Figure], measure: Measure, resamples: int, seed: int) -> list[Duel]:
    statistics = [_statistics(entry, measure) for entry in entries]
    pairs = list(itertools.combinations(range(len(entries)), 2))
    found = [paired(statistics[second], statistics[first], measure, resamples, seed) for first, second in pairs]
    adjusted = corrected([each.p_randomisation for each in found])
    runs = [len(entry.runs) for entry in entries]
    noise = seed_noise(figures, runs)
    duels = []
    for (first, second), each, p in zip(pairs, found, adjusted, strict=True):
        error = noise * math.sqrt(1 / runs[first] + 1 / runs[second])
        verdict = "better" if p < LEVEL and each.delta else "within noise"
        figures_told = (each.delta, each.low, each.high, each.p_randomisation, float(p))
        counts = (each.wins, each.ties, each.losses)
        duels.append(Duel(first + 1, second + 1, *figures_told, *counts, verdict, abs(each.delta) <= 2 * error))
    return duels


def seed_noise(figures: list[Figure], runs: list[int]) -> float:
    """The standard deviation of one run among seeds, pooled over the configurations that ran more than once; else 0.

    >>> seed_noise([Figure(0.5, spread=0.03), Figure(0.5, spread=0.01), Figure(0.5)], [2, 4, 1]).__round__(6)
    0.017321
    """
    known = [
        (figure.spread, count - 1) for figure, count in zip(figures, runs, strict=True) if figure.spread is not None
    ]
    freedom = sum(count for _, count in known)
    return math.sqrt(sum(spread**2 * count for spread, count in known) / freedom) if freedom else 0.0
