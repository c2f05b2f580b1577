"""The page shows what the models said, and nothing that they said becomes part of it."""

import re
from typing import Any

import pandas as pd
from support.predictions import predictions

from pipeline.compare.report import draw_curves, render_template
from pipeline.compare.stage import answers_table, comparison_metrics, console_table, pair_predictions, verdicts_table
from pipeline.compare.verdicts import Comparison, compare_predictions, method_note, verdict_sentence

ANSWER = {
    "new_tokens": 3,
    "finish_reason": "stop",
    "exact_match": 0.0,
    "f1": 0.5,
    "rouge1": 0.0,
    "rouge2": 0.0,
    "rougeL": 0.0,
}
HOSTILE = "<script>alert('x')</script> & {{ 7*7 }} </td>"


def pairs() -> list[dict[str, Any]]:
    shared = {"id": 4, "prompt": HOSTILE, "reference": "One < two"}
    return pair_predictions([{**shared, "prediction": "", **ANSWER}], [{**shared, "prediction": HOSTILE, **ANSWER}])


def history() -> tuple[pd.DataFrame, pd.DataFrame]:
    training = pd.DataFrame({"step": [1, 2], "loss": [3.0, 2.0], "learning_rate": [0.1, 0.2]})
    return training, pd.DataFrame({"step": [0, 2], "validation_loss": [4.0, 3.5]})


def comparison() -> Comparison:
    return compare_predictions(predictions(0.5), predictions(0.1, seed=1, loss=0.5), 1000, 0)


def page(**changes: Any) -> str:
    values: dict[str, Any] = {
        "comparison": comparison(),
        "sentence": verdict_sentence(comparison()),
        "grounds": method_note(comparison()),
        "signature": {"bleu": "nrefs:1"},
        "clean": {
            "rows_kept": 8,
            "dropped": {"empty": 2, "no_answer": 0, "boilerplate": 0, "duplicate": 1},
            "changed": {"mended": 0, "stripped": 3, "masked": 0},
        },
        "format": {
            "rows": {"train": 5, "validation": 1, "test": 1},
            "dropped_near": {"train": 1, "validation": 0},
            "leakage": {"exact": 0.0, "near": 0.0},
        },
        "tokenize": {"train": {"rows": 5, "tokens": 99, "supervised_share": 0.5, "rows_truncated": 0}},
        "train": {"steps": 3},
        "data": {"name": "rows.csv", "rows": 11, "columns": 3, "revision": "abc"},
        "model": {"name": "models/mine", "architecture": "GPTNeoXForCausalLM", "parameters": 1234, "revision": "def"},
        "pairs": pairs(),
        "total": 1,
        "curves": draw_curves(*history()),
    }
    return render_template("pipeline.compare", "report.html.j2", **{**values, **changes})


def test_the_brief_has_base_finetuned_and_delta_and_what_is_sure_of_it() -> None:
    found = comparison_metrics(comparison())
    assert found["overall"] == {"verdict": "better", "rows": 60, "tests": 8, "resamples": 1000, "seed": 0}
    f1 = found["f1"]
    assert list(f1) == ["base", "finetuned", "delta", "low", "high", "p", "verdict"]
    assert f1["delta"] == f1["finetuned"] - f1["base"]
    assert f1["low"] < f1["delta"] < f1["high"]
    assert list(found["perplexity"]) == ["base", "finetuned", "delta", "low", "high"]


def test_the_console_s_table_tells_each_measure_in_a_line() -> None:
    lines = console_table(comparison())
    assert lines[0].split() == ["base", "finetuned", "change", "95%", "of", "the", "change", "p", "verdict"]
    assert [line.split()[0] for line in lines[1:4]] == ["exact_match", "f1", "bleu"]
    assert lines[2].endswith("0.1944 to 0.2917         0.007  better")
    assert max(map(len, lines)) <= 100


def test_the_table_of_verdicts_has_all_that_was_computed() -> None:
    found = verdicts_table(comparison())
    assert list(found["metric"][:2]) == ["exact_match", "f1"]
    row = found.iloc[0]
    assert row["wins"] + row["ties"] + row["losses"] == row["rows"] == 60
    assert row["p_mcnemar"] < 0.001
    assert found["p_mcnemar"].notna().sum() == 1
    assert found["verdict"].notna().sum() == 8


def test_what_comes_from_data_is_escaped() -> None:
    html = page()
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; {{ 7*7 }} &lt;/td&gt;") == 2
    assert "One &lt; two" in html


def test_the_page_shows_question_reference_and_both_answers_side_by_side() -> None:
    cells = re.findall(r'<td data-name="([^"]*)">', page())
    assert cells == ["Question", "Reference", "Base model", "Fine-tuned model"]
    assert '<span class="empty">(nothing)</span>' in page()


def test_the_page_says_the_verdict_and_draws_both_curves() -> None:
    html = page()
    assert "The fine-tuned model is better than the base model: by 8 of 8 metrics, worse by none." in html
    assert re.search(r">Token F1.*?<td>.*?>better<", html, re.DOTALL)
    assert html.count("<svg") == 2
    assert "validation" in html


def test_the_page_loads_nothing_from_elsewhere() -> None:
    assert not re.search(r"<(script|link|img|iframe)|@import|url\((?!#)", page())


def test_plain_text_has_no_answers_to_show() -> None:
    rows = [{"id": 1, "reference": "A text."}]
    assert "<h2>Answers</h2>" not in page(pairs=pair_predictions(rows, rows))


def test_the_curves_are_the_same_bytes_for_the_same_history() -> None:
    assert draw_curves(*history()) == draw_curves(*history())


def test_the_table_has_a_column_for_each_answer_and_score() -> None:
    table = answers_table(pairs())
    assert list(table.columns[:5]) == ["id", "prompt", "reference", "base.prediction", "base.new_tokens"]
    assert table["finetuned.prediction"].tolist() == [HOSTILE]
