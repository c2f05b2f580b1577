"""The shapes of data that the pipeline knows, each a set of columns, and what is question and answer in each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.errors import DataError


class Turn(NamedTuple):
    role: str  # system, user or assistant
    content: str


@dataclass(frozen=True)
class Task:
    """`columns` in the order in which records.parquet has them; `optional` ones may lack or be empty."""

    name: str
    columns: tuple[str, ...]
    answer: str | None
    question: str | None = None
    optional: tuple[str, ...] = ()

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(column for column in self.columns if column not in self.optional)


# The order decides where two fit: Alpaca's columns hold those of others.
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


def task_of(columns: Iterable[str]) -> Task:
    """The task whose required columns are all there, or DataError with what is there and what would do."""
    there = list(columns)
    for task in TASKS:
        if set(task.required) <= set(there):
            return task
    raise unknown_task_error(there)


def unknown_task_error(there: list[str]) -> DataError:
    known = "; ".join(" + ".join(task.columns) for task in TASKS)
    return DataError(
        f"No known task has the columns {format_names(there) or '(none)'}.\n"
        f"Known tasks: {known}.\n"
        "Map the source's columns onto one of them, for example: "
        "data.columns={question: Description, answer: Doctor}"
    )


def task_of_mapping(columns: Iterable[str]) -> Task:
    """The task that has just these columns, optional ones aside: a mapping must name no other."""
    names = set(columns)
    for task in TASKS:
        if set(task.required) <= names <= set(task.columns):
            return task
    known = "; ".join(" + ".join(task.columns) for task in TASKS)
    raise DataError(
        f"data.columns maps {format_names(sorted(names)) or '(nothing)'}, which is no known task. "
        f"Expected just the columns of one: {known}"
    )


def turns_of(task: Task, record: Mapping[str, Any]) -> tuple[list[Turn], str]:
    """(the turns before the answer, the answer) of one cleaned record.

    >>> turns_of(task_of(["input", "output"]), {"input": "2+2", "output": "4"})
    ([Turn(role='user', content='2+2')], '4')

    Plain text has no turns: all of it is the answer. In a chat the last assistant turn is the answer.
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
