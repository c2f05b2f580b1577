"""The tasks: shapes of data that the pipeline knows, each a set of columns, and its conversation and answer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.files import damaged_error, read_json, write_json
from pipeline.errors import DataError


class Turn(NamedTuple):
    role: str  # system, user or assistant
    content: str


@dataclass(frozen=True)
class Task:
    """`columns` are in the order of records.parquet; the `optional` ones may be missing or empty."""

    name: str
    columns: tuple[str, ...]
    answer: str | None
    question: str | None = None
    optional: tuple[str, ...] = ()

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(column for column in self.columns if column not in self.optional)


TASKS = (
    Task("chat", ("messages",), answer=None),
    Task("alpaca", ("instruction", "input", "output"), answer="output", question="instruction", optional=("input",)),
    Task("question/answer", ("question", "answer"), answer="answer", question="question"),
    Task("instruction/response", ("instruction", "response"), answer="response", question="instruction"),
    Task("prompt/completion", ("prompt", "completion"), answer="completion", question="prompt"),
    Task("input/output", ("input", "output"), answer="output", question="input"),
    Task("text", ("text",), answer="text"),
)
MAX_NAMES_SHOWN = 30  # names in a message
ROLES = ("system", "user", "assistant")


def format_names(names: Iterable[str]) -> str:
    """
    >>> format_names(["Question", "", "a\\nb"])
    "Question, '', 'a\\\\nb'"
    """
    shown = [name if name.isprintable() and name.strip() else ascii(name) for name in names]
    return ", ".join(shown[:MAX_NAMES_SHOWN]) + (
        f" and {len(shown) - MAX_NAMES_SHOWN:,} more" if len(shown) > MAX_NAMES_SHOWN else ""
    )


def unknown_task_error(available: list[str]) -> DataError:
    return DataError(
        f"No known task has the columns {format_names(available) or '(none)'}.\n"
        f"Known tasks: {_known_tasks()}.\n"
        "Map the source's columns onto one of them, for example: "
        "data.columns={question: Description, answer: Doctor}"
    )


def task_of_mapping(columns: Iterable[str]) -> Task:
    """The task with exactly these columns, optional ones aside. Raises DataError if there is none."""
    names = set(columns)
    for task in TASKS:
        if set(task.required) <= names <= set(task.columns):
            return task
    raise DataError(
        f"data.columns maps {format_names(sorted(names)) or '(nothing)'}, which is no known task. "
        f"Expected exactly the columns of one: {_known_tasks()}"
    )


def _known_tasks() -> str:
    return "; ".join(" + ".join(task.columns) for task in TASKS)


def write_task(path: Path, task: Task) -> None:
    write_json(path, {"task": task.name})


def read_task(path: Path) -> Task:
    """The task that a JSON file of an earlier stage names. Raises DataError if the file is damaged."""
    name = read_json(path).get("task")
    for task in TASKS:
        if task.name == name:
            return task
    raise damaged_error(path, f"task is {name!a}; expected one of {', '.join(task.name for task in TASKS)}")


def turns_of(task: Task, record: Mapping[str, Any]) -> tuple[list[Turn], str]:
    """(the turns before the answer, the answer) of one cleaned record.

    Plain text has no turns: all of it is the answer. In a chat, the last assistant turn is the answer.

    >>> turns_of(task_of_mapping(["input", "output"]), {"input": "2+2", "output": "4"})
    ([Turn(role='user', content='2+2')], '4')
    """
    if task.name == "text":
        return [], record["text"]
    if task.name == "chat":
        *before, last = (Turn(message["role"], message["content"]) for message in record["messages"])
        return before, last.content
    assert task.question
    assert task.answer
    question = record[task.question]
    extra = "\n\n".join(record[column] for column in task.optional if record.get(column))
    return [Turn("user", f"{question}\n\n{extra}" if extra else question)], record[task.answer]
