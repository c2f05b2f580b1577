"""pipeline/scores.py against SQuAD's script written anew, the sacrebleu command, rouge-score and fractions by hand."""

import re
import string
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from pipeline.scores import bleu, exact_match, f1, score, summary

PAIRS = [
    ("", ""),
    ("", "Rest."),
    ("Rest.", ""),
    ("...", "!?"),
    ("the", "a an"),
    ("The.", "rest"),
    ("Rest.", "rest"),
    ("THE FLU", "flu"),
    ("theatre another", "theatre another"),
    ("a cat sat", "the cat sat down"),
    ("water water water", "water"),
    ("drink drink water", "drink water water"),
    ("anti-inflammatory", "antiinflammatory"),
    ("anti-inflammatory", "anti inflammatory"),
    ("don\u2019t run", "don't run"),
    ("\u201crest\u201d", '"rest"'),
    ("Fièvre à 39,5 °C", "fièvre à 395 °c"),
    ("Straße", "STRASSE"),
    ("İstanbul", "istanbul"),
    ("流感 是 病", "流感 病"),
    ("la grippe\u00a0aviaire", "grippe aviaire"),
    ("take 2 tablets", "take two tablets"),
    ("2.5", "25"),
    ("one\ntwo\tthree", "one two  three"),
    ("an apple a day", "apple day"),
    ("a_an_the", "aanthe"),
    ("x" * 300, "x" * 299),
    ("👍 rest", "rest 👍"),
]


def normalize_answer(text: str) -> str:
    """As SQuAD's evaluate-v1.1.py: lower case, punctuation out, articles out, white space fixed, in this order."""
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
def test_exact_match_and_f1_are_squads(prediction: str, reference: str) -> None:
    assert exact_match(prediction, reference) == exact_match_score(prediction, reference)
    assert f1(prediction, reference) == f1_score(prediction, reference)


@pytest.mark.parametrize(
    ("prediction", "reference", "matches", "expected"),
    [
        pytest.param("a cat sat", "the cat sat down", 0, 2 * 1 * (2 / 3) / (1 + 2 / 3), id="precision 1, recall 2/3"),
        pytest.param("cat", "cat dog cow pig", 0, 2 * 1 * (1 / 4) / (1 + 1 / 4), id="precision 1, recall 1/4"),
        pytest.param("water water water", "water", 0, 2 * (1 / 3) * 1 / (1 / 3 + 1), id="repeated words count once"),
        pytest.param("The flu!", "flu", 1, 1, id="same but for article and mark"),
        pytest.param("don\u2019t", "dont", 0, 0, id="curly quote is no ASCII punctuation"),
        pytest.param("don't", "dont", 1, 1, id="straight quote is"),
        pytest.param("", "", 1, 0, id="both empty"),
        pytest.param("the", "", 1, 0, id="article and nothing"),
        pytest.param("cat", "dog", 0, 0, id="nothing shared"),
    ],
)
def test_exact_match_and_f1_by_hand(prediction: str, reference: str, matches: int, expected: float) -> None:
    assert exact_match(prediction, reference) == matches
    assert f1(prediction, reference) == pytest.approx(expected, abs=1e-12)


def one_line(text: str) -> str:
    return text.replace("\n", " ")


def command_bleu(folder: Path, predictions: list[str], references: list[str]) -> float:
    for name, texts in (("predictions", predictions), ("references", references)):
        (folder / name).write_bytes("".join(one_line(text) + "\n" for text in texts).encode())
    command = [sys.executable, "-m", "sacrebleu", "references", "-i", "predictions", "-b", "-w", "12"]
    return float(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param(PAIRS, id="awkward pairs"),
        pytest.param(
            [
                ("Flu is usually treated with rest and water.", "Flu is usually treated with rest, tea and water."),
                ("", "Go to an emergency room if it hurts at once."),
                ("Take 2.5 mg\nof it & rest; don't run!", "Take 2.5 mg of it, rest & don't run!"),
                ("The usual treatment is \u201crest\u201d \u2014 no more.", 'The usual treatment is "rest" - no more.'),
            ],
            id="sentences, one empty, one of two lines",
        ),
        pytest.param([("The very same long answer.", "The very same long answer.")], id="equal"),
        pytest.param([("Too short", "Too short for its reference by far, is it not?")], id="brevity"),
        pytest.param([("", "Something.")], id="nothing but an empty answer"),
    ],
)
def test_bleu_is_the_sacrebleu_commands(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    predictions, references = [list(texts) for texts in zip(*pairs, strict=True)]
    assert bleu(predictions, references)[0] == pytest.approx(command_bleu(tmp_path, predictions, references), abs=1e-9)


def test_bleu_of_equal_and_of_nothing_shared() -> None:
    assert bleu(["the very same long answer"], ["the very same long answer"])[0] == pytest.approx(100)
    assert bleu([""], ["the very same long answer"])[0] == 0


def test_bleu_signature_names_what_it_depends_on() -> None:
    _, signature = bleu(["a b c d"], ["a b c d"])
    assert signature == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version('sacrebleu')}"


@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_rouge_is_rouge_scores(prediction: str, reference: str) -> None:
    expected = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(
        target=reference, prediction=prediction
    )
    found = score(prediction, reference)
    assert {name: found[name] for name in expected} == {name: each.fmeasure for name, each in expected.items()}


def test_scores_of_one_answer_by_hand() -> None:
    assert score("the cat sat", "the cat sat down today") == pytest.approx(
        {
            "exact_match": 0,
            "f1": 2 * 1 * (2 / 4) / (1 + 2 / 4),
            "rouge1": 2 * 1 * (3 / 5) / (1 + 3 / 5),
            "rouge2": 2 * 1 * (2 / 4) / (1 + 2 / 4),
            "rougeL": 2 * 1 * (3 / 5) / (1 + 3 / 5),
        }
    )


def test_rouge_stems_and_l_keeps_to_the_order() -> None:
    assert score("treated patients", "treating patient")["rouge2"] == 1
    assert score("water drink", "drink water")["rouge1"] == 1
    assert score("water drink", "drink water")["rougeL"] == 0.5


def test_summary_is_the_mean_of_the_rows_and_the_bleu_of_all() -> None:
    same, other = "flu is treated with rest", "see a doctor"
    rows = [
        {
            "prediction": same,
            "reference": same,
            **score(same, same),
            "new_tokens": 6,
            "finish_reason": "stop",
        },
        {
            "prediction": other,
            "reference": "see the nurse",
            **score(other, "see the nurse"),
            "new_tokens": 9,
            "finish_reason": "length",
        },
    ]
    assert summary(rows[:1])["finished"] == 1
    found = summary(rows)
    corpus, signature = bleu([same, other], [same, "see the nurse"])
    assert found.pop("signature") == {
        "bleu": signature,
        "rouge": f"fmeasure|stemmer:yes|tokenizer:default|version:{version('rouge-score')}",
    }
    assert found == pytest.approx(
        {
            "exact_match": 1 / 2,
            "f1": (1 + 1 / 2) / 2,
            "bleu": corpus,
            "rouge1": (1 + 1 / 3) / 2,
            "rouge2": 1 / 2,
            "rougeL": (1 + 1 / 3) / 2,
            "new_tokens": 7.5,
            "finished": 1 / 2,
        }
    )
