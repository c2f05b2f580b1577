"""The tasks: shapes of data that the pipeline knows, each a set of columns, and its conversation and answer.

A record has one text for each of the task's columns, except `messages`, `history` and `tools`, which are JSON.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.files import damaged_error, read_json, write_json
from pipeline.errors import DataError
from pipeline.records.json_cells import parse_json


class Turn(NamedTuple):
    role: str  # one of ROLES
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


CONTEXT = ("system", "history")  # of one question: the system prompt, and the earlier turns
TASKS = (
    Task("chat", ("messages", "system", "tools"), answer=None, optional=("system", "tools")),
    Task(
        "alpaca",
        ("instruction", "input", "output", *CONTEXT),
        answer="output",
        question="instruction",
        optional=("input", *CONTEXT),
    ),
    Task("question/answer", ("question", "answer", *CONTEXT), answer="answer", question="question", optional=CONTEXT),
    Task(
        "instruction/response",
        ("instruction", "response", *CONTEXT),
        answer="response",
        question="instruction",
        optional=CONTEXT,
    ),
    Task(
        "prompt/completion",
        ("prompt", "completion", *CONTEXT, "tools"),
        answer="completion",
        question="prompt",
        optional=(*CONTEXT, "tools"),
    ),
    Task("input/output", ("input", "output", *CONTEXT), answer="output", question="input", optional=CONTEXT),
    Task("text", ("text",), answer="text"),
)
CHAT = TASKS[0]
MAX_NAMES_SHOWN = 30  # names in a message
ROLES = ("system", "user", "assistant", "tool")


def format_names(names: Iterable[str]) -> str:
    """
    >>> format_names(["Question", "", "a\\nb"])
    "Question, '', 'a\\\\nb'"
    """
    shown = [name if name.isprintable() and name.strip() else ascii(name) for name in names]
    return ", ".join(shown[:MAX_NAMES_SHOWN]) + (
        f" and {len(shown) - MAX_NAMES_SHOWN:,} more" if len(shown) > MAX_NAMES_SHOWN else ""
    )


def task_of_mapping(columns: Iterable[str]) -> Task:
    """The task with exactly these columns, optional ones aside. Raises DataError if there is none."""
    names = set(columns)
    for task in TASKS:
        if set(task.required) <= names <= set(task.columns):
            return task
    raise DataError(
        f"data.columns maps {format_names(sorted(names)) or '(nothing)'}, which is no known task. "
        f"Expected exactly the columns of one: {known_tasks()}"
    )


def known_tasks() -> str:
    """The columns of each task, for messages.

    >>> known_tasks().split("; ")[1]
    'instruction + input + output (optional: input, system, history)'
    """
    return "; ".join(map(_describe_columns, TASKS))


def _describe_columns(task: Task) -> str:
    columns = " + ".join(column for column in task.columns if column not in (*CONTEXT, "tools"))
    return f"{columns} (optional: {', '.join(task.optional)})" if task.optional else columns


def write_task(path: Path, task: Task, first_test_row: int | None = None) -> None:
    """Store the task of the records, and the id from which on they are the user's own test set, if there is one."""
    write_json(path, {"task": task.name} | ({} if first_test_row is None else {"first_test_row": first_test_row}))


def read_task(path: Path) -> Task:
    """The task that a JSON file of an earlier stage names. Raises DataError if the file is damaged."""
    name = read_json(path).get("task")
    for task in TASKS:
        if task.name == name:
            return task
    raise damaged_error(path, f"task is {name!a}; expected one of {', '.join(task.name for task in TASKS)}")


def read_first_test_row(path: Path) -> int | None:
    """The id from which on the rows are the user's own test set; None if there is none. Raises DataError on damage."""
    first = read_json(path).get("first_test_row")
    if first is None:
        return None
    if not isinstance(first, int) or isinstance(first, bool) or first < 0:
        raise damaged_error(path, f"first_test_row is {first!a}; expected the number of a row")
    return first


def turns_of(task: Task, record: Mapping[str, Any]) -> tuple[list[Turn], str]:
    """(the turns before the answer, the answer) of one cleaned record.

    Plain text has no turns: all of it is the answer. In a chat, the last message is the answer. A system prompt and earlier
    turns come before the question.

    >>> turns_of(task_of_mapping(["input", "output"]), {"input": "2+2", "output": "4"})
    ([Turn(role='user', content='2+2')], '4')
    """
    if task.name == "text":
        return [], record["text"]
    if task.name == "chat":
        *before, last = (Turn(message["role"], message["content"]) for message in _messages_of(record))
        return before, last.content
    assert task.question
    assert task.answer
    context = [Turn("system", record["system"])] if record.get("system") else []
    context += [Turn(message["role"], message["content"]) for message in _messages_of(record)]
    question = record[task.question]
    extra = record.get("input") if "input" in task.optional else None
    return [*context, Turn("user", f"{question}\n\n{extra}" if extra else question)], record[task.answer]


def messages_of(task: Task, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of one cleaned record, its answer included, with all their keys.

    >>> messages_of(task_of_mapping(["input", "output"]), {"input": "2+2", "output": "4"})
    [{'role': 'user', 'content': '2+2'}, {'role': 'assistant', 'content': '4'}]
    """
    if task.name == "chat":
        return [*_messages_of(record)]
    turns, answer = turns_of(task, record)
    history = [*_messages_of(record)]
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    messages[len(messages) - 1 - len(history) : len(messages) - 1] = history  # with all keys that they have
    return [*messages, {"role": "assistant", "content": answer}]


def tools_of(record: Mapping[str, Any]) -> list[Any]:
    """The tools that a record lists: JSON, or parsed already."""
    value = record.get("tools") or []
    tools: list[Any] = parse_json(value) if isinstance(value, str) else value
    return tools


def has_context(task: Task, record: Mapping[str, Any]) -> bool:
    """Whether a record has more than a question and an answer: a system prompt, earlier turns or tools."""
    return task.name == "chat" or any(record.get(name) for name in (*CONTEXT, "tools"))


def unrenderable_parts(task: Task, record: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts of a record that only a chat template can render: "tool_calls", "tool_results", "tools".

    >>> messages = [{"role": "user", "content": "Flu?"}, {"role": "assistant", "content": "Rest."}]
    >>> unrenderable_parts(CHAT, {"messages": messages, "tools": '[{"type": "function"}]'})
    ('tools',)
    """
    messages = _messages_of(record)
    has = {
        "tool_calls": any(message.get("tool_calls") for message in messages),
        "tool_results": any(message["role"] == "tool" for message in messages),
        "tools": bool(record.get("tools")),
    }
    return tuple(name for name, is_there in has.items() if is_there)


def _messages_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a chat, or the earlier turns of another record: JSON, or parsed already."""
    value = record.get("messages") or record.get("history") or []
    return parse_json(value) if isinstance(value, str) else value
