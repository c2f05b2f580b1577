"""pipeline/compare/data_summary.py: what the stages did to the rows, in words."""

from typing import Any

import pytest

from pipeline.compare.data_summary import summarize_data

STAGES: dict[str, dict[str, Any]] = {
    "data": {"name": "tickets.csv", "source": "file", "revision": "0a", "rows": 3000, "columns": 1, "bytes": 9},
    "model": {"name": "models/nano", "source": "folder", "revision": "0b", "architecture": "GPTNeoX", "parameters": 9},
    "clean": {
        "rows_in": 3000,
        "rows_kept": 2900,
        "dropped": {"malformed": 0, "empty": 70, "too_short": 20, "duplicate": 10},
        "changed": {"masked": 1200},
        "descriptions": {"masked": "with masked contacts", "html": "with HTML turned into text"},
    },
    "format": {
        "rows_in": 2900,
        "rows": {"train": 2000, "validation": 300, "test": 500},
        "dropped": {"near_held_out": 90, "near_test": 0, "needs_chat_template": 10},
        "leakage": {"exact": 0.0, "near": 0.0, "answers_exact": 0.25, "answers_near": 0.5},
    },
    "tokenize": {
        "train": {"rows": 2000, "tokens": 123456, "supervised_share": 0.4646, "rows_truncated": 12, "rows_unended": 0},
        "validation": {"rows": 300, "tokens": 999, "supervised_share": 0.5, "rows_truncated": 0, "rows_unended": 1},
        "epoch": {"tokens": 1},
    },
    "train": {"steps": 3},
}


def stages(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {**metrics, **changes.get(name, {})} for name, metrics in STAGES.items()}


def facts(step: int, **changes: dict[str, Any]) -> list[str]:
    return summarize_data(stages(**changes)).steps[step].facts


def test_each_step_has_its_rows_and_what_it_did() -> None:
    assert [(step.name, step.rows, step.facts) for step in summarize_data(STAGES).steps] == [
        ("fetched", 3000, ["1 column"]),
        (
            *("cleaned", 2900),
            [
                "dropped: 70 with an empty text, 20 too short, 10 equal to an earlier row",
                "changed: 1,200 with masked contacts",
            ],
        ),
        (
            *("split", 2800),
            [
                "train 2,000, validation 300, test 500",
                "dropped: 90 near to validation or test rows, 10 with tool calls or tool results, which the prompt template "
                "cannot express",
                "test rows with a duplicate in the training set: 0% exact, 0% near; by the answer alone: 25% exact, 50% near",
            ],
        ),
        (
            *("tokenized", 2300),
            [
                "123,456 tokens to train on, of which 46.5% count toward the loss",
                "train rows: 12 truncated",
                "validation rows: 1 with an answer whose end is not learned",
            ],
        ),
    ]


def test_nothing_dropped_or_changed_is_stated() -> None:
    nothing = {"dropped": {"empty": 0}, "changed": {"masked": 0}}
    assert facts(1, clean=nothing) == ["dropped: none", "changed: none"]
    assert facts(2, format={"dropped": {"near_held_out": 0}})[1] == "dropped: none"


@pytest.mark.parametrize(
    ("step", "changes", "expected"),
    [
        (1, {"clean": {"changed": {"html_tables": 7, "masked": 0}}}, "changed: 7 html tables"),
        (
            1,
            {"clean": {"test_rows": {"rows_in": 30, "rows_kept": 28, "dropped": {"empty": 2}}}},
            "your test set: 28 of 30 rows kept, dropped: 2 with an empty text",
        ),
        (1, {"clean": {"dropped": {"too_rude": 3}}}, "dropped: 3 too rude"),
        (1, {"clean": {"trailing_turns": 1200}}, "trailing turns: 1,200"),
        (0, {"data": {"files_left": ["a.md", "b.md"]}}, "files not used: a.md, b.md"),
        (0, {"data": {"files_left": list("abcdefg")}}, "files not used: a, b, c, d, e and 2 more"),
        (2, {"format": {"groups": {"count": 12, "largest": 4, "missing": 0}}}, "groups: count 12, largest 4"),
        (
            2,
            {"format": {"leakage": {"exact": 0.0, "near": 0.01, "earlier_turns": 0.125}}},
            "test rows with a duplicate in the training set: 0% exact, 1% near; earlier turns: 12.5%",
        ),
        (2, {"format": {"rows_without_tools": 3}}, "3 rows list tools, which the prompt template leaves out"),
        (
            2,
            {"format": {"clusters": {"count": 9, "rows_with_others": 1500, "largest": 40}}},
            "1,500 rows are in clusters of equal or near rows, of up to 40, and each cluster is in one split",
        ),
        (
            3,
            {
                "tokenize": {
                    "train": {**STAGES["tokenize"]["train"], "unknown": {"answer_tokens": 9, "prompt_share": 0.5}}
                }
            },
            "unknown to the tokenizer, of train: 9 answer tokens",
        ),
    ],
)
def test_other_metrics_appear_under_their_names(step: int, changes: dict[str, Any], expected: str) -> None:
    assert expected in facts(step, **changes)


def test_zero_and_missing_values_are_left_out() -> None:
    extra: dict[str, Any] = {
        "skipped": 0,
        "note": None,
        "share": 0.0,
        "was_sorted": False,
        "files_left": [],
        "groups": {"count": 0},
    }
    assert facts(0, data=extra) == ["1 column"]
    assert summarize_data(stages(model=extra)).model_facts == []


def test_changes_of_the_base_model_are_stated() -> None:
    changes = {"embeddings_added": 3, "pad_token_replaced": True, "files_left": ["adapter_config.json"]}
    assert summarize_data(stages(model=changes)).model_facts == [
        "embeddings added: 3",
        "pad token replaced: yes",
        "files not used: adapter_config.json",
    ]


def test_warnings_of_all_stages_come_once_each() -> None:
    summary = summarize_data(stages(format={"warnings": ["few rows", "one"]}, train={"warnings": ["few rows", "two"]}))
    assert summary.warnings == ["few rows", "one", "two"]


def test_near_examples_are_pairs() -> None:
    examples = [["How do I log in?", "How do I log in"], ["a", "b"]]
    assert summarize_data(stages(format={"near_examples": examples})).near_examples == [
        ("How do I log in?", "How do I log in"),
        ("a", "b"),
    ]
