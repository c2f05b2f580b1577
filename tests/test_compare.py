"""The page shows what the models said, and nothing that they said becomes part of it."""

import re
from typing import Any

import pandas as pd

from pipeline.compare import answers_table, deltas, paired
from pipeline.report import curves, rendered

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
    return paired([{**shared, "prediction": "", **ANSWER}], [{**shared, "prediction": HOSTILE, **ANSWER}])


def history() -> tuple[pd.DataFrame, pd.DataFrame]:
    training = pd.DataFrame({"step": [1, 2], "loss": [3.0, 2.0], "learning_rate": [0.1, 0.2]})
    return training, pd.DataFrame({"step": [0, 2], "validation_loss": [4.0, 3.5]})


def page(**changes: Any) -> str:
    values: dict[str, Any] = {
        "metrics": deltas({"f1": 0.25, "loss": 4.0}, {"f1": 0.75, "loss": 3.0}),
        "rows": 1,
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
        "curves": curves(*history()),
    }
    return rendered("report.html.j2", **{**values, **changes})


def test_deltas_are_finetuned_minus_base_for_what_both_have() -> None:
    found = deltas({"rows": 9, "f1": 0.25, "bleu": 1.0, "signature": {}}, {"rows": 9, "f1": 0.75, "signature": {}})
    assert found == {"f1": {"base": 0.25, "finetuned": 0.75, "delta": 0.5}}


def test_what_comes_from_data_is_escaped() -> None:
    html = page()
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; {{ 7*7 }} &lt;/td&gt;") == 2
    assert "One &lt; two" in html


def test_the_page_shows_question_reference_and_both_answers_side_by_side() -> None:
    cells = re.findall(r'<td data-name="([^"]*)">', page())
    assert cells == ["Question", "Reference", "Base model", "Fine-tuned model"]
    assert '<span class="empty">(nothing)</span>' in page()


def test_the_page_shows_metrics_with_their_change_and_draws_both_curves() -> None:
    html = page()
    assert re.search(r">Token F1.*?0\.25</td>.*?0\.75</td>.*?\+0\.5</td>", html, re.DOTALL)
    assert re.search(r">Held-out loss.*?4</td>.*?3</td>.*?-1</td>", html, re.DOTALL)
    assert html.count("<svg") == 2
    assert "validation" in html


def test_the_page_loads_nothing_from_elsewhere() -> None:
    assert not re.search(r"<(script|link|img|iframe)|@import|url\((?!#)", page())


def test_plain_text_has_no_answers_to_show() -> None:
    rows = [{"id": 1, "reference": "A text."}]
    assert "<h2>Answers</h2>" not in page(pairs=paired(rows, rows))


def test_the_curves_are_the_same_bytes_for_the_same_history() -> None:
    assert curves(*history()) == curves(*history())


def test_the_table_has_a_column_for_each_answer_and_score() -> None:
    table = answers_table(pairs())
    assert list(table.columns[:5]) == ["id", "prompt", "reference", "base.prediction", "base.new_tokens"]
    assert table["finetuned.prediction"].tolist() == [HOSTILE]
