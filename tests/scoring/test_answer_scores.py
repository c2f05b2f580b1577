"""pipeline/scoring/answer_scores.py against a copy of SQuAD's script, sacrebleu, rouge-score and values computed by hand."""

import math
import re
import string
from collections import Counter

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_bleu, sentence_chrf
from support.predictions import PAIRS

from pipeline.scoring.answer_scores import distinct_n, exact_match, f1, is_looping, score_answer


def normalize_answer(text: str) -> str:
    """As in SQuAD's evaluate-v1.1.py: lower the case, remove punctuation, remove articles, fix white space, in this order."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match_score(prediction: str, ground_truth: str) -> bool:
    return normalize_answer(prediction) == normalize_answer(ground_truth)


def f1_score(prediction: str, ground_truth: str) -> float:
    prediction_tokens, ground_truth_tokens = (
        normalize_answer(prediction).split(),
        normalize_answer(ground_truth).split(),
    )
    num_same = sum((Counter(prediction_tokens) & Counter(ground_truth_tokens)).values())
    if num_same == 0:
        return 0
    precision, recall = 1.0 * num_same / len(prediction_tokens), 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_exact_match_and_f1_equal_those_of_squad(prediction: str, reference: str) -> None:
    assert exact_match(prediction, reference) == exact_match_score(prediction, reference)
    assert f1(prediction, reference) == f1_score(prediction, reference)


@pytest.mark.parametrize(
    ("prediction", "reference", "matches", "expected"),
    [
        pytest.param("a cat sat", "the cat sat down", 0, 2 * 1 * (2 / 3) / (1 + 2 / 3), id="precision 1, recall 2/3"),
        pytest.param("cat", "cat dog cow pig", 0, 2 * 1 * (1 / 4) / (1 + 1 / 4), id="precision 1, recall 1/4"),
        pytest.param("water water water", "water", 0, 2 * (1 / 3) * 1 / (1 / 3 + 1), id="repeated words count once"),
        pytest.param("The flu!", "flu", 1, 1, id="differ in article and punctuation"),
        pytest.param("don\u2019t", "dont", 0, 0, id="a curly quote is not ASCII punctuation"),
        pytest.param("don't", "dont", 1, 1, id="a straight quote is ASCII punctuation"),
        pytest.param("", "", 1, 0, id="both empty"),
        pytest.param("the", "", 1, 0, id="article and empty text"),
        pytest.param("cat", "dog", 0, 0, id="no shared words"),
    ],
)
def test_exact_match_and_f1_by_hand(prediction: str, reference: str, matches: int, expected: float) -> None:
    assert exact_match(prediction, reference) == matches
    assert f1(prediction, reference) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_rouge_equals_that_of_rouge_score(prediction: str, reference: str) -> None:
    expected = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True).score(
        target=reference, prediction=prediction
    )
    scores = score_answer(prediction, reference)
    assert {name: scores[name] for name in expected} == {name: score.fmeasure for name, score in expected.items()}


@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_bleu_and_chrf_of_one_answer_equal_those_of_sacrebleu(prediction: str, reference: str) -> None:
    scores = score_answer(prediction, reference)
    assert scores["bleu"] == sentence_bleu(prediction, [reference]).score
    assert scores["chrf"] == sentence_chrf(prediction, [reference]).score


def test_scores_of_one_answer_by_hand() -> None:
    # chrF: all n-grams of 1 to 6 letters of "thecatsat" are in "thecatsatdowntoday", so recall is (10 - n) / (19 - n)
    recall = sum((10 - n) / (19 - n) for n in range(1, 7)) / 6
    assert score_answer("the cat sat", "the cat sat down today") == pytest.approx(
        {
            "exact_match": 0,
            "f1": 2 * 1 * (2 / 4) / (1 + 2 / 4),
            "bleu": 100 * math.exp(1 - 5 / 3),  # three words for five, and every n-gram matches
            "chrf": 100 * 5 * 1 * recall / (4 * 1 + recall),
            "rouge1": 2 * 1 * (3 / 5) / (1 + 3 / 5),
            "rouge2": 2 * 1 * (2 / 4) / (1 + 2 / 4),
            "rougeL": 2 * 1 * (3 / 5) / (1 + 3 / 5),
            "rougeLsum": 2 * 1 * (3 / 5) / (1 + 3 / 5),
            "distinct_1": 1,
            "distinct_2": 1,
        }
    )


def test_rouge_stems_and_rouge_l_depends_on_word_order() -> None:
    assert score_answer("treated patients", "treating patient")["rouge2"] == 1
    assert score_answer("water drink", "drink water")["rouge1"] == 1
    assert score_answer("water drink", "drink water")["rougeL"] == 0.5
    assert score_answer("drink\nwater", "water\ndrink")["rougeLsum"] == 1


@pytest.mark.parametrize(
    ("answer", "first", "second"),
    [
        pytest.param("", 1, 1, id="empty"),
        pytest.param("rest", 1, 1, id="one word has no pair"),
        pytest.param("rest rest", 1 / 2, 1, id="one pair"),
        pytest.param("a b a b a b", 2 / 6, 2 / 5, id="a loop"),
        pytest.param("a b\nc  d", 1, 1, id="any white space"),
    ],
)
def test_distinct_n_is_the_share_of_distinct_n_grams(answer: str, first: float, second: float) -> None:
    assert (distinct_n(answer, 1), distinct_n(answer, 2)) == (first, second)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        pytest.param([], False, id="empty"),
        pytest.param([1, 2, 1, 2], False, id="twice"),
        pytest.param([9, 1, 2, 1, 2, 1, 2], True, id="three times"),
        pytest.param([1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2], True, id="truncated within the phrase"),
        pytest.param([1, 2, 1, 2, 1, 2, 9], False, id="loop followed by another token"),
        pytest.param([5, 5, 5], False, id="a phrase has at least two tokens"),
        pytest.param([5] * 6, True, id="one token six times"),
    ],
)
def test_an_answer_loops_if_it_ends_in_a_phrase_repeated_three_times(tokens: list[int], expected: bool) -> None:
    assert is_looping(tokens) is expected
