"""Bradley-Terry ratings against values computed by hand and a published fit."""

import numpy as np
import pytest

from pipeline.leaderboard.ratings import bradley_terry, rate_entries, win_matrix

# Wins of the American League's eastern teams over each other in 1987 (Agresti, Categorical Data Analysis, second edition,
# table 10.10), and the fit published there: log-strengths relative to Baltimore, with two decimals.
BASEBALL = {
    "Milwaukee": ([0, 7, 9, 7, 7, 9, 11], 1.58),
    "Detroit": ([6, 0, 7, 5, 11, 9, 9], 1.44),
    "Toronto": ([4, 6, 0, 7, 7, 8, 12], 1.29),
    "New York": ([6, 8, 6, 0, 6, 7, 10], 1.25),
    "Boston": ([6, 2, 6, 7, 0, 7, 12], 1.11),
    "Cleveland": ([4, 4, 5, 6, 6, 0, 6], 0.68),
    "Baltimore": ([2, 4, 1, 3, 1, 7, 0], 0.0),
}


def test_fit_matches_the_published_one() -> None:
    fitted = bradley_terry(np.array([wins for wins, _ in BASEBALL.values()], dtype=float))
    assert (fitted - fitted[-1]).round(2).tolist() == [strength for _, strength in BASEBALL.values()]


def test_newtons_method_and_hunters_algorithm_agree() -> None:
    wins = np.array([[0, 300, 299.5], [3, 0, 150], [0.5, 100, 0]])
    games, strengths = wins + wins.T, np.ones(3)
    for _ in range(20_000):  # Hunter 2004, equation 3
        strengths = wins.sum(axis=1) / (games / (strengths[:, None] + strengths[None, :])).sum(axis=1)
        strengths /= np.exp(np.log(strengths).mean())
    assert bradley_terry(wins) == pytest.approx(np.log(strengths), abs=1e-9)


def test_ten_times_the_wins_are_four_hundred_points() -> None:
    # 99 wins and 9 losses; the added tie makes them 99.5 and 9.5
    wins = win_matrix([np.array([[1.0] * 99 + [0.0] * 9]), np.full((1, 108), 0.5)])
    first, second = rate_entries(wins, resamples=50, seed=0)
    assert first.value - second.value == pytest.approx(400 * np.log10(99.5 / 9.5))
    assert first.value + second.value == pytest.approx(2000)
    assert first.low < first.value < first.high


def test_player_who_always_wins_has_a_finite_rating() -> None:
    always, never = rate_entries(win_matrix([np.ones((1, 149)), np.zeros((1, 149))]), resamples=20, seed=0)
    assert always.value - never.value == pytest.approx(400 * np.log10(149.5 / 0.5))
    assert always.low == pytest.approx(always.high)


def test_equal_scores_give_equal_ratings_without_spread() -> None:
    ratings = rate_entries(win_matrix([np.array([[0.0, 1.0, 0.5]])] * 3), resamples=20, seed=0)
    assert [tuple(round(value, 6) for value in rating) for rating in ratings] == [(1000.0,) * 3] * 3


def test_single_player_on_a_single_row_has_the_mean_rating() -> None:
    assert rate_entries(win_matrix([np.array([[0.5]])]), resamples=5, seed=0) == [(1000.0, 1000.0, 1000.0)]


def test_every_run_meets_every_run_and_ties_are_half_wins() -> None:
    # two runs against one over three rows: both win; one wins and one ties; one wins and one loses
    wins = win_matrix([np.array([[1.0, 1.0, 1.0], [1.0, 0.5, 0.0]]), np.array([[0.0, 0.5, 0.5]])])
    assert wins[:, 0, 1].tolist() == [1.0, 0.75, 0.5]
    assert wins[:, 1, 0].tolist() == [0.0, 0.25, 0.5]


def test_interval_depends_on_the_seed() -> None:
    wins = win_matrix(list(np.random.default_rng(0).random((3, 1, 60))))
    assert rate_entries(wins, 100, seed=1) == rate_entries(wins, 100, seed=1)
    assert rate_entries(wins, 100, seed=1) != rate_entries(wins, 100, seed=2)
    assert [rating.value for rating in rate_entries(wins, 100, seed=1)] == [
        rating.value for rating in rate_entries(wins, 100, seed=2)
    ]
