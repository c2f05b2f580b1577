"""pipeline/records/columns.py: which columns are mapped, and why, by literal names; and the stored mapping."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.sources import file_rows

from pipeline.errors import DataError
from pipeline.records.columns import read_column_mapping, resolve_columns, write_column_mapping

NAMES = "the columns have the task's names"
ANY_CASE = NAMES + ", ignoring case"
OTHER = "the columns have other names known for the task"
TEXT = "a column has the task's name, and none are named like a question and its answer"

DETECTED = {
    "chat": (["messages", "id"], {"messages": "messages"}, "chat", NAMES),
    "chat before text": (["id", "text", "messages"], {"messages": "messages"}, "chat", NAMES),
    "ShareGPT": (["id", "conversations"], {"messages": "conversations"}, "chat", OTHER),
    "Alpaca": (
        ["instruction", "input", "output"],
        {"instruction": "instruction", "input": "input", "output": "output"},
        "alpaca",
        NAMES,
    ),
    "Alpaca without input": (
        ["output", "instruction"],
        {"instruction": "instruction", "output": "output"},
        "alpaca",
        NAMES,
    ),
    "Alpaca with its text": (
        ["instruction", "input", "output", "text"],
        {"instruction": "instruction", "input": "input", "output": "output"},
        "alpaca",
        NAMES,
    ),
    "input and output": (["input", "output"], {"input": "input", "output": "output"}, "input/output", NAMES),
    "prompt and completion": (
        ["prompt", "completion"],
        {"prompt": "prompt", "completion": "completion"},
        "prompt/completion",
        NAMES,
    ),
    "capitals": (
        ["Question", "ANSWER"],
        {"question": "Question", "answer": "ANSWER"},
        "question/answer",
        ANY_CASE,
    ),
    "small before capitals": (
        ["Question", "question", "answer"],
        {"question": "question", "answer": "answer"},
        "question/answer",
        NAMES,
    ),
    "names before other names": (
        ["question", "answer", "response"],
        {"question": "question", "answer": "answer"},
        "question/answer",
        NAMES,
    ),
    "query and response": (
        ["Query", "Response"],
        {"question": "Query", "answer": "Response"},
        "question/answer",
        OTHER,
    ),
    "title and body": (["title", "body"], {"question": "title", "answer": "body"}, "question/answer", OTHER),
    "text": (["text", "url"], {"text": "text"}, "text", TEXT),
    "text in capitals": (["Text"], {"text": "Text"}, "text", TEXT.replace("name,", "name, ignoring case,")),
    "text before other names": (["title", "body", "text"], {"text": "text"}, "text", TEXT),
    "content": (["url", "content"], {"text": "content"}, "text", "a column has another name known for the task"),
}


@pytest.mark.parametrize(("available", "columns", "task", "reason"), DETECTED.values(), ids=DETECTED)
def test_columns_are_detected_by_their_names(
    available: list[str], columns: dict[str, str], task: str, reason: str
) -> None:
    mapping = resolve_columns(available, None)
    assert (mapping.columns, mapping.task.name, mapping.reason) == (columns, task, reason)


AMBIGUOUS = {
    "two tasks": (
        ["question", "answer", "prompt", "completion"],
        ['{question: "question", answer: "answer"}', '{prompt: "prompt", completion: "completion"}'],
    ),
    "Alpaca and instruction": (
        ["instruction", "output", "response"],
        ['{instruction: "instruction", output: "output"}', '{instruction: "instruction", response: "response"}'],
    ),
    "capitals alone": (
        ["Question", "QUESTION", "Answer"],
        ['{question: "Question", answer: "Answer"}', '{question: "QUESTION", answer: "Answer"}'],
    ),
    "other names": (
        ["query", "answer", "response"],
        ['{question: "query", answer: "response"}', '{question: "query", answer: "answer"}'],
    ),
}


@pytest.mark.parametrize(("available", "choices"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_two_equally_good_matches_are_an_error_that_lists_both(available: list[str], choices: list[str]) -> None:
    with pytest.raises(DataError) as error:
        resolve_columns(available, None)
    head, *lines = str(error.value).split("\n")
    assert head == f"The columns {', '.join(available)} fit more than one task equally well. Choose one:"
    assert lines == [f"  -S 'data.columns={choice}'" for choice in choices]


def test_explicit_mapping_is_used_unchanged() -> None:
    mapping = resolve_columns(["Title", "Body", "Reply", "text"], {"question": "{Title}: {Body}", "answer": "Reply"})
    assert mapping.columns == {"question": "{Title}: {Body}", "answer": "Reply"}
    assert mapping.source_columns() == ["Title", "Body", "Reply"]
    assert (
        mapping.describe() == "question ← {Title}: {Body}, answer ← Reply (task question/answer, set by data.columns)"
    )


def test_missing_mapped_columns_are_named_with_the_sources_columns() -> None:
    message = "no column Patient, Doctor, which data.columns names; the source has Question, Answer"
    with pytest.raises(DataError, match=message):
        resolve_columns(["Question", "Answer"], {"question": "{Question} {Patient}", "answer": "Doctor"})


def test_a_message_shows_only_some_of_thousands_of_columns() -> None:
    with pytest.raises(DataError, match=r"has the columns c0, .*, c29 and 9,970 more\."):
        resolve_columns([f"c{number}" for number in range(10_000)], None)


UNKNOWN = {
    "unmapped": (
        None,
        "No known task has the columns a, b.\nMap them onto those of a task, for example:\n  -S 'data.columns={question: ",
    ),
    "mapped": ({"q": "a", "r": "b"}, "data.columns maps q, r, which is no known task"),
    "misspelt optional": (
        {"instruction": "a", "inptu": "b", "output": "b"},
        "data.columns maps inptu, instruction, output",
    ),
    "two tasks": ({"question": "a", "answer": "b", "instruction": "a", "response": "b"}, "which is no known task"),
    "empty": ({}, "data.columns maps (nothing)"),
}


@pytest.mark.parametrize(("columns", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_columns_of_no_task_are_a_data_error(columns: dict[str, str] | None, message: str) -> None:
    with pytest.raises(DataError) as error:
        resolve_columns(["a", "b"], columns)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{Title", "is not a template: the brace { at character 1 has no partner"),
        ("Title}", "is not a template: the brace } at character 6 has no partner"),
        ("{} x", "is not a template: the brace { at character 1 has no partner"),
        ("{Title{}}", "is not a template: the brace { at character 1 has no partner"),
    ],
)
def test_invalid_template_is_rejected_by_the_schema(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"columns\.question: ") as error:
        file_rows("x.csv", columns={"question": template, "answer": "a"})
    assert message in str(error.value)


STORED: dict[str, Any] = {
    "task": "question/answer",
    "columns": {"question": "{Title}\n{Text}", "answer": "Antwört"},
    "reason": "set by data.columns",
}


def test_stored_mapping_is_read_back_as_it_was(tmp_path: Path) -> None:
    mapping = resolve_columns(["Title", "Text", "Antwört"], STORED["columns"])
    write_column_mapping(tmp_path / "columns.json", mapping)
    assert json.loads((tmp_path / "columns.json").read_text(encoding="utf-8")) == STORED
    assert read_column_mapping(tmp_path / "columns.json") == mapping


DAMAGED = {
    "cut off": (json.dumps(STORED)[:30], ""),
    "a list": ("[]", ""),
    "no task": ({"task": None}, "task is None; expected one of chat, alpaca, "),
    "unknown task": ({"task": "haiku"}, "task is 'haiku'; expected one of chat, alpaca, "),
    "no columns": ({"columns": None}, "columns is not an object of texts"),
    "number for a column": ({"columns": {"question": 1, "answer": "b"}}, "columns is not an object of texts"),
    "columns of another task": ({"columns": {"text": "a"}}, "columns has text; the task question/answer needs others"),
    "no template": ({"columns": {"question": "{a", "answer": "b"}}, "columns.question: '{a' is not a template"),
    "no reason": ({"reason": None}, "reason is not a text"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_mapping_is_a_data_error(content: str | dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "columns.json"
    path.write_text(content if isinstance(content, str) else json.dumps(STORED | content))
    with pytest.raises(DataError) as error:
        read_column_mapping(path)
    assert str(error.value).startswith(f"{path} is damaged ({message}")
    assert str(error.value).endswith("); an earlier stage writes it: dvc repro")
