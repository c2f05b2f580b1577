"""The columns that the first row of a CSV file or a spreadsheet names."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipeline.errors import DataError
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)
MAX_COLUMNS = 1 << 14  # of an Excel sheet; a file with more is something else, and would fill the memory


class Column(NamedTuple):
    name: str
    is_named: bool = True  # False: the header's cell is empty, and the name is made of the column's number


def columns_of_header(cells: Sequence[str], name: str) -> list[Column]:
    """The columns, with spaces around their names removed; equal names get numbers. Raises DataError if there are too many.

    >>> [column.name for column in columns_of_header(["question", " answer", "", "note", "note"], "rows.csv")]
    ['question', 'answer', 'column_3', 'note_1', 'note_2']
    """
    if len(cells) > MAX_COLUMNS:
        raise DataError(f"{name}: {len(cells):,} columns; expected at most {MAX_COLUMNS:,}: is a line break missing?")
    texts = _number_equal_names([cell.strip() for cell in cells], name)
    columns = [Column(text or f"column_{number}", bool(text)) for number, text in enumerate(texts, start=1)]
    require_unique_names([column.name for column in columns], name)
    return columns


def _number_equal_names(names: list[str], name: str) -> list[str]:
    """The names; if several columns have one, as in exports of ticket systems, each of them with a number."""
    counts, seen = Counter(names), Counter[str]()
    numbered = []
    for text in names:
        seen[text] += 1
        numbered.append(f"{text}_{seen[text]}" if text and counts[text] > 1 else text)
    if changed := [new for text, new in zip(names, numbered, strict=True) if new != text]:
        log.info(f"{name}: columns of the same name are called {format_names(changed)}")
    return numbered


def log_unnamed_columns(columns: Sequence[Column], with_values: Iterable[str], name: str) -> None:
    """Log which columns without a name were read, because they have values, and which were left out."""
    unnamed = [column.name for column in columns if not column.is_named]
    if kept := [column for column in unnamed if column in set(with_values)]:
        log.info(f"{name}: columns without a name in the header are called {format_names(kept)}")
    if left_out := len(unnamed) - len(kept):
        log.info(f"{name}: left out {left_out} empty column{'s' * (left_out > 1)} without a name")


def require_unique_names(names: list[str], name: str) -> None:
    if duplicates := [key for key, count in Counter(names).items() if count > 1]:
        raise DataError(f"{name}: more than one column is called {format_names(duplicates)}; expected each name once")
