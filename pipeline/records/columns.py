"""Which columns of the source make up the task: as data.columns maps them, or as their names tell.

Without a mapping the first of STEPS that fits decides. What fits by names of the same kind and covers no other is a
candidate; with two candidates nobody but the user can know, so that is an error which lists them.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.config.placeholders import parse_template
from pipeline.errors import DataError
from pipeline.records.tasks import MAX_NAMES_SHOWN, TASKS, Task, format_names, task_of_mapping, unknown_task_error
from pipeline.records.text import cell_text

# Other names that public datasets have for a task's required columns, capitals aside.
ALIASES: dict[str, tuple[tuple[str, ...], ...]] = {
    "chat": (("conversations",), ("conversation",)),
    "question/answer": (("query", "response"), ("query", "answer"), ("question", "response"), ("title", "body")),
    "instruction/response": (("instruction", "answer"), ("instruction", "completion")),
    "prompt/completion": (("prompt", "response"), ("prompt", "answer")),
    "input/output": (("source", "target"), ("input", "target")),
    "text": (("content",), ("document",)),
}


Names = Mapping[str, str]  # task's column → the name that it is looked for by


class ColumnMapping(NamedTuple):
    task: Task
    columns: dict[str, str]  # task's column → source's column, or a template of several
    why: str

    def sources(self) -> list[str]:
        """The source's columns that are used."""
        return list(dict.fromkeys(name for value in self.columns.values() for name in referenced_columns(value)))

    def told(self) -> str:
        return f"{format_mapping(self.columns)} ({self.task.name}: {self.why})"


def format_mapping(columns: Mapping[str, str]) -> str:
    r"""
    >>> format_mapping({"question": "{Title}\n{Body}", "answer": "Reply"})
    'question ← {Title}\\n{Body}, answer ← Reply'
    """
    return ", ".join(f"{name} ← {value.encode('unicode_escape').decode()}" for name, value in columns.items())


def referenced_columns(value: str) -> list[str]:
    """The columns that one value of data.columns names: itself, or those of a template.

    >>> referenced_columns("Reply"), referenced_columns("{Description}: {Patient}")
    (['Reply'], ['Description', 'Patient'])
    """
    return (
        [field for _, field in parse_template(value) if field is not None] if "{" in value or "}" in value else [value]
    )


def resolve_columns(there: list[str], columns: Mapping[str, str] | None) -> ColumnMapping:
    """The task and its columns; DataError if the source lacks them, no task has them, or more than one fits."""
    if columns is None:
        return _detected(there)
    missing = [name for value in columns.values() for name in referenced_columns(value) if name not in there]
    if missing:
        raise DataError(
            f"no column {format_names(missing)}, which data.columns names; columns there: {format_names(there)}"
        )
    return ColumnMapping(task_of_mapping(columns), dict(columns), "as data.columns says")


def _detected(there: list[str]) -> ColumnMapping:
    for why, tasks, names_of, same in STEPS:
        found = [
            ColumnMapping(task, columns, why)
            for task in tasks
            for names in names_of(task)
            for columns in _fitting(task, names, there, same)
        ]
        used = [set(each.sources()) for each in found]
        best = [each for each, mine in zip(found, used, strict=True) if not any(mine < other for other in used)]
        if len(best) > 1:
            raise DataError(_ambiguous(there, best))
        if best:
            return best[0]
    raise unknown_task_error(there)


def _fitting(task: Task, names: Names, there: list[str], same: Callable[[str], str]) -> Iterator[dict[str, str]]:
    """Each way in which the source's columns bear the names (task's column → name)."""
    options = [[each for each in there if same(each) == wanted] for wanted in names.values()]
    options = [each or [""] if name in task.optional else each for name, each in zip(names, options, strict=True)]
    for chosen in product(*options):
        yield {name: column for name, column in zip(names, chosen, strict=True) if column}


def _ambiguous(there: list[str], best: list[ColumnMapping]) -> str:
    # Quoted as Hydra takes it on the command line, whatever the names hold.
    lines = ["data.columns={" + ", ".join(f"{k}: {json.dumps(v)}" for k, v in b.columns.items()) + "}" for b in best]
    return "\n".join(
        [
            f"The columns {format_names(there)} fit more than one task equally well. Choose one:",
            *(f"  -S '{line}'" for line in lines[:MAX_NAMES_SHOWN]),
        ]
    )


def _own(task: Task) -> list[Names]:
    return [{name: name for name in task.columns}]


def _aliases(task: Task) -> list[Names]:
    return [dict(zip(task.required, names, strict=True)) for names in ALIASES.get(task.name, ())]


# Text is said and not asked: a row that holds a question and its answer beside it is taken for these.
SPOKEN = [task for task in TASKS if task.name != "text"]
TEXT = [task for task in TASKS if task.name == "text"]
# (why, tasks, the names that are looked for, what of a column's name is compared)
STEPS: tuple[tuple[str, list[Task], Callable[[Task], list[Names]], Callable[[str], str]], ...] = (
    ("the columns bear the task's names", SPOKEN, _own, str),
    ("the columns bear the task's names but for capitals", SPOKEN, _own, str.casefold),
    ("a column bears the name, and none those of a question and its answer", TEXT, _own, str),
    ("a column bears the name but for capitals, and none those of a question and its answer", TEXT, _own, str.casefold),
    ("the columns bear other names that are known for the task's", SPOKEN, _aliases, str.casefold),
    ("a column bears another name that is known for text", TEXT, _aliases, str.casefold),
)


def column_values(table: pa.Table, value: str, first: int = 0) -> list[Any]:
    """The cells of a column, or the texts that a template makes of several; empty where all of its cells are.

    DataError names the row, counted from `first`, where a template meets what is no text.
    """
    names = referenced_columns(value)
    if names == [value]:
        return table.column(value).to_pylist()
    texts = {
        name: [_text(cell, row, name) for row, cell in enumerate(table.column(name).to_pylist(), start=first)]
        for name in names
    }
    parts = parse_template(value)
    return [
        "".join(literal + (texts[name][row] if name is not None else "") for literal, name in parts)
        if any(texts[name][row] for name in names)
        else ""
        for row in range(table.num_rows)
    ]


def _text(cell: Any, row: int, name: str) -> str:
    if cell is not None and not isinstance(cell, str | int | float):
        raise DataError(f"row {row}, {name}: a {type(cell).__name__}; expected text (see data.columns)")
    return cell_text(cell)
