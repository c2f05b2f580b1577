"""pipeline/records/columns.py: which columns are taken, and why, by literal names."""

import pytest

from pipeline.config.params import FileRows
from pipeline.errors import DataError
from pipeline.records.columns import resolve_columns

NAMES = "the columns bear the task's names"
CAPITALS = NAMES + " but for capitals"
OTHER = "the columns bear other names that are known for the task's"
TEXT = "a column bears the name, and none those of a question and its answer"

TAKEN = {
    "chat": (["messages", "id"], {"messages": "messages"}, "chat", NAMES),
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
        CAPITALS,
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
    "text in capitals": (["Text"], {"text": "Text"}, "text", TEXT.replace("name,", "name but for capitals,")),
    "text before other names": (["title", "body", "text"], {"text": "text"}, "text", TEXT),
    "content": (["url", "content"], {"text": "content"}, "text", "a column bears another name that is known for text"),
}


@pytest.mark.parametrize(("there", "columns", "task", "why"), TAKEN.values(), ids=TAKEN)
def test_columns_are_taken_by_their_names(there: list[str], columns: dict[str, str], task: str, why: str) -> None:
    taken = resolve_columns(there, None)
    assert (taken.columns, taken.task.name, taken.why) == (columns, task, why)


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


@pytest.mark.parametrize(("there", "choices"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_two_that_fit_equally_are_an_error_that_lists_both(there: list[str], choices: list[str]) -> None:
    with pytest.raises(DataError) as error:
        resolve_columns(there, None)
    head, *lines = str(error.value).split("\n")
    assert head == f"The columns {', '.join(there)} fit more than one task equally well. Choose one:"
    assert lines == [f"  -S 'data.columns={choice}'" for choice in choices]


def test_a_mapping_is_taken_as_it_is() -> None:
    taken = resolve_columns(["Title", "Body", "Reply", "text"], {"question": "{Title}: {Body}", "answer": "Reply"})
    assert taken.columns == {"question": "{Title}: {Body}", "answer": "Reply"}
    assert taken.sources() == ["Title", "Body", "Reply"]
    assert taken.told() == "question ← {Title}: {Body}, answer ← Reply (question/answer: as data.columns says)"


def test_mapped_columns_that_lack_are_named_with_those_there() -> None:
    message = "no column Patient, Doctor, which data.columns names; columns there: Question, Answer"
    with pytest.raises(DataError, match=message):
        resolve_columns(["Question", "Answer"], {"question": "{Question} {Patient}", "answer": "Doctor"})


def test_of_thousands_of_columns_a_message_shows_some() -> None:
    with pytest.raises(DataError, match=r"has the columns c0, .*, c29 and 9,970 more\."):
        resolve_columns([f"c{number}" for number in range(10_000)], None)


UNKNOWN = {
    "unmapped": (None, "No known task has the columns a, b"),
    "mapped": ({"q": "a", "r": "b"}, "data.columns maps q, r, which is no known task"),
    "misspelt optional": (
        {"instruction": "a", "inptu": "b", "output": "b"},
        "data.columns maps inptu, instruction, output",
    ),
    "two tasks": ({"question": "a", "answer": "b", "instruction": "a", "response": "b"}, "which is no known task"),
    "empty": ({}, "data.columns maps (nothing)"),
}


@pytest.mark.parametrize(("columns", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_columns_of_no_task_are_refused(columns: dict[str, str] | None, message: str) -> None:
    with pytest.raises(DataError) as error:
        resolve_columns(["a", "b"], columns)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{Title", "is not a template: expected '}' before end of string"),
        ("Title}", "is not a template: Single '}' encountered"),
        ("{} x", "a placeholder holds the name of a column alone"),
        ("{Title!r}", "a placeholder holds the name of a column alone"),
        ("{Title:>9}", "a placeholder holds the name of a column alone, not 'Title:>9'"),
        ("{{Title}}", "names no column; expected some, such as {Title}"),
    ],
)
def test_template_that_is_none_is_refused_by_the_schema(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"columns\.question: ") as error:
        FileRows(source="file", path="x.csv", sha256=None, limit=None, columns={"question": template, "answer": "a"})
    assert message in str(error.value)
