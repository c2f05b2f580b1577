"""Ratings from wins and losses: the Bradley-Terry model on the Elo scale.

A player of strength p beats one of strength q with probability p / (p + q) (Bradley and Terry 1952, Rank analysis of
incomplete block designs); a tie counts as half a win for each. The likelihood has a single maximum (Hunter 2004, MM
algorithms for generalized Bradley-Terry models). Newton's method finds it in about ten steps, where Hunter's algorithm
takes thousands if one player nearly always wins. A difference of 400 points means odds of ten to one.

In the leaderboard the players are configurations, and each test row is a game between every two of them: the higher score wins.
"""

from typing import NamedTuple

import numpy as np

from pipeline.scoring.metrics import Array
from pipeline.scoring.significance import ALPHA, bootstrap

MEAN_RATING = 1000.0
RATING_SCALE = 400.0 / np.log(10.0)  # rating points per unit of log-strength: 400 points are odds of ten to one
PRIOR_TIES = 1.0  # one tie added for every pair, so that a player who always wins has a finite rating
TOLERANCE, MAX_STEPS = 1e-9, 200


class Rating(NamedTuple):
    value: float
    low: float
    high: float


def bradley_terry(wins: Array) -> Array:
    """Maximum-likelihood log-strengths (…, n) with mean 0, from wins (…, n, n) of the row's player over the column's.

    Every two players must be linked by chains of wins in both directions, or no finite maximum exists. Raises
    ArithmeticError if Newton's method does not converge.

    >>> bradley_terry(np.array([[0.0, 30.0], [10.0, 0.0]])).round(6).tolist()  # the difference is log 3
    [0.549306, -0.549306]
    """
    count = wins.shape[-1]
    games = wins + np.swapaxes(wins, -1, -2)
    strengths = np.zeros(wins.shape[:-1])
    for _ in range(MAX_STEPS):
        win_probability = 1 / (1 + np.exp(strengths[..., None, :] - strengths[..., :, None]))  # of the row's player
        gradient = (wins - games * win_probability).sum(axis=-1)
        weight = games * win_probability * (1 - win_probability)
        negative_hessian = weight.sum(axis=-1)[..., None] * np.eye(count) - weight
        # Raising all log-strengths equally does not change the likelihood. Adding 1 / n everywhere keeps their mean at 0.
        step = np.linalg.solve(negative_hessian + 1 / count, gradient[..., None])[..., 0]
        # No step changes odds by more than a factor of e, so Newton's method converges from any start.
        strengths += step / np.maximum(1, np.ptp(step, axis=-1, keepdims=True))
        if np.abs(step).max() < TOLERANCE:
            return strengths
    raise ArithmeticError(f"the Bradley-Terry fit did not converge in {MAX_STEPS} steps")


def win_matrix(scores: list[Array]) -> Array:
    """Wins (rows, n, n) of every player over every other on each row, from n score arrays (runs, rows). A tie is half a win.

    If players have several runs, each run of one meets each run of the other, and wins are the share of these meetings.
    """
    count, rows = len(scores), scores[0].shape[-1]
    wins = np.zeros((rows, count, count))
    for first in range(count):
        for second in range(first + 1, count):
            difference = scores[first][:, None, :] - scores[second][None, :, :]  # (runs, runs, rows)
            share = (0.5 + 0.5 * np.sign(difference)).mean(axis=(0, 1))
            wins[:, first, second], wins[:, second, first] = share, 1 - share
    return wins


def rate_entries(wins: Array, resamples: int, seed: int) -> list[Rating]:
    """Each player's rating with its bootstrap interval over the rows of wins (rows, n, n); a single player has the mean."""
    rows, count = wins.shape[0], wins.shape[-1]
    if count == 1:
        return [Rating(MEAN_RATING, MEAN_RATING, MEAN_RATING)]
    prior = PRIOR_TIES / 2 * (1 - np.eye(count))
    resampled = bootstrap(wins.reshape(rows, -1), resamples, seed).reshape(resamples, count, count)
    values = MEAN_RATING + RATING_SCALE * bradley_terry(wins.sum(axis=0) + prior)
    lows, highs = percentile_interval(MEAN_RATING + RATING_SCALE * bradley_terry(resampled + prior))
    return [Rating(float(value), float(low), float(high)) for value, low, high in zip(values, lows, highs, strict=True)]


def percentile_interval(values: Array) -> tuple[Array, Array]:
    """(low, high) of the middle 95% of resampled values (resamples, …), by the order statistics of scoring/significance.py."""
    ordered, cut = np.sort(values, axis=0), int(len(values) * ALPHA / 2)
    return ordered[cut], ordered[-cut - 1]
