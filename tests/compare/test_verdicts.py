"""Comparing two models: the same test rows or an error, a verdict for each metric and one overall."""

import math
from typing import Any

import numpy as np
import pytest
from support.predictions import predictions

from bench.aa_test import count_different, generate_candidates, upper_bound
from pipeline.compare.verdicts import (
    Comparison,
    align_predictions,
    compare_predictions,
    method_note,
    require_metrics_version,
    verdict_sentence,
)
from pipeline.errors import DataError
from pipeline.scoring.significance import mcnemar

NAMES = ("base", "finetuned")


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare_predictions(predictions(0.5), predictions(0.1, seed=1, loss=0.5), 1000, 0)


def test_every_tested_metric_detects_a_known_difference(comparison: Comparison) -> None:
    family = ["exact_match", "f1", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "loss"]
    assert comparison.family == family
    assert {comparison.metrics[name].verdict for name in family} == {"better"}
    assert comparison.verdict == "better"
    exact = [np.array([row["exact_match"] for row in rows]) for rows in (predictions(0.5), predictions(0.1, seed=1))]
    assert comparison.metrics["exact_match"].p_mcnemar == mcnemar(*exact)
    assert comparison.metrics["perplexity"].verdict is None
    assert verdict_sentence(comparison) == "The fine-tuned model is better than the base model on all 8 tested metrics."
    assert method_note(comparison) == (
        "Tests on 60 rows: McNemar's exact test for exact match, approximate randomization for the rest; p-values "
        "Holm-corrected over 8 metrics, significance level 5%. Intervals: 95%, by bootstrap. 1,000 resamples, seed 0."
    )


def test_swapping_the_models_reverses_the_verdict(comparison: Comparison) -> None:
    swapped = compare_predictions(predictions(0.1, seed=1, loss=0.5), predictions(0.5), 1000, 0)
    assert swapped.verdict == "worse"
    assert verdict_sentence(swapped) == "The fine-tuned model is worse than the base model on all 8 tested metrics."
    for name in comparison.family:
        assert swapped.metrics[name].paired.delta == -comparison.metrics[name].paired.delta
        assert swapped.metrics[name].paired.wins == comparison.metrics[name].paired.losses


@pytest.mark.parametrize("seed", [0, 1])
def test_identical_predictions_are_within_noise(seed: int) -> None:
    same = compare_predictions(predictions(0.5), predictions(0.5), 1000, seed)
    assert same.verdict == "within noise"
    assert {same.metrics[name].p_corrected for name in same.family} == {1.0}
    assert (
        verdict_sentence(same)
        == "The difference between the fine-tuned model and the base model is within noise on all 8 tested metrics."
    )


def test_equally_good_answers_are_within_noise() -> None:
    assert compare_predictions(predictions(0.5), predictions(0.5, seed=2), 1000, 0).verdict == "within noise"


def test_better_on_some_metrics_and_worse_on_another_is_mixed() -> None:
    mixed = compare_predictions(predictions(0.5), predictions(0.1, seed=1, loss=4.0), 1000, 0)
    assert mixed.verdict == "mixed"
    assert (
        verdict_sentence(mixed)
        == "The fine-tuned model is better than the base model on 7 of 8 tested metrics and worse on 1."
    )


def test_plain_text_verdict_depends_on_loss_alone() -> None:
    def texts(loss: float) -> list[dict[str, Any]]:
        return [{"id": i, "reference": "A text.", "loss": loss + i % 3, "tokens": 3, "bytes": 7} for i in range(20)]

    lower = compare_predictions(texts(2.0), texts(1.0), 1000, 0)
    assert verdict_sentence(lower) == "The fine-tuned model is better than the base model on held-out loss."
    assert method_note(lower) == (
        "Tests on 20 rows: approximate randomization; significance level 5%. Intervals: 95%, by bootstrap. "
        "1,000 resamples, seed 0."
    )
    assert verdict_sentence(compare_predictions(texts(1.0), texts(2.0), 1000, 0)) == (
        "The fine-tuned model is worse than the base model on held-out loss."
    )
    assert verdict_sentence(compare_predictions(texts(1.0), texts(1.0), 1000, 0)) == (
        "The difference between the fine-tuned model and the base model is within noise on held-out loss."
    )


def test_one_test_row_is_too_few_for_intervals_and_a_verdict() -> None:
    few = compare_predictions(predictions(0.5, rows=1), predictions(0.1, rows=1, seed=1), 1000, 0)
    assert few.metrics["f1"].paired.base_interval.low is None
    assert few.metrics["f1"].paired.low is None
    assert few.verdict == "too few rows to tell"
    assert verdict_sentence(few) == (
        "Too few test rows to compare the fine-tuned model with the base model: 1; at least 9 are needed."
    )


def test_the_same_answer_to_every_prompt_is_accepted() -> None:
    rows = [{**row, "prediction": "rest", "f1": 0.25} for row in predictions(0.5)]
    result = compare_predictions(rows, [dict(row) for row in rows], 1000, 0)
    assert (result.metrics["f1"].paired.ties, result.verdict) == (60, "within noise")


def test_different_tokenizers_are_compared_by_loss_per_byte() -> None:
    other = [{**row, "tokens": 9} for row in predictions(0.5, seed=1)]
    assert "loss_per_byte" in compare_predictions(predictions(0.5), other, 1000, 0).family
    assert "loss" not in compare_predictions(predictions(0.5), other, 1000, 0).family


def test_plain_text_is_compared_by_its_loss() -> None:
    rows = [{"id": i, "reference": "A text.", "loss": 2.0 + i % 3, "tokens": 3, "bytes": 7} for i in range(30)]
    result = compare_predictions(rows, [{**row, "loss": row["loss"] - 0.5} for row in rows], 1000, 0)
    assert (result.family, result.verdict) == (["loss"], "better")


def test_align_predictions_uses_the_order_of_base() -> None:
    base, other = predictions(0.5), predictions(0.1, seed=1)
    assert align_predictions(base, other[::-1], NAMES) == other


def changed(index: int, **values: Any) -> list[dict[str, Any]]:
    rows = predictions(0.5, rows=12)
    return [*rows[:index], {**rows[index], **values}, *rows[index + 1 :]]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            predictions(0.5, rows=10),
            r"base has 12 predictions and finetuned has 10, but not for the same test rows: 2 only in base \(id 10, 11\)",
        ),
        (predictions(0.5, rows=13), r"1 only in finetuned \(id 12\)"),
        (changed(3, id=2), r"finetuned has more than one prediction for the same test row: id 2\. "),
        (changed(3, prompt="Another?"), "do not have the same test rows: row 3 has a different prompt in each"),
        (changed(3, reference="Another."), "row 3 has a different reference in each"),
        (changed(3, reference=" "), "finetuned has test rows without a reference: id 3"),
    ],
)
def test_predictions_of_different_test_rows_are_rejected(other: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        align_predictions(predictions(0.5, rows=12), other, NAMES)


def test_error_for_an_invalid_score_names_the_row() -> None:
    with pytest.raises(DataError, match="test row 3: f1 is nan; expected a number"):
        compare_predictions(predictions(0.5, rows=12), changed(3, f1=math.nan), 1000, 0)


def test_metric_that_only_one_model_has_is_rejected() -> None:
    with pytest.raises(DataError, match="only one of the two models has scores for semantic"):
        compare_predictions(predictions(0.5), [{**row, "semantic": 0.5} for row in predictions(0.5)], 1000, 0)


def test_other_metric_versions_are_rejected() -> None:
    require_metrics_version({"version": 2}, "base")
    for metrics, version in (({}, 1), ({"version": 3}, 3)):
        with pytest.raises(DataError, match=f"base was scored with version {version} of the metrics"):
            require_metrics_version(metrics, "base")


def test_false_positive_rate_of_the_overall_verdict_is_at_most_five_percent() -> None:
    """bench.aa_test runs 2000 pairs of 150 rows; a test has time for these."""
    false_positives = count_different(pairs=200, rows=40, resamples=1000)
    assert false_positives <= 20  # 5% of 200 are 10; more than 20 would occur once in 700 runs
    assert len(generate_candidates(40, 0)) == 40


@pytest.mark.parametrize(("successes", "total", "expected"), [(0, 100, 0.0450), (100, 2000, 0.0624), (0, 1, 0.99)])
def test_upper_bound_is_clopper_pearson(successes: int, total: int, expected: float) -> None:
    assert upper_bound(successes, total) == pytest.approx(expected, abs=5e-4)
