"""Chooses the columns: those that --columns names, else those detected by name, else a guess to confirm."""

from typing import Any

import pyarrow as pa
import yaml

from pipeline.core.console import preview, printable
from pipeline.errors import ConfigError, DataError
from pipeline.records.columns import ColumnMapping, resolve_columns
from pipeline.records.detection import find_matches, normalize_name, referenced_columns
from pipeline.records.json_cells import to_python
from pipeline.records.suggestions import SAMPLE_ROWS, suggest_columns
from pipeline.records.tasks import MAX_NAMES_SHOWN, format_names, task_of_mapping
from pipeline.start.questions import Questions

EXPECTED = "expected a mapping such as '{question: Title, answer: Reply}'"
TITLES = (
    "subject",
    "title",
    "betreff",
    "titel",
    "summary",
    "headline",
    "asunto",
    "título",
    "objet",
    "oggetto",
    "onderwerp",
)


def parse_columns(text: str) -> dict[str, str]:
    """The mapping that --columns holds. Raises ConfigError if it is none."""
    try:
        columns = yaml.safe_load(text)
    except yaml.YAMLError:
        columns = None
    if not isinstance(columns, dict) or not columns:
        raise ConfigError(f"--columns: {text!r} is not a mapping; {EXPECTED}. Names with braces or colons need quotes")
    if wrong := [key for key, value in columns.items() if not isinstance(key, str) or not isinstance(value, str)]:
        raise ConfigError(
            f"--columns: the value of {wrong[0]} is not a name; {EXPECTED}. Names with braces need quotes"
        )
    return columns


def choose_columns(table: pa.Table, given: dict[str, str] | None, questions: Questions) -> ColumnMapping:
    """The mapping for the rows. Raises DataError if a given name is not there, or nothing can be learned from the rows."""
    names: list[str] = table.column_names
    sample = table.slice(0, SAMPLE_ROWS)
    if given is not None:
        return resolve_columns(names, given, sample)
    matches = find_matches(names)
    if len(matches) == 1:
        return ColumnMapping(*matches[0])
    if matches:
        options = [ColumnMapping(*match) for match in matches]
        chosen = questions.choose("The columns fit more than one task.", [_describe(option) for option in options])
        return options[chosen]._replace(reason="chosen among several")
    guess = _with_title(suggest_columns(names, sample), names, sample)
    if not guess:
        raise DataError(f"no column has text to learn from; the source has {format_names(names)}")
    if questions.is_interactive:
        print("\n".join(_first_cells(names, sample)))
    mapping = ColumnMapping(task_of_mapping(guess), guess, "chosen by their contents")
    if questions.confirm(f"Columns: {_describe(mapping)}. Is that right?", default=True):
        return mapping
    return _ask_columns(names, sample, questions)


def _ask_columns(names: list[str], sample: pa.Table, questions: Questions) -> ColumnMapping:
    while True:
        answer = questions.read_text("Mapping, such as {question: Title, answer: Reply}: ")
        try:
            return resolve_columns(names, parse_columns(answer if answer.startswith("{") else f"{{{answer}}}"), sample)
        except (ConfigError, DataError) as error:
            print(printable(str(error)))


def _first_cells(names: list[str], sample: pa.Table) -> list[str]:
    """The columns, each with its first cell."""
    cells = {
        name: next((str(cell) for cell in to_python(sample.column(name)) if cell), "")
        for name in names[:MAX_NAMES_SHOWN]
    }
    more = [f"  and {len(names) - MAX_NAMES_SHOWN:,} more"] if len(names) > MAX_NAMES_SHOWN else []
    return [
        "The columns, each with its first cell:",
        *(f"  {preview(f'{name}: {cell}', 100)}" for name, cell in cells.items()),
        *more,
    ]


def _describe(mapping: ColumnMapping) -> str:
    return f"{mapping.task.name}: " + ", ".join(f"{name} ← {value!r}" for name, value in mapping.columns.items())


def _with_title(columns: dict[str, str], names: list[str], sample: pa.Table) -> dict[str, str]:
    """The mapping with a column of titles put before the question: a ticket's subject and body are one question."""
    if "question" not in columns:
        return columns
    used = {name for value in columns.values() for name in referenced_columns(value)}
    title = next(
        (name for name in names if normalize_name(name) in TITLES and name not in used and _has_texts(sample, name)),
        None,
    )
    if title is None or any(character in title for character in "{}"):
        return columns
    body = referenced_columns(columns["question"])[0]
    return {**columns, "question": f"{{{title}}}\n\n{{{body}}}"} if not set("{}") & set(body) else columns


def _has_texts(sample: pa.Table, name: str) -> bool:
    cells: list[Any] = to_python(sample.column(name))
    texts = {cell for cell in cells if isinstance(cell, str) and cell.strip()}
    return len(texts) > 1 or (len(cells) == 1 and bool(texts))
