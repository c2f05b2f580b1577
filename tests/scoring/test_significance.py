"""Intervals and tests against sacrebleu's own paired tests, the binomial distribution, and by hand."""

import math
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest
from support.predictions import rows_of

from pipeline.scoring import significance
from pipeline.scoring.metrics import ALL_METRICS
from pipeline.scoring.significance import (
    bootstrap,
    bootstrap_interval,
    holm,
    mcnemar,
    min_rows,
    overall_verdict,
    paired_test,
    paired_tests,
    verdict,
)

SEED, RESAMPLES = 12345, 400
WORDS = [
    "the",
    "flu",
    "is",
    "an",
    "infection",
    "treated",
    "with",
    "rest",
    "and",
    "water",
    "or",
    "tea",
    "until",
    "a",
    "doctor",
    "says",
    "so",
]


def systems(rows: int = 70) -> tuple[list[str], list[str], list[str]]:
    """(base's answers, other's answers, references): other replaces fewer of the reference's words."""
    generator = np.random.default_rng(7)
    references = [generator.choice(WORDS, size=generator.integers(6, 16)) for _ in range(rows)]

    def spoilt(share: float) -> list[str]:
        return [
            " ".join(np.where(generator.random(len(words)) < share, generator.choice(WORDS, size=len(words)), words))
            for words in references
        ]

    return spoilt(0.45), spoilt(0.42), [" ".join(words) for words in references]


@pytest.mark.parametrize("kind", ["bs", "ar"])
def test_bleu_and_chrf_are_tested_as_sacrebleu_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", str(SEED))
    base, other, references = systems()
    metrics = {"bleu": BLEU(), "chrf": CHRF()}
    theirs = PairedTest([("base", base), ("other", other)], metrics, [references], kind, RESAMPLES)()[1]
    names = ["bleu", "chrf"]
    rows = [rows_of(list(zip(answers, references, strict=True))) for answers in (base, other)]
    statistics = [[ALL_METRICS[name].statistics(each) for name in names] for each in rows]
    ours = paired_tests([ALL_METRICS[name] for name in names], *statistics, RESAMPLES, SEED)
    for found, title in zip(ours, ("BLEU", "chrF2"), strict=True):
        expected_base, expected = theirs[title]
        assert (found.base, found.other) == pytest.approx((expected_base.score, expected.score), abs=1e-9)
        assert 0.01 < expected.p_value < 0.9  # neither by chance the least nor the greatest there is
        if kind == "ar":
            assert found.p_randomisation == expected.p_value
        else:
            assert found.p_bootstrap == expected.p_value
            for interval, result in ((found.base_interval, expected_base), (found.other_interval, expected)):
                assert (interval.high - interval.low) / 2 == pytest.approx(result.ci, rel=1e-5)  # theirs is float32


def means(*values: float) -> np.ndarray:
    """The statistics of a mean: (rows, 2)."""
    return np.stack([np.array(values, dtype=float), np.ones(len(values))], axis=1)


def test_the_draws_are_those_of_one_call_whatever_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = means(*range(50)), means(*range(50, 0, -1))
    whole = bootstrap(one, 200, 3), *significance.approximate_randomization(one, other, 200, 3)
    monkeypatch.setattr(significance, "CELLS", 50 * 64)
    for before, after in zip(
        whole, (bootstrap(one, 200, 3), *significance.approximate_randomization(one, other, 200, 3)), strict=True
    ):
        np.testing.assert_array_equal(before, after)


def test_the_interval_of_a_share_is_the_normal_one() -> None:
    statistics = means(*[1.0] * 120, *[0.0] * 280)
    value, low, high = bootstrap_interval(statistics, ALL_METRICS["exact_match"], 20_000, 0)
    assert value == 0.3
    assert low is not None
    assert high is not None
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.3 * 0.7 / 400), rel=0.05)


def test_a_seed_gives_the_same_figures_and_another_seed_others() -> None:
    base, other = means(*np.random.default_rng(0).random(30)), means(*np.random.default_rng(1).random(30))
    measure = ALL_METRICS["f1"]
    assert paired_test(base, other, measure, 1000, 0) == paired_test(base, other, measure, 1000, 0)
    assert paired_test(base, other, measure, 1000, 0).low != paired_test(base, other, measure, 1000, 1).low


def test_wins_ties_losses_and_delta_by_hand() -> None:
    base, other = means(0.0, 0.5, 1.0, 0.25), means(1.0, 0.5, 0.5, 1.0)
    found = paired_test(base, other, ALL_METRICS["f1"], 1000, 0)
    assert (found.base, found.other, found.delta) == (0.4375, 0.75, 0.3125)
    assert (found.wins, found.ties, found.losses, found.rows) == (2, 1, 1, 4)
    lower = paired_test(base, other, ALL_METRICS["loss"], 1000, 0)
    assert (lower.delta, lower.wins, lower.ties, lower.losses) == (0.3125, 1, 1, 2)


def test_randomisation_counts_every_way_of_exchanging_few_rows() -> None:
    """Of the 2^4 ways to exchange four differences of one sign, two are as large as what was seen."""
    found = paired_test(means(0, 0, 0, 0), means(1, 2, 3, 4), ALL_METRICS["f1"], 20_000, 0)
    assert found.p_randomisation == pytest.approx(2 / 16, rel=0.05)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_answers_twice_have_no_difference(seed: int) -> None:
    same = means(*np.random.default_rng(0).random(80))
    found = paired_test(same, same, ALL_METRICS["f1"], 1000, seed)
    assert (found.delta, found.low, found.high) == (0.0, 0.0, 0.0)
    assert (found.p_bootstrap, found.p_randomisation) == (1.0, 1.0)
    assert verdict(found, found.p_randomisation, True) == "within noise"


def test_one_row_has_no_interval_and_no_verdict() -> None:
    found = paired_test(means(0.0), means(1.0), ALL_METRICS["f1"], 1000, 0)
    assert (found.delta, found.low, found.high, found.base_interval.low) == (1.0, None, None, None)
    assert verdict(found, 0.001, True) == "too few rows to tell"


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [(0, 0, 1.0), (5, 5, 1.0), (15, 5, 43_400 / 2**20), (0, 6, 2 / 2**6), (1, 0, 1.0)],
)
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int, expected: float) -> None:
    base = np.array([0.0] * gained + [1.0] * lost + [1.0] * 7 + [0.0] * 9)
    other = np.array([1.0] * gained + [0.0] * lost + [1.0] * 7 + [0.0] * 9)
    assert mcnemar(base, other) == pytest.approx(expected, abs=1e-12)


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_fewest_rows_are_those_by_which_a_family_can_find_anything() -> None:
    for tests in (1, 3, 9):
        fewest = min_rows(tests)
        assert mcnemar(np.zeros(fewest), np.ones(fewest)) * tests < 0.05
        assert mcnemar(np.zeros(fewest - 1), np.ones(fewest - 1)) * tests >= 0.05


@pytest.mark.parametrize(
    ("delta", "p", "higher_is_better", "expected"),
    [
        (0.1, 0.049, True, "better"),
        (-0.1, 0.049, True, "worse"),
        (-0.1, 0.049, False, "better"),
        (0.1, 0.049, False, "worse"),
        (0.1, 0.05, True, "within noise"),
        (0.0, 0.001, True, "within noise"),
    ],
)
def test_a_verdict_in_words(delta: float, p: float, higher_is_better: bool, expected: str) -> None:
    found = paired_test(means(*[0.0] * 9), means(*[1.0] * 9), ALL_METRICS["f1"], 1000, 0)._replace(delta=delta)
    assert verdict(found, p, higher_is_better) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["better", "within noise", "better"], "better"),
        (["worse", "within noise"], "worse"),
        (["better", "worse"], "mixed"),
        (["within noise"], "within noise"),
        (["too few rows to tell"] * 2, "too few rows to tell"),
    ],
)
def test_the_verdict_of_a_family(verdicts: list[str], expected: str) -> None:
    assert overall_verdict(verdicts) == expected


def test_many_rows_are_resampled_in_bounded_memory() -> None:
    """100,000 rows 1000 times would be 800 MB of counts at once."""
    import tracemalloc

    statistics: Any = np.ones((100_000, 2))
    tracemalloc.start()
    bootstrap(statistics, 64, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
