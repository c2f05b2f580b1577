"""The column mapping: which columns of the source hold the columns of the task.

`data.columns` sets it; without that, the names of the source's columns decide. The first of DETECTION_STEPS with a match
wins. A match whose columns are a proper subset of another match's does not count. If two matches are left, only the user
can know which one is meant, so that is an error which lists them.

fetch decides the mapping and stores it beside the rows (data/raw/columns.json); clean reads it from there.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.config.placeholders import column_template_errors, parse_template
from pipeline.core.files import damaged_error, read_json, write_json
from pipeline.errors import DataError
from pipeline.records.tasks import (
    MAX_NAMES_SHOWN,
    TASKS,
    Task,
    format_names,
    read_task,
    task_of_mapping,
    unknown_task_error,
)
from pipeline.records.text import cell_text

# Other names that public datasets use for a task's required columns, compared without case.
ALIASES: dict[str, tuple[tuple[str, ...], ...]] = {
    "chat": (("conversations",), ("conversation",)),
    "question/answer": (("query", "response"), ("query", "answer"), ("question", "response"), ("title", "body")),
    "instruction/response": (("instruction", "answer"), ("instruction", "completion")),
    "prompt/completion": (("prompt", "response"), ("prompt", "answer")),
    "input/output": (("source", "target"), ("input", "target")),
    "text": (("content",), ("document",)),
}


class ColumnMapping(NamedTuple):
    task: Task
    columns: dict[str, str]  # the task's column → the source's column, or a template of several
    reason: str

    def source_columns(self) -> list[str]:
        """The source's columns that the mapping uses."""
        return list(dict.fromkeys(name for value in self.columns.values() for name in referenced_columns(value)))

    def describe(self) -> str:
        return f"{format_mapping(self.columns)} (task {self.task.name}, {self.reason})"


def format_mapping(columns: Mapping[str, str]) -> str:
    r"""
    >>> format_mapping({"question": "{Title}\n{Body}", "answer": "Reply"})
    'question ← {Title}\\n{Body}, answer ← Reply'
    """
    return ", ".join(f"{name} ← {value.encode('unicode_escape').decode()}" for name, value in columns.items())


def referenced_columns(value: str) -> list[str]:
    """The source's columns that one value of data.columns names: the value itself, or the placeholders of a template.

    >>> referenced_columns("Reply"), referenced_columns("{Description}: {Patient}")
    (['Reply'], ['Description', 'Patient'])
    """
    if "{" not in value and "}" not in value:
        return [value]
    return [name for _, name in parse_template(value) if name is not None]


def write_column_mapping(path: Path, mapping: ColumnMapping) -> None:
    write_json(path, {"task": mapping.task.name, "columns": mapping.columns, "reason": mapping.reason})


def read_column_mapping(path: Path) -> ColumnMapping:
    """The mapping that `write_column_mapping` stored. Raises DataError if the file is damaged."""
    task, values = read_task(path), read_json(path)
    columns, reason = values.get("columns"), values.get("reason")
    if not isinstance(columns, dict) or not all(isinstance(value, str) for value in columns.values()):
        raise damaged_error(path, "columns is not an object of texts")
    if not set(task.required) <= set(columns) <= set(task.columns):
        raise damaged_error(path, f"columns has {format_names(columns)}; the task {task.name} needs others")
    if errors := column_template_errors(columns):
        raise damaged_error(path, "; ".join(errors))
    if not isinstance(reason, str):
        raise damaged_error(path, "reason is not a text")
    return ColumnMapping(task, columns, reason)


def resolve_columns(available: list[str], columns: Mapping[str, str] | None) -> ColumnMapping:
    """The mapping of the source's `available` columns: `columns` (data.columns) if given, else detected by name.

    Raises DataError if the source lacks a mapped column, no task fits, or more than one does.
    """
    if columns is None:
        return _detect(available)
    missing = [name for value in columns.values() for name in referenced_columns(value) if name not in available]
    if missing:
        raise DataError(
            f"no column {format_names(missing)}, which data.columns names; the source has {format_names(available)}"
        )
    return ColumnMapping(task_of_mapping(columns), dict(columns), "set by data.columns")


Names = Mapping[str, str]  # the task's column → the name to look for


class DetectionStep(NamedTuple):
    reason: str
    tasks: list[Task]
    names_of: Callable[[Task], list[Names]]  # the names to look for
    normalize: Callable[[str], str]  # applied to the source's names before they are compared


def _own_names(task: Task) -> list[Names]:
    return [{name: name for name in task.columns}]


def _aliases(task: Task) -> list[Names]:
    return [dict(zip(task.required, names, strict=True)) for names in ALIASES.get(task.name, ())]


# Question and answer go before text: datasets often repeat both in one column of text.
QUESTION_TASKS = [task for task in TASKS if task.name != "text"]
TEXT_TASK = [task for task in TASKS if task.name == "text"]
_NO_QUESTION = "and none are named like a question and its answer"
DETECTION_STEPS = (
    DetectionStep("the columns have the task's names", QUESTION_TASKS, _own_names, str),
    DetectionStep("the columns have the task's names, ignoring case", QUESTION_TASKS, _own_names, str.casefold),
    DetectionStep(f"a column has the task's name, {_NO_QUESTION}", TEXT_TASK, _own_names, str),
    DetectionStep(f"a column has the task's name, ignoring case, {_NO_QUESTION}", TEXT_TASK, _own_names, str.casefold),
    DetectionStep("the columns have other names known for the task", QUESTION_TASKS, _aliases, str.casefold),
    DetectionStep("a column has another name known for the task", TEXT_TASK, _aliases, str.casefold),
)


def _detect(available: list[str]) -> ColumnMapping:
    for step in DETECTION_STEPS:
        candidates = [
            ColumnMapping(task, columns, step.reason)
            for task in step.tasks
            for names in step.names_of(task)
            for columns in _matches(task, names, available, step.normalize)
        ]
        used = [set(candidate.source_columns()) for candidate in candidates]
        best = [
            candidate for candidate, own in zip(candidates, used, strict=True) if not any(own < other for other in used)
        ]
        if len(best) > 1:
            raise DataError(_ambiguous_message(available, best))
        if best:
            return best[0]
    raise unknown_task_error(available)


def _matches(
    task: Task, names: Names, available: list[str], normalize: Callable[[str], str]
) -> Iterator[dict[str, str]]:
    """Every choice of the source's columns that have the names; an optional column may be missing."""
    options = []
    for name, wanted in names.items():
        matching = [column for column in available if normalize(column) == wanted]
        options.append(matching or ([""] if name in task.optional else []))
    for choice in product(*options):
        yield {name: column for name, column in zip(names, choice, strict=True) if column}


def _ambiguous_message(available: list[str], candidates: list[ColumnMapping]) -> str:
    # Quoted as Hydra parses it on the command line, so that names may hold spaces and commas.
    lines = [
        "data.columns={" + ", ".join(f"{name}: {json.dumps(value)}" for name, value in candidate.columns.items()) + "}"
        for candidate in candidates
    ]
    return "\n".join(
        [
            f"The columns {format_names(available)} fit more than one task equally well. Choose one:",
            *(f"  -S '{line}'" for line in lines[:MAX_NAMES_SHOWN]),
        ]
    )


def column_values(table: pa.Table, value: str, first_row: int = 0) -> list[Any]:
    """The cells of a column, or one text per row made by a template of several; empty where all of its cells are.

    `first_row` is the number of the table's first row in the source. Raises DataError with the row's number if a template
    meets a cell that is not text.
    """
    names = referenced_columns(value)
    if names == [value]:
        cells: list[Any] = table.column(value).to_pylist()
        return cells
    texts = {
        name: [
            require_text(cell, row, name) for row, cell in enumerate(table.column(name).to_pylist(), start=first_row)
        ]
        for name in names
    }
    parts = parse_template(value)
    return [
        "".join(literal + (texts[name][row] if name is not None else "") for literal, name in parts)
        if any(texts[name][row] for name in names)
        else ""
        for row in range(table.num_rows)
    ]


def require_text(cell: Any, row: int, name: str) -> str:
    """The cell as text. Raises DataError if it is neither text nor a number."""
    if cell is not None and not isinstance(cell, str | int | float):
        raise DataError(f"row {row}, {name}: a {type(cell).__name__}; expected text (see data.columns)")
    return cell_text(cell)
