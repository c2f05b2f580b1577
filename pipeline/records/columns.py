"""The column mapping: which columns of the source hold the columns of the task.

`data.columns` sets it; without that, the names of the source's columns decide (pipeline/records/detection.py). If they fit
in two ways equally well, only the user can know which one is meant, so that is an error which lists them.

fetch decides the mapping and stores it beside the rows (data/raw/columns.json); clean reads it from there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.config.placeholders import column_template_errors, escape_braces, parse_template
from pipeline.core.files import damaged_error, read_json, write_json
from pipeline.errors import DataError
from pipeline.records.detection import find_matches, is_template, normalize_name, referenced_columns
from pipeline.records.json_cells import to_python
from pipeline.records.suggestions import closest_column, format_columns_override, suggest_columns
from pipeline.records.tasks import (
    MAX_NAMES_SHOWN,
    Task,
    format_names,
    known_tasks,
    read_first_test_row,
    read_task,
    task_of_mapping,
)
from pipeline.records.text import cell_text

MAX_CELL_SHOWN = 60  # characters in a message


class ColumnMapping(NamedTuple):
    task: Task
    columns: dict[str, str]  # the task's column → the source's column, or a template of several
    reason: str
    first_test_row: int | None = None  # rows from this one on are the user's own test set; None: there is none

    def source_columns(self) -> list[str]:
        """The source's columns that the mapping uses."""
        return list(dict.fromkeys(name for value in self.columns.values() for name in referenced_columns(value)))

    def describe(self) -> str:
        return f"{format_mapping(self.columns)} (task {self.task.name}, {self.reason})"


def format_mapping(columns: Mapping[str, str]) -> str:
    r"""
    >>> format_mapping({"question": "{Title}\n{Frage für uns}", "answer": "Reply"})
    'question ← {Title}\\n{Frage für uns}, answer ← Reply'
    """
    return ", ".join(f"{name} ← {_printable(value)}" for name, value in columns.items())


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def write_column_mapping(path: Path, mapping: ColumnMapping) -> None:
    values = {"task": mapping.task.name, "columns": mapping.columns, "reason": mapping.reason}
    first = mapping.first_test_row
    write_json(path, values if first is None else values | {"first_test_row": first})


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
    return ColumnMapping(task, columns, reason, read_first_test_row(path))


def resolve_columns(
    available: list[str], columns: Mapping[str, str] | None, sample: pa.Table | None = None
) -> ColumnMapping:
    """The mapping of the source's `available` columns: `columns` (data.columns) if given, else detected by name.

    `sample` is some of the source's rows, from which an error's proposal is made. Raises DataError if the source lacks a
    mapped column, no task fits, or more than one does.
    """
    if columns is None:
        return _detect(available, sample)
    task = task_of_mapping(columns)
    names = {
        name: _find_column(name, available, columns) for value in columns.values() for name in referenced_columns(value)
    }
    if missing := [name for name, actual in names.items() if actual is None]:
        raise DataError(_missing_message(missing, available, columns))
    actual = {
        name: _rename(value, {key: name or key for key, name in names.items()}) for name, value in columns.items()
    }
    return ColumnMapping(task, actual, "set by data.columns")


def _find_column(name: str, available: list[str], columns: Mapping[str, str]) -> str | None:
    """The source's column of this name, exactly or else but for case and spaces; None if there is none.

    Raises DataError if several differ from it only in that.
    """
    if name in available:
        return name
    similar = [column for column in available if normalize_name(column) == normalize_name(name)]
    if len(similar) < 2:
        return similar[0] if similar else None
    choices = [{key: _rename(value, {name: column}) for key, value in columns.items()} for column in similar]
    raise DataError(
        f"data.columns names {format_names([name])}, which could be each of {format_names(similar)}. Choose one:\n"
        + _format_choices(choices)
    )


def _rename(value: str, names: Mapping[str, str]) -> str:
    """A value of data.columns with other names for its columns."""
    parts = parse_template(value)
    if not is_template(value):
        return escape_braces(names.get(name := "".join(literal for literal, _ in parts), name))
    return "".join(
        escape_braces(literal) + (f"{{{names.get(name, name)}}}" if name is not None else "") for literal, name in parts
    )


def _missing_message(missing: list[str], available: list[str], columns: Mapping[str, str]) -> str:
    message = (
        f"no column {format_names(missing)}, which data.columns names; the source has "
        f"{format_names(available) or '(none)'}"
    )
    closest = {name: column for name in missing if (column := closest_column(name, available)) is not None}
    if len(closest) < len(missing):
        return message
    corrected = {name: _rename(value, closest) for name, value in columns.items()}
    return f"{message}. Did you mean:\n{_format_choices([corrected])}"


def _detect(available: list[str], sample: pa.Table | None) -> ColumnMapping:
    matches = find_matches(available)
    if len(matches) == 1:
        return ColumnMapping(*matches[0])
    if not matches:
        raise _unknown_task_error(available, sample)
    raise DataError(
        f"The columns {format_names(available)} fit more than one task equally well. Choose one:\n"
        + _format_choices([match.columns for match in matches])
    )


def _format_choices(choices: list[dict[str, str]]) -> str:
    return "\n".join(f"  {format_columns_override(columns)}" for columns in choices[:MAX_NAMES_SHOWN])


def _unknown_task_error(available: list[str], sample: pa.Table | None) -> DataError:
    proposal = suggest_columns(available, sample) or {"question": "COLUMN", "answer": "COLUMN"}
    return DataError(
        f"No known task has the columns {format_names(available) or '(none)'}.\n"
        f"Map them onto those of a task, for example:\n{_format_choices([proposal])}\n"
        f"Known tasks: {known_tasks()}"
    )


def column_values(table: pa.Table, value: str, first_row: int = 0) -> list[Any]:
    """The cells of a column, or one text per row made by a template of several; empty where all of its cells are.

    Cells of JSON columns are Python values. `first_row` is the number of the table's first row in the source. Raises
    DataError with the row's number if a template meets a cell that is not text.
    """
    names = referenced_columns(value)
    if not is_template(value):
        return to_python(table.column(names[0]))
    texts = {
        name: [require_text(cell, row, name) for row, cell in enumerate(to_python(table.column(name)), start=first_row)]
        for name in names
    }
    parts = parse_template(value)
    return [
        _join_cells([(literal, texts[name][row] if name is not None else None) for literal, name in parts])
        for row in range(table.num_rows)
    ]


def _join_cells(parts: list[tuple[str, str | None]]) -> str:
    r"""The literal parts of a template, each with the text of the cell after it; empty if all of the cells are.

    Whitespace that separates an empty cell from its neighbors is left out.

    >>> _join_cells([("", ""), ("\n\n", "It hurts."), (" ", ""), (" (age ", "7"), (")", None)])
    'It hurts. (age 7)'
    """
    if not any(cell for _, cell in parts):
        return ""
    text = ""
    for literal, cell in parts:
        if not literal.isspace() or (text and cell != ""):
            text += literal
        text += cell or ""
    return text


def require_text(cell: Any, row: int, column: str) -> str:
    """The cell as text. Raises DataError, with the source's name of the column, if it is neither text nor a number."""
    if cell is not None and not isinstance(cell, str | int | float):
        raise DataError(f"row {row}, column {column}: {describe_cell(cell)}; expected text (see data.columns)")
    return cell_text(cell)


def describe_cell(cell: Any) -> str:
    """
    >>> describe_cell(["x"]), describe_cell({"page": 1})
    ("the list ['x']", "the object {'page': 1}")
    """
    kind = "object" if isinstance(cell, dict) else type(cell).__name__
    shown = _printable(repr(cell))
    return f"the {kind} {shown if len(shown) <= MAX_CELL_SHOWN else shown[:MAX_CELL_SHOWN] + '…'}"
