"""Reads a sheet of a workbook: Excel's .xlsx and .xls, and .ods.

The first row with text is the header. Formulas count as their stored results. Numbers without decimals become integers, dates
become text such as 2024-12-31. A cell that is merged downwards has its value in each of its rows.
"""

import datetime
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import DataError
from pipeline.fetch.header import columns_of_header, log_unnamed_columns
from pipeline.fetch.table_builder import MAX_ROWS, column_of
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)
Rows = list[list[Any]]
ENCRYPTED = "EncryptedPackage".encode("utf-16-le")  # within a workbook with a password


def read_spreadsheet(stream: Any, name: str, limit: int | None, sheet: str | None) -> Iterator[pa.Table]:
    """Yield the (first `limit`) rows of a sheet in tables, after one without rows. `sheet` is data.sheet.

    Raises DataError if the file is no workbook, is protected by a password, or has no such sheet.
    """
    header, *body = _read_rows(stream, name, sheet)
    columns = columns_of_header(header, name)
    values = [_column_values([row[number] for row in body]) for number in range(len(columns))]
    with_values = [
        column.name for column, cells in zip(columns, values, strict=True) if any(c is not None for c in cells)
    ]
    kept = {
        column.name: cells
        for column, cells in zip(columns, values, strict=True)
        if column.is_named or column.name in with_values
    }
    log_unnamed_columns(columns, with_values, name)
    yield pa.table({column: pa.nulls(0) for column in kept})
    end = len(body) if limit is None else min(limit, len(body))
    for start in range(0, end, MAX_ROWS):
        stop = min(start + MAX_ROWS, end)
        yield pa.table({column: column_of(cells[start:stop]) for column, cells in kept.items()})


def _read_rows(stream: Any, name: str, sheet: str | None) -> Rows:
    """The header and the rows with values, all of the same width; None for empty cells."""
    from python_calamine import CalamineError, CalamineWorkbook, PasswordError

    try:
        workbook = CalamineWorkbook.from_filelike(stream)
        opened = workbook.get_sheet_by_name(_sheet_name(workbook, name, sheet))
        rows = [[_value(cell) for cell in row] for row in opened.to_python(skip_empty_area=False)]
        _fill_merged_cells(rows, opened.merged_cell_ranges or ())
    except PasswordError:
        raise _password_error(name) from None
    except (CalamineError, OSError, ValueError) as error:
        stream.seek(0)
        if ENCRYPTED in stream.read(1 << 20):
            raise _password_error(name) from None
        raise DataError(f"{name}: not a valid workbook ({error}); save it again as .xlsx or .csv") from None
    rows = [row for row in rows if any(cell is not None for cell in row)]
    if not rows:
        raise DataError(f"{name}, sheet {opened.name} is empty; expected a first row with the names of the columns")
    first = min(number for row in rows for number, cell in enumerate(row) if cell is not None)
    rows = _without_titles([row[first:] for row in rows], name)
    return [["" if cell is None else str(cell) for cell in rows[0]], *rows[1:]]


def _without_titles(rows: Rows, name: str) -> Rows:
    """The rows without the lines of a single cell above the names of the columns, such as "Export of May"."""
    start = next((number for number, row in enumerate(rows) if _filled(row) > 1), 0)
    titles = [str(cell) for row in rows[:start] for cell in row if cell is not None]
    is_header = all(cell is None or isinstance(cell, str) for cell in rows[start])
    if not is_header or _filled(rows[start]) < max(map(_filled, rows[start:])):
        return rows
    if not titles or any(" " not in title for title in titles):  # one word could be the name of the only named column
        return rows
    log.info(f"{name}: left out above the names of the columns: {format_names(titles)}")
    return rows[start:]


def _filled(row: list[Any]) -> int:
    return sum(cell is not None for cell in row)


def _password_error(name: str) -> DataError:
    return DataError(f"{name} is protected by a password; save it without one")


def _sheet_name(workbook: Any, name: str, sheet: str | None) -> str:
    """data.sheet, or the first visible sheet with several rows, or with cells. Logs which one is used if there are several."""
    names = workbook.sheet_names
    if sheet is not None:
        if sheet not in names:
            raise DataError(f"data.sheet={sheet}: {name} has no such sheet; its sheets are {format_names(names)}")
        return sheet
    visible = [entry.name for entry in workbook.sheets_metadata if str(entry.visible).endswith("Visible")] or names
    areas = {entry: workbook.get_sheet_by_name(entry) for entry in visible}
    with_cells = [entry for entry, area in areas.items() if area.end]
    with_rows = [entry for entry in with_cells if areas[entry].end[0] > areas[entry].start[0]]
    chosen: str = (with_rows or with_cells or visible)[0]
    if len(names) > 1:
        others = format_names([sheet for sheet in names if sheet != chosen])
        log.info(f"{name}: using the sheet {chosen}. To use another, set data.sheet to its name: {others}")
    return chosen


def _value(cell: Any) -> Any:
    if cell == "":
        return None
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1 << 63:
        return int(cell)
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    return str(cell) if isinstance(cell, datetime.timedelta) else cell


def _column_values(cells: list[Any]) -> list[Any]:
    """The cells of a column; if they are all numbers and some have decimals, all as floats: a workbook knows no integers."""
    kinds = set(map(type, cells)) - {type(None)}
    return [cell if cell is None else float(cell) for cell in cells] if kinds == {int, float} else cells


def _fill_merged_cells(rows: Rows, ranges: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> None:
    """Repeat the value of each merged range in its first column. Across columns it would only repeat a title."""
    for (top, left), (bottom, _) in ranges:
        if top >= len(rows) or left >= len(rows[top]):
            continue
        for row in rows[top + 1 : bottom + 1]:
            row[left] = rows[top][left]
