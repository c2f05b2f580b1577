"""pipeline/leaderboard/ratings.py against figures worked out by hand and against a published fit."""

import numpy as np
import pytest

from pipeline.leaderboard.ratings import bradley_terry, rate_entries, win_matrix

# Wins of the American League's eastern teams in 1987 over each other (Agresti, Categorical Data Analysis, second edition,
# table 10.10),
# and the fit published there: the logarithm of the strengths against Baltimore's, in two decimals.
BASEBALL = {
    "Milwaukee": ([0, 7, 9, 7, 7, 9, 11], 1.58),
    "Detroit": ([6, 0, 7, 5, 11, 9, 9], 1.44),
    "Toronto": ([4, 6, 0, 7, 7, 8, 12], 1.29),
    "New York": ([6, 8, 6, 0, 6, 7, 10], 1.25),
    "Boston": ([6, 2, 6, 7, 0, 7, 12], 1.11),
    "Cleveland": ([4, 4, 5, 6, 6, 0, 6], 0.68),
    "Baltimore": ([2, 4, 1, 3, 1, 7, 0], 0.0),
}


def test_the_fit_is_the_published_one() -> None:
    fitted = bradley_terry(np.array([wins for wins, _ in BASEBALL.values()], dtype=float))
    assert (fitted - fitted[-1]).round(2).tolist() == [figure for _, figure in BASEBALL.values()]


def test_newtons_method_and_hunters_algorithm_agree() -> None:
    wins = np.array([[0, 300, 299.5], [3, 0, 150], [0.5, 100, 0]])
    games, found = wins + wins.T, np.ones(3)
    for _ in range(20_000):  # Hunter 2004, equation 3
        found = wins.sum(axis=1) / (games / (found[:, None] + found[None, :])).sum(axis=1)
        found /= np.exp(np.log(found).mean())
    assert bradley_terry(wins) == pytest.approx(np.log(found), abs=1e-9)


def test_ten_times_the_wins_are_four_hundred_points() -> None:
    # 99 wins and 9 losses; the added tie makes them 99.5 and 9.5
    wins = win_matrix([np.array([[1.0] * 99 + [0.0] * 9]), np.full((1, 108), 0.5)])
    first, second = rate_entries(wins, resamples=50, seed=0)
    assert first.value - second.value == pytest.approx(400 * np.log10(99.5 / 9.5))
    assert first.value + second.value == pytest.approx(2000)
    assert first.low < first.value < first.high


def test_who_always_wins_has_a_finite_rating() -> None:
    always, never = rate_entries(win_matrix([np.ones((1, 149)), np.zeros((1, 149))]), resamples=20, seed=0)
    assert always.value - never.value == pytest.approx(400 * np.log10(149.5 / 0.5))
    assert always.low == pytest.approx(always.high)


def test_equal_answers_are_equal_ratings_without_spread() -> None:
    found = rate_entries(win_matrix([np.array([[0.0, 1.0, 0.5]])] * 3), resamples=20, seed=0)
    assert [(round(each.value, 6), round(each.low, 6), round(each.high, 6)) for each in found] == [(1000.0,) * 3] * 3


def test_one_player_and_one_row_are_rated_too() -> None:
    assert rate_entries(win_matrix([np.array([[0.5]])]), resamples=5, seed=0) == [(1000.0, 1000.0, 1000.0)]


def test_runs_meet_one_by_one_and_ties_are_halves() -> None:
    # two runs against one over three rows: both win; one wins and one ties; one wins and one loses
    found = win_matrix([np.array([[1.0, 1.0, 1.0], [1.0, 0.5, 0.0]]), np.array([[0.0, 0.5, 0.5]])])
    assert found[:, 0, 1].tolist() == [1.0, 0.75, 0.5]
    assert found[:, 1, 0].tolist() == [0.0, 0.25, 0.5]


def test_the_seed_decides_the_interval() -> None:
    wins = win_matrix(list(np.random.default_rng(0).random((3, 1, 60))))
    assert rate_entries(wins, 100, seed=1) == rate_entries(wins, 100, seed=1)
    assert rate_entries(wins, 100, seed=1) != rate_entries(wins, 100, seed=2)
    assert [each.value for each in rate_entries(wins, 100, seed=1)] == [
        each.value for each in rate_entries(wins, 100, seed=2)
    ]
