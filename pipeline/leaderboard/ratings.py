"""Ratings from wins and losses: Bradley and Terry's model, on the scale of Elo.

A player of strength p beats one of strength q with probability p / (p + q) (Bradley and Terry 1952, Rank analysis of
incomplete block designs); a tie is half a win for each. The likelihood has one maximum (Hunter 2004, MM algorithms for
generalized Bradley-Terry models), which Newton's method finds in some ten steps where Hunter's takes thousands if one
player nearly always wins. 400 points of rating are odds of ten to one. Here a test question is a game of each two: its
answers' scores say who wins.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.significance import ALPHA, bootstrap

MEAN = 1000.0  # of all ratings
SCALE = 400.0 / np.log(10.0)  # points of rating: 400 make the odds ten times as large
TIES = 1.0  # added between each two: who always won stays finite, as after one game more that was a tie
TOLERANCE, MOST_STEPS = 1e-9, 200
Array = NDArray[np.float64]


class Rating(NamedTuple):
    value: float
    low: float
    high: float


def bradley_terry(wins: Array) -> Array:
    """Logarithms of the strengths (…, n) of greatest likelihood, their mean 0, from wins (…, n, n): of row over column.

    Each two have to be joined by wins both ways, if by way of others; else there is no finite greatest likelihood.

    >>> bradley_terry(np.array([[0.0, 30.0], [10.0, 0.0]])).round(6).tolist()  # they differ by the logarithm of 3
    [0.549306, -0.549306]
    """
    count = wins.shape[-1]
    games = wins + np.swapaxes(wins, -1, -2)
    found = np.zeros(wins.shape[:-1])
    for _ in range(MOST_STEPS):
        likely = 1 / (1 + np.exp(found[..., None, :] - found[..., :, None]))  # that the row's player wins
        slope = (wins - games * likely).sum(axis=-1)
        weight = games * likely * (1 - likely)
        curvature = weight.sum(axis=-1)[..., None] * np.eye(count) - weight
        # Abilities that are all raised alike are as likely: 1 / n on every place holds their mean at 0.
        step = np.linalg.solve(curvature + 1 / count, slope[..., None])[..., 0]
        # No step changes odds by more than a factor of e: so Newton's method comes home from anywhere, odds being logistic.
        found += step / np.maximum(1, np.ptp(step, axis=-1, keepdims=True))
        if np.abs(step).max() < TOLERANCE:
            return found
    raise ArithmeticError(f"no greatest likelihood after {MOST_STEPS} steps")


def win_matrix(scores: list[Array]) -> Array:
    """Wins (rows, n, n) of each player over each other in every row, from n arrays of scores (runs, rows); ties are halves.

    Players of several runs meet run by run, and a row's wins are the share of the meetings.
    """
    count, rows = len(scores), scores[0].shape[-1]
    wins = np.zeros((rows, count, count))
    for one in range(count):
        for other in range(one + 1, count):
            difference = scores[one][:, None, :] - scores[other][None, :, :]  # (runs, runs, rows)
            won = (0.5 + 0.5 * np.sign(difference)).mean(axis=(0, 1))
            wins[:, one, other], wins[:, other, one] = won, 1 - won
    return wins


def rate_entries(wins: Array, resamples: int, seed: int) -> list[Rating]:
    """Each player's rating with its bootstrap interval over the rows of wins (rows, n, n); one player met nobody."""
    rows, count = wins.shape[0], wins.shape[-1]
    if count == 1:
        return [Rating(MEAN, MEAN, MEAN)]
    ties = TIES / 2 * (1 - np.eye(count))
    drawn = bootstrap(wins.reshape(rows, -1), resamples, seed).reshape(resamples, count, count)
    values = MEAN + SCALE * bradley_terry(wins.sum(axis=0) + ties)
    low, high = percentile_interval(MEAN + SCALE * bradley_terry(drawn + ties))
    return [Rating(*map(float, each)) for each in zip(values, low, high, strict=True)]


def percentile_interval(values: Array) -> tuple[Array, Array]:
    """The ends of the middle 95% of resampled values (resamples, …), by the order statistics of resampling.py's intervals."""
    ordered, cut = np.sort(values, axis=0), int(len(values) * ALPHA / 2)
    return ordered[cut], ordered[-cut - 1]
