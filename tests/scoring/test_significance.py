"""pipeline/scoring/significance.py against sacrebleu's paired tests, the binomial distribution, and values by hand."""

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
    approximate_randomization,
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
    """(answers of base, answers of other, reference answers): other replaces fewer words of the reference answers."""
    generator = np.random.default_rng(7)
    references = [generator.choice(WORDS, size=generator.integers(6, 16)) for _ in range(rows)]

    def replace_words(share: float) -> list[str]:
        return [
            " ".join(np.where(generator.random(len(words)) < share, generator.choice(WORDS, size=len(words)), words))
            for words in references
        ]

    return replace_words(0.45), replace_words(0.42), [" ".join(words) for words in references]


@pytest.mark.parametrize("kind", ["bs", "ar"])
def test_p_values_and_intervals_equal_those_of_sacrebleu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", str(SEED))
    base, other, references = systems()
    metrics = {"bleu": BLEU(), "chrf": CHRF()}
    expected_results = PairedTest([("base", base), ("other", other)], metrics, [references], kind, RESAMPLES)()[1]
    names = ["bleu", "chrf"]
    rows = [rows_of(list(zip(answers, references, strict=True))) for answers in (base, other)]
    statistics = [[ALL_METRICS[name].statistics(predictions) for name in names] for predictions in rows]
    results = paired_tests([ALL_METRICS[name] for name in names], *statistics, RESAMPLES, SEED)
    for result, title in zip(results, ("BLEU", "chrF2"), strict=True):
        expected_base, expected = expected_results[title]
        assert (result.base, result.other) == pytest.approx((expected_base.score, expected.score), abs=1e-9)
        assert 0.01 < expected.p_value < 0.9  # not an extreme value, which could agree by chance
        if kind == "ar":
            assert result.p_randomisation == expected.p_value
        else:
            assert result.p_bootstrap == expected.p_value
            for interval, score in ((result.base_interval, expected_base), (result.other_interval, expected)):
                assert (interval.high - interval.low) / 2 == pytest.approx(
                    score.ci, rel=1e-5
                )  # sacrebleu computes it in float32


def means(*values: float) -> np.ndarray:
    """The statistics of a mean: (rows, 2)."""
    return np.stack([np.array(values, dtype=float), np.ones(len(values))], axis=1)


def test_resamples_do_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = means(*range(50)), means(*range(50, 0, -1))
    unchunked = bootstrap(one, 200, 3), *approximate_randomization(one, other, 200, 3)
    monkeypatch.setattr(significance, "CHUNK_ELEMENTS", 50 * 64)
    chunked = bootstrap(one, 200, 3), *approximate_randomization(one, other, 200, 3)
    for expected, sums in zip(unchunked, chunked, strict=True):
        np.testing.assert_array_equal(sums, expected)


def test_the_interval_of_a_share_is_about_the_normal_approximation() -> None:
    statistics = means(*[1.0] * 120, *[0.0] * 280)
    value, low, high = bootstrap_interval(statistics, ALL_METRICS["exact_match"], 20_000, 0)
    assert value == 0.3
    assert low is not None
    assert high is not None
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.3 * 0.7 / 400), rel=0.05)


def test_the_same_seed_gives_the_same_result_and_another_seed_does_not() -> None:
    base, other = means(*np.random.default_rng(0).random(30)), means(*np.random.default_rng(1).random(30))
    metric = ALL_METRICS["f1"]
    assert paired_test(base, other, metric, 1000, 0) == paired_test(base, other, metric, 1000, 0)
    assert paired_test(base, other, metric, 1000, 0).low != paired_test(base, other, metric, 1000, 1).low


def test_wins_ties_losses_and_delta_by_hand() -> None:
    base, other = means(0.0, 0.5, 1.0, 0.25), means(1.0, 0.5, 0.5, 1.0)
    result = paired_test(base, other, ALL_METRICS["f1"], 1000, 0)
    assert (result.base, result.other, result.delta) == (0.4375, 0.75, 0.3125)
    assert (result.wins, result.ties, result.losses, result.rows) == (2, 1, 1, 4)
    lower = paired_test(base, other, ALL_METRICS["loss"], 1000, 0)
    assert (lower.delta, lower.wins, lower.ties, lower.losses) == (0.3125, 1, 1, 2)


def test_randomization_of_few_rows_is_close_to_the_exact_test() -> None:
    """Of the 2^4 ways to swap four differences of one sign, two are as extreme as the observation."""
    result = paired_test(means(0, 0, 0, 0), means(1, 2, 3, 4), ALL_METRICS["f1"], 20_000, 0)
    assert result.p_randomisation == pytest.approx(2 / 16, rel=0.05)


@pytest.mark.parametrize("seed", [0, 1])
def test_identical_answers_have_no_difference(seed: int) -> None:
    statistics = means(*np.random.default_rng(0).random(80))
    result = paired_test(statistics, statistics, ALL_METRICS["f1"], 1000, seed)
    assert (result.delta, result.low, result.high) == (0.0, 0.0, 0.0)
    assert (result.p_bootstrap, result.p_randomisation) == (1.0, 1.0)
    assert verdict(result, result.p_randomisation, True) == "within noise"


def test_one_row_has_no_interval_and_no_verdict() -> None:
    result = paired_test(means(0.0), means(1.0), ALL_METRICS["f1"], 1000, 0)
    assert (result.delta, result.low, result.high, result.base_interval.low) == (1.0, None, None, None)
    assert verdict(result, 0.001, True) == "too few rows to tell"


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [(0, 0, 1.0), (5, 5, 1.0), (15, 5, 43_400 / 2**20), (0, 6, 2 / 2**6), (1, 0, 1.0)],
)
def test_mcnemar_equals_the_exact_binomial_test(gained: int, lost: int, expected: float) -> None:
    base = np.array([0.0] * gained + [1.0] * lost + [1.0] * 7 + [0.0] * 9)
    other = np.array([1.0] * gained + [0.0] * lost + [1.0] * 7 + [0.0] * 9)
    assert mcnemar(base, other) == pytest.approx(expected, abs=1e-12)


def test_holm_equals_values_computed_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_min_rows_is_the_fewest_that_can_be_significant() -> None:
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
def test_verdict_of_one_metric(delta: float, p: float, higher_is_better: bool, expected: str) -> None:
    result = paired_test(means(*[0.0] * 9), means(*[1.0] * 9), ALL_METRICS["f1"], 1000, 0)._replace(delta=delta)
    assert verdict(result, p, higher_is_better) == expected


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
def test_overall_verdict_of_a_family(verdicts: list[str], expected: str) -> None:
    assert overall_verdict(verdicts) == expected


def test_many_rows_are_resampled_in_bounded_memory() -> None:
    """Without chunks, the counts of 100,000 rows and 1000 resamples would take 800 MB."""
    import tracemalloc

    statistics: Any = np.ones((100_000, 2))
    tracemalloc.start()
    bootstrap(statistics, 64, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
