"""The outputs of compare: the report, its tables and the console, with hostile text in prompts and answers."""

import csv
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.predictions import predictions

from pipeline.compare.csv_files import write_csv
from pipeline.compare.data_summary import summarize_data
from pipeline.compare.report import draw_curves, render_template
from pipeline.compare.stage import (
    caution,
    closing_notes,
    comparison_summary,
    environment_warnings,
    format_example,
    format_metrics_table,
    write_report,
)
from pipeline.compare.tables import pair_predictions, paired_answers_table, verdicts_table
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


METRICS: dict[str, Any] = {
    "data": {"name": "rows.csv", "rows": 11, "columns": 3, "revision": "abc"},
    "model": {"name": "models/mine", "architecture": "GPTNeoXForCausalLM", "parameters": 1234, "revision": "def"},
    "clean": {
        "rows_in": 11,
        "rows_kept": 8,
        "dropped": {"empty": 2, "no_answer": 0, "boilerplate": 0, "duplicate": 1, "too_long": 0},
        "changed": {"mended": 0, "stripped": 3, "masked": 0},
        "descriptions": {"stripped": "with text stripped from the end"},
    },
    "format": {
        "rows_in": 8,
        "rows": {"train": 5, "validation": 1, "test": 1},
        "dropped": {"near_held_out": 1, "needs_chat_template": 0},
        "leakage": {"exact": 0.0, "near": 0.0},
    },
    "tokenize": {
        "train": {"rows": 5, "tokens": 99, "supervised_share": 0.5, "rows_truncated": 0, "rows_unended": 0},
        "validation": {"rows": 1, "tokens": 9, "supervised_share": 0.5, "rows_truncated": 0, "rows_unended": 0},
    },
    "train": {"steps": 3},
}


def page(**changes: Any) -> str:
    values: dict[str, Any] = {
        "comparison": comparison(),
        "verdict_sentence": verdict_sentence(comparison()),
        "method_note": method_note(comparison()),
        "signature": {"bleu": "nrefs:1"},
        "caution": "A model's answers can be wrong, even when they read well.",
        "summary": summarize_data(METRICS),
        **METRICS,
        "pairs": pairs(),
        "total": 1,
        "curves": draw_curves(*history()),
    }
    return render_template("pipeline.compare", "report.html.j2", **{**values, **changes})


def test_compare_json_has_both_values_their_difference_and_the_verdict() -> None:
    summary = comparison_summary(comparison())
    counts = {"tests": 8, "better": 8, "worse": 0}
    assert summary["overall"] == {"verdict": "better", "rows": 60, **counts, "resamples": 1000, "seed": 0}
    f1 = summary["f1"]
    assert list(f1) == ["base", "finetuned", "delta", "low", "high", "p", "verdict"]
    assert f1["delta"] == f1["finetuned"] - f1["base"]
    assert f1["low"] < f1["delta"] < f1["high"]
    assert list(summary["perplexity"]) == ["base", "finetuned", "delta", "low", "high"]


def test_console_table_has_one_line_per_metric() -> None:
    lines = format_metrics_table(comparison())
    assert lines[0].split() == ["base", "finetuned", "change", "95%", "interval", "of", "change", "p", "verdict"]
    assert [line.split()[0] for line in lines[1:4]] == ["exact_match", "f1", "bleu"]
    assert lines[2].endswith("0.1944 to 0.2917         0.007  better")
    assert lines[-1] == "Metrics without a verdict restate a tested metric on another scale, or are descriptive."
    assert max(map(len, lines)) <= 100


def test_console_example_shows_one_prompt_with_both_answers() -> None:
    lines = format_example(pairs())
    assert lines[0] == f"Example (test row {pairs()[0]['id']}):"
    assert [line.split()[0] for line in lines[1:-1]] == ["prompt", "reference", "base", "finetuned"]
    assert lines[2] == "reference    One < two"
    assert lines[-1] == ""


def test_verdicts_csv_has_every_computed_value() -> None:
    table = verdicts_table(comparison())
    assert list(table.columns) == [
        *("metric", "kind", "base", "base_low", "base_high", "finetuned", "finetuned_low", "finetuned_high"),
        *("delta", "delta_low", "delta_high", "wins", "ties", "losses"),
        *("p_bootstrap", "p_randomisation", "p_mcnemar", "p_corrected", "verdict", "rows", "resamples", "seed"),
    ]
    assert list(table["metric"][:2]) == ["exact_match", "f1"]
    row = table.iloc[0]
    assert row["wins"] + row["ties"] + row["losses"] == row["rows"] == 60
    assert row["p_mcnemar"] < 0.001
    assert table["p_mcnemar"].notna().sum() == 1
    assert table["verdict"].notna().sum() == 8


def test_text_from_data_is_escaped() -> None:
    html = page()
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; {{ 7*7 }} &lt;/td&gt;") == 2
    assert "One &lt; two" in html


def test_report_shows_prompt_reference_and_both_answers() -> None:
    cells = re.findall(r'<td data-name="([^"]*)">', page())
    assert cells == ["Prompt", "Reference answer", "Base model", "Fine-tuned model"]
    assert '<span class="empty">(empty answer)</span>' in page()


def test_report_states_the_number_of_answers_it_leaves_out() -> None:
    assert "The first 1 of 2,000 test rows." in page(total=2000)
    assert "The first" not in page()


def test_report_shows_the_verdict_and_both_curves() -> None:
    html = page()
    assert "The fine-tuned model is better than the base model on all 8 tested metrics." in html
    assert re.search(r">Token F1.*?<td>.*?>better<", html, re.DOTALL)
    assert html.count("<svg") == 2
    assert "validation" in html


def test_report_loads_nothing_external() -> None:
    assert not re.search(r"<(script|link|img|iframe)|@import|url\((?!#)", page())


def test_plain_text_report_has_no_answers() -> None:
    rows = [{"id": 1, "reference": "A text."}]
    assert "<h2>Answers</h2>" not in page(pairs=pair_predictions(rows, rows))
    assert format_example(pair_predictions(rows, rows)) == []


WARNING = "The test set has only 9 rows <b>: give more"


def test_warnings_come_before_the_verdict_as_sentences() -> None:
    html = page(
        summary=summarize_data({**METRICS, "train": {"warnings": [WARNING, "Two. Set train.warmup_share=0.1."]}})
    )
    assert html.index("2 warnings about this run") < html.index("Is it better?")
    assert "<li>The test set has only 9 rows &lt;b&gt;: give more.</li>" in html
    assert "<li>Two. Set train.warmup_share=0.1.</li>" in html
    assert "about this run</h2>" not in page()


def test_answers_from_different_environments_are_a_warning() -> None:
    record = {"libraries": {"torch": "2.13.0"}, "python": "3.11.7", "device": "cpu", "threads": 1}
    other = {**record, "libraries": {"torch": "2.12.1"}, "python": "3.12.1", "threads": 2}
    (warning,) = environment_warnings({"environment": record}, {"environment": other})
    assert "environments: torch 2.13.0 (base), 2.12.1 (finetuned); threads 1 (base), 2 (finetuned)." in warning
    assert environment_warnings({"environment": record}, {"environment": {**record, "python": "3.12.1"}}) == []
    assert environment_warnings({}, {"environment": record}) == []


def test_report_shows_what_happened_to_the_data() -> None:
    html = page()
    assert (
        '<tr><td>cleaned</td><td class="n">8</td><td><div>dropped: 2 with an empty text, 1 equal to an earlier row</div>'
        "<div>changed: 3 with text stripped from the end</div></td></tr>"
    ) in html
    assert "Examples of near-duplicates" not in html


def test_report_shows_examples_of_near_texts_side_by_side() -> None:
    examples = {**METRICS["format"], "near_examples": [["<i>How</i>?", "How"]]}
    html = page(summary=summarize_data({**METRICS, "format": examples}))
    assert '<td data-name="Text">&lt;i&gt;How&lt;/i&gt;?</td><td data-name="Near-duplicate">How</td>' in html


def test_report_shows_rows_with_their_learned_text() -> None:
    parts = [
        [
            {"text": "<|im_start|>\x1b", "learned": False, "special": True},
            {"text": "No.", "learned": True, "special": False},
        ]
    ]
    example = {"id": 7, "tokens": 12, "learned_tokens": 3, "parts": [*parts, *parts]}
    html = page(tokenize={**METRICS["tokenize"], "examples": [example]})
    assert "What the model learns from" in html
    assert "Row 7: 12 tokens, 3 learned" in html
    assert r'<span class=" special">&lt;|im_start|&gt;\x1b</span><span class="learned">No.</span>' in html
    assert html.count("(middle left out)") == 1
    assert "What the model learns from" not in page()


def test_report_cuts_long_texts_and_shows_control_characters_of_names() -> None:
    pair = {**pairs()[0], "reference": "x" * 5000}
    html = page(pairs=[pair], data={**METRICS["data"], "name": "a\x1b[2J.csv"})
    assert f">{'x' * 2000} … (3,000 more characters)</td>" in html
    assert r"Data: a\x1b[2J.csv (revision abc)" in html


def test_medical_caution_is_for_the_medical_data() -> None:
    medical = "A model's answers can be wrong, even when they read well. Answers about health are not medical advice."
    for name in ("data/knowledge/conditions.yaml", "ruslanmv/ai-medical-chatbot"):
        assert caution({"name": name}) == medical
    assert caution({"name": "helpdesk.csv"}) == "A model's answers can be wrong, even when they read well."


def test_console_ends_with_the_number_of_warnings_and_the_report() -> None:
    summary = summarize_data({**METRICS, "train": {"warnings": ["One", "Two"]}})
    assert closing_notes(summary, METRICS["data"])[0] == "2 warnings about this run: see metrics/report.html"
    assert closing_notes(summarize_data({**METRICS, "train": {"warnings": ["One"]}}), METRICS["data"]) == [
        "1 warning about this run: see metrics/report.html",
        "Report: metrics/report.html (open it in a browser). All answers: metrics/answers.csv",
        "A model's answers can be wrong, even when they read well.",
    ]
    assert len(closing_notes(summarize_data(METRICS), METRICS["data"])) == 2


def test_console_example_shows_control_characters_and_cuts_long_texts() -> None:
    texts = {"id": 4, "prompt": "a\x1b[2J\n\nb\x9b", "reference": "word " * 100_000, "prediction": "\u202e", **ANSWER}
    lines = format_example(pair_predictions([texts], [texts]))
    assert lines[1] == r"prompt       a\x1b[2J b\x9b"
    assert lines[2] == f"reference    {'word ' * 20}word …"
    assert lines[3] == r"base         \u202e"


def test_model_card_has_the_steps_and_no_control_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train = {"steps": 3, "epochs": 1.0, "kept_step": 2, "parameters": 9, "trainable_parameters": 9}
    losses = {"validation_loss_before": 3.0, "validation_loss": 2.0}
    data = {**METRICS["data"], "source": "file", "name": "a\x1b[2J.csv"}
    model = {**METRICS["model"], "source": "folder"}
    stages = {**METRICS, "train": {**train, **losses}, "data": data, "model": model, "signature": {}}
    write_report(pairs(), comparison(), stages, summarize_data(stages), draw_curves(*history()), 10)
    card = Path("metrics/model_card.md").read_text(encoding="utf-8")
    assert "- cleaned: 8 rows; dropped: 2 with an empty text, 1 equal to an earlier row; changed: " in card
    assert r"| data | a\x1b[2J.csv | `abc` |" in card


def test_answers_csv_is_harmless_in_a_spreadsheet(tmp_path: Path) -> None:
    shared = {"id": 4, "prompt": "@SUM(1)", "reference": "-3"}
    rows = [{**shared, "prediction": prediction, **ANSWER} for prediction in ("=1+1", "a\rb")]
    write_csv(paired_answers_table(pair_predictions(rows[:1], rows[1:])), tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["id"], row["prompt"], row["reference"]) == ("4", "'@SUM(1)", "-3")
    assert (row["base.prediction"], row["finetuned.prediction"], row["base.f1"]) == ("'=1+1", "a\rb", "0.5")


def test_curves_are_byte_identical_for_the_same_history() -> None:
    assert draw_curves(*history()) == draw_curves(*history())


def test_answers_csv_has_a_column_per_answer_and_score() -> None:
    table = paired_answers_table(pairs())
    assert list(table.columns[:5]) == ["id", "prompt", "reference", "base.prediction", "base.new_tokens"]
    assert table["finetuned.prediction"].tolist() == [HOSTILE]
