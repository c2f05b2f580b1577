"""The groups of format.group: rows with the same value in a column of the source stay in the same split."""

import json
from collections.abc import Iterator
from typing import Any

from pipeline.core.files import ParquetReader
from pipeline.core.paths import RAW_ROWS
from pipeline.errors import DataError
from pipeline.records.columns import column_values
from pipeline.records.detection import referenced_columns
from pipeline.records.suggestions import closest_column
from pipeline.records.tasks import format_names

BATCH_ROWS = 16384
Groups = dict[int, str]  # row id → its group


def read_groups(column: str, ids: list[int], first_test_row: int | None) -> Groups:
    """The group of each row of `ids`. Rows of the user's own test set may have none.

    Raises DataError if the source has no such column, or a row that is to be split has no value in it.
    """
    wanted = set(ids)
    groups = {id: text for id, value in _iter_values(column) if id in wanted and (text := group_key(value))}
    missing = [id for id in ids if id not in groups and (first_test_row is None or id < first_test_row)]
    if missing:
        raise DataError(
            f"format.group: {column} has no value in {len(missing):,} of {len(ids):,} rows, the first is row {missing[0]:,} "
            "(counted from 0). Fill in a value, a different one for each row that belongs to no group, or remove these rows"
        )
    return groups


def _iter_values(column: str) -> Iterator[tuple[int, Any]]:
    reader = ParquetReader(RAW_ROWS)
    names = referenced_columns(column) if column not in reader.column_names else [column]
    for name in names:
        if name not in reader.column_names:
            closest = closest_column(name, reader.column_names)
            hint = f"; did you mean {closest}?" if closest else ""
            raise DataError(
                f"format.group: the source has no column {format_names([name])}{hint} "
                f"It has {format_names(reader.column_names)}"
            )
    first_row = 0
    for table in reader.iter_tables(names, BATCH_ROWS):
        yield from enumerate(column_values(table, column, first_row), start=first_row)
        first_row += table.num_rows


def group_key(value: Any) -> str:
    """The value as text; empty if there is none.

    >>> group_key(7), group_key(7.0), group_key(float("nan")), group_key(" "), group_key(["b", {"a": 1}])
    ('7', '7', '', '', '["b", {"a": 1}]')
    """
    if value is None or value != value or value in ([], {}):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list | dict):
        return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return str(value).strip()
