"""pipeline/scoring/metrics.py against the sacrebleu command, and against means and ratios computed by hand."""

import math
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from support.predictions import PAIRS, rows_of

from pipeline.errors import DataError
from pipeline.scoring.metrics import ALL_METRICS, VERSION, metrics_of, numeric_column, summarize_predictions

SENTENCES = [
    ("Flu is usually treated with rest and water.", "Flu is usually treated with rest, tea and water."),
    ("", "Go to an emergency room if it hurts at once."),
    ("Take 2.5 mg\nof it & rest; don't run!", "Take 2.5 mg of it, rest & don't run!"),
    ("The usual treatment is \u201crest\u201d \u2014 no more.", 'The usual treatment is "rest" - no more.'),
]


def value(name: str, rows: list[dict[str, Any]]) -> float:
    return float(ALL_METRICS[name].value(ALL_METRICS[name].statistics(rows).sum(axis=0)))


def sacrebleu_score(folder: Path, pairs: list[tuple[str, str]], metric: str) -> float:
    """The score that `sacrebleu -w 12` prints for these answers, one per line."""
    for name, texts in zip(("predictions", "references"), zip(*pairs, strict=True), strict=True):
        (folder / name).write_bytes("".join(text.replace("\n", " ") + "\n" for text in texts).encode())
    arguments = ["references", "-i", "predictions", "-m", metric, "-b", "-w", "12"]
    process = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return float(process.stdout)


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param(PAIRS, id="awkward pairs"),
        pytest.param(SENTENCES, id="sentences, one of them empty, one with two lines"),
        pytest.param([("The very same long answer.", "The very same long answer.")], id="equal texts"),
        pytest.param([("Too short", "Too short for its reference by far, is it not?")], id="brevity penalty"),
        pytest.param([("", "Something.")], id="only an empty answer"),
    ],
)
def test_bleu_and_chrf_equal_the_sacrebleu_command(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    for name in ("bleu", "chrf"):
        assert value(name, rows_of(pairs)) == pytest.approx(sacrebleu_score(tmp_path, pairs, name), abs=1e-9)


def test_bleu_and_chrf_of_random_sums_equal_those_of_sacrebleu() -> None:
    """Random sums, including impossible ones, reach every branch of both formulas."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(0, 9, size=(500, 2))
    totals = np.maximum(lengths[:, :1] - np.arange(4), 0)
    bleu_sums = np.hstack([lengths, generator.integers(0, totals + 1), totals])
    expected = [BLEU()._compute_score_from_stats([int(value) for value in sums]).score for sums in bleu_sums]
    np.testing.assert_allclose(ALL_METRICS["bleu"].value(bleu_sums.astype(float)), expected, rtol=0, atol=1e-9)
    counts = generator.integers(0, 5, size=(500, 6, 2))
    chrf_sums = np.concatenate(
        [counts, generator.integers(0, counts.min(axis=-1, keepdims=True) + 1)], axis=-1
    ).reshape(500, 18)
    expected = [CHRF()._compute_f_score([int(value) for value in sums]) for sums in chrf_sums]
    np.testing.assert_allclose(ALL_METRICS["chrf"].value(chrf_sums.astype(float)), expected, rtol=0, atol=1e-9)


def test_row_values_equal_the_scores_in_the_predictions() -> None:
    rows = rows_of(PAIRS + SENTENCES)
    for name, metric in metrics_of(rows).items():
        np.testing.assert_allclose(
            metric.row_values(metric.statistics(rows)), numeric_column(rows, name), rtol=0, atol=1e-9
        )


def answers() -> list[dict[str, Any]]:
    first, second = rows_of(
        [("flu is treated with rest", "flu is treated with rest"), ("see a doctor", "see the nurse")]
    )
    return [
        {**first, "new_tokens": 6, "finish_reason": "stop", "looping": 0.0, "loss": 0.5, "tokens": 6, "bytes": 24},
        {**second, "new_tokens": 9, "finish_reason": "length", "looping": 1.0, "loss": 2.0, "tokens": 4, "bytes": 16},
    ]


def test_the_summary_equals_values_computed_by_hand() -> None:
    summary = summarize_predictions(answers())
    assert summary.pop("signature") == {
        "bleu": f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version('sacrebleu')}",
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version('sacrebleu')}",
        "rouge": f"fmeasure|stemmer:yes|tokenizer:default|version:{version('rouge-score')}",
    }
    assert list(summary) == ["version", *(name for name in ALL_METRICS if name != "semantic")]
    loss, per_byte = (0.5 * 6 + 2.0 * 4) / 10, (0.5 * 6 + 2.0 * 4) / 40
    bleu = 100 * (6 / 8 * 4 / 6 * 3 / 4 * 2 / 2) ** (
        1 / 4
    )  # "see a doctor": one of three words matches, and none of two pairs
    expected = {
        "version": VERSION,
        "exact_match": 1 / 2,
        "f1": (1 + 1 / 2) / 2,
        "bleu": bleu,
        "rouge1": (1 + 1 / 3) / 2,
        "rouge2": 1 / 2,
        "rougeL": (1 + 1 / 3) / 2,
        "rougeLsum": (1 + 1 / 3) / 2,
        "loss": loss,
        "perplexity": math.exp(loss),
        "loss_per_byte": per_byte,
        "perplexity_per_byte": math.exp(per_byte),
        "new_tokens": 7.5,
        "finished": 1 / 2,
        "distinct_1": 1,
        "distinct_2": 1,
        "looping": 1 / 2,
    }
    assert {name: summary[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_plain_text_has_only_the_losses() -> None:
    rows = [{"id": 1, "reference": "A text.", "loss": 1.0, "tokens": 3, "bytes": 7}]
    assert list(summarize_predictions(rows)) == [
        "version",
        "loss",
        "perplexity",
        "loss_per_byte",
        "perplexity_per_byte",
    ]


def test_perplexity_does_not_overflow() -> None:
    rows = [{"id": 1, "reference": "A text.", "loss": 1e6, "tokens": 3, "bytes": 7}]
    assert math.isfinite(summarize_predictions(rows)["perplexity"])


@pytest.mark.parametrize(
    ("name", "invalid", "message"),
    [
        ("f1", None, "test row 1: f1 is None; expected a number"),
        ("f1", math.nan, "test row 1: f1 is nan; expected a number"),
        ("loss", math.inf, "test row 1: loss is inf"),
        ("rouge2", "high", "test row 1: rouge2 is 'high'"),
        ("finish_reason", "", "test row 1: finished is None"),
        ("prediction", None, "test row 1 has no prediction"),
        ("reference", 5, "test row 1 has no reference"),
    ],
)
def test_an_invalid_value_raises_an_error_with_its_row(name: str, invalid: Any, message: str) -> None:
    first, second = answers()
    with pytest.raises(DataError, match=message):
        summarize_predictions([first, {**second, name: invalid}])


def test_a_missing_score_raises_an_error_in_the_first_row_too() -> None:
    first, second = answers()
    del first["chrf"], first["f1"]
    with pytest.raises(DataError, match="test row 0: f1 is missing"):
        summarize_predictions([first, second])


def test_no_predictions_raise_an_error() -> None:
    with pytest.raises(DataError, match="there are no predictions"):
        summarize_predictions([])
