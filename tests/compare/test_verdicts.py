"""Two models' predictions: the same test rows or an error, a verdict for each measure and one for all."""

import math
from typing import Any

import numpy as np
import pytest
from support.predictions import predictions

from bench.aa_test import answers, different, upper_bound
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
def found() -> Comparison:
    return compare_predictions(predictions(0.5), predictions(0.1, seed=1, loss=0.5), 1000, 0)


def test_a_made_difference_is_found_by_every_measure(found: Comparison) -> None:
    family = ["exact_match", "f1", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "loss"]
    assert found.family == family
    assert {found.measures[name].verdict for name in family} == {"better"}
    assert found.verdict == "better"
    exact = [np.array([row["exact_match"] for row in rows]) for rows in (predictions(0.5), predictions(0.1, seed=1))]
    assert found.measures["exact_match"].p_mcnemar == mcnemar(*exact)
    assert found.measures["perplexity"].verdict is None
    assert (
        verdict_sentence(found)
        == "The fine-tuned model is better than the base model: by 8 of 8 metrics, worse by none."
    )
    assert method_note(found).startswith(
        "60 test rows; approximate randomisation (exact match: McNemar's exact test), Holm"
    )


def test_turned_round_it_is_worse(found: Comparison) -> None:
    turned = compare_predictions(predictions(0.1, seed=1, loss=0.5), predictions(0.5), 1000, 0)
    assert turned.verdict == "worse"
    for name in found.family:
        assert turned.measures[name].paired.delta == -found.measures[name].paired.delta
        assert turned.measures[name].paired.wins == found.measures[name].paired.losses


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_predictions_twice_are_within_noise(seed: int) -> None:
    same = compare_predictions(predictions(0.5), predictions(0.5), 1000, seed)
    assert same.verdict == "within noise"
    assert {same.measures[name].p for name in same.family} == {1.0}
    assert verdict_sentence(
        same
    ) == "The base model and the fine-tuned model differ within noise, by each of 8 metrics." or (
        verdict_sentence(same) == "The fine-tuned model and the base model differ within noise, by each of 8 metrics."
    )


def test_answers_of_one_skill_are_within_noise() -> None:
    assert compare_predictions(predictions(0.5), predictions(0.5, seed=2), 1000, 0).verdict == "within noise"


def test_better_by_one_and_worse_by_another_is_mixed() -> None:
    mixed = compare_predictions(predictions(0.5), predictions(0.1, seed=1, loss=4.0), 1000, 0)
    assert mixed.verdict == "mixed"
    assert (
        verdict_sentence(mixed)
        == "The fine-tuned model is better than the base model by 7 of 8 metrics, and worse by 1."
    )


def test_plain_text_is_judged_by_its_loss_alone() -> None:
    def texts(loss: float) -> list[dict[str, Any]]:
        return [{"id": i, "reference": "A text.", "loss": loss + i % 3, "tokens": 3, "bytes": 7} for i in range(20)]

    said = compare_predictions(texts(2.0), texts(1.0), 1000, 0)
    assert verdict_sentence(said) == "The fine-tuned model is better than the base model by held-out loss."
    assert method_note(said) == (
        "20 test rows; approximate randomisation, at 5%; 95% intervals by bootstrap; 1,000 resamples, seed 0."
    )
    assert verdict_sentence(compare_predictions(texts(1.0), texts(2.0), 1000, 0)) == (
        "The fine-tuned model is worse than the base model by held-out loss."
    )
    assert verdict_sentence(compare_predictions(texts(1.0), texts(1.0), 1000, 0)) == (
        "The fine-tuned model and the base model differ within noise, by held-out loss."
    )


def test_one_test_row_gives_figures_and_says_that_it_is_too_few() -> None:
    few = compare_predictions(predictions(0.5, rows=1), predictions(0.1, rows=1, seed=1), 1000, 0)
    assert few.measures["f1"].paired.base_interval.low is None
    assert few.measures["f1"].paired.low is None
    assert few.verdict == "too few rows to tell"
    assert verdict_sentence(few) == (
        "Too few test rows to tell the fine-tuned model from the base model: 1, at least 9 are needed."
    )


def test_identical_answers_of_both_to_every_row_are_no_fault() -> None:
    rows = [{**row, "prediction": "rest", "f1": 0.25} for row in predictions(0.5)]
    result = compare_predictions(rows, [dict(row) for row in rows], 1000, 0)
    assert (result.measures["f1"].paired.ties, result.verdict) == (60, "within noise")


def test_between_tokenizers_the_loss_that_counts_is_that_per_byte() -> None:
    other = [{**row, "tokens": 9} for row in predictions(0.5, seed=1)]
    assert "loss_per_byte" in compare_predictions(predictions(0.5), other, 1000, 0).family
    assert "loss" not in compare_predictions(predictions(0.5), other, 1000, 0).family


def test_plain_text_is_compared_by_its_loss() -> None:
    rows = [{"id": i, "reference": "A text.", "loss": 2.0 + i % 3, "tokens": 3, "bytes": 7} for i in range(30)]
    result = compare_predictions(rows, [{**row, "loss": row["loss"] - 0.5} for row in rows], 1000, 0)
    assert (result.family, result.verdict) == (["loss"], "better")


def test_the_rows_of_other_are_put_into_the_order_of_base() -> None:
    base, other = predictions(0.5), predictions(0.1, seed=1)
    assert align_predictions(base, other[::-1], NAMES) == other


def changed(place: int, **values: Any) -> list[dict[str, Any]]:
    rows = predictions(0.5, rows=12)
    return [*rows[:place], {**rows[place], **values}, *rows[place + 1 :]]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (predictions(0.5, rows=10), r"base answered 12 test rows and finetuned 10, .*: 2 by base alone \(id 10, 11\)"),
        (predictions(0.5, rows=13), r"1 by finetuned alone \(id 12\)"),
        (changed(3, id=2), r"finetuned answered test rows more than once: id 2\. "),
        (changed(3, prompt="Another?"), "are not the same rows: test row 3 has another prompt in each"),
        (changed(3, reference="Another."), "test row 3 has another reference in each"),
        (changed(3, reference=" "), "finetuned: test rows without a reference to compare with: id 3"),
    ],
)
def test_predictions_of_different_test_rows_are_refused(other: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        align_predictions(predictions(0.5, rows=12), other, NAMES)


def test_a_score_that_is_no_number_is_refused_by_its_row() -> None:
    with pytest.raises(DataError, match="test row 3: f1 is nan; expected a number"):
        compare_predictions(predictions(0.5, rows=12), changed(3, f1=math.nan), 1000, 0)


def test_a_measure_that_one_of_the_two_lacks_is_told() -> None:
    with pytest.raises(DataError, match="only one of the two was measured by semantic"):
        compare_predictions(predictions(0.5), [{**row, "semantic": 0.5} for row in predictions(0.5)], 1000, 0)


def test_another_version_of_the_metrics_is_refused() -> None:
    require_metrics_version({"version": 2}, "base")
    for metrics, version in (({}, 1), ({"version": 3}, 3)):
        with pytest.raises(DataError, match=f"base was measured by version {version} of the metrics"):
            require_metrics_version(metrics, "base")


def test_equal_models_are_called_different_no_more_often_than_promised() -> None:
    """bench.aa_test has 2000 pairs of 150 rows; these are as many as a test has time for."""
    found = different(pairs=200, rows=40, resamples=1000)
    assert found <= 20  # 5% of 200 are 10; more than 20 would come once in 700 times
    assert len(answers(40, 0)) == 40


@pytest.mark.parametrize(("found", "of", "expected"), [(0, 100, 0.0450), (100, 2000, 0.0624), (0, 1, 0.99)])
def test_the_upper_bound_is_clopper_and_pearsons(found: int, of: int, expected: float) -> None:
    assert upper_bound(found, of) == pytest.approx(expected, abs=5e-4)
