"""Reads delimited text: CSV, TSV and their relatives.

Every cell is text: libraries that guess types misread "NA", "1e5" and "007". The separator is `data.delimiter`, else that of
Excel's first line `sep=;`, else the one that fits the column names and the first rows. A separator that is not the extension's
own is logged.
"""

import csv
import logging
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.errors import DataError
from pipeline.fetch.header import Column, columns_of_header, log_unnamed_columns
from pipeline.fetch.streams import MAX_ROW_BYTES, iter_lines, row_size_error
from pipeline.fetch.table_builder import chunked
from pipeline.fetch.text_streams import decode_line
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SEPARATOR_NAMES = {"tab": "\t", "\\t": "\t"}  # for the command line
SAMPLE_LINES, SAMPLE_CHARACTERS = 1000, 1 << 18  # of the file, to find the dialect
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
SEPARATOR_LINE = re.compile(r'"?sep=(?P<separator>[^\r\n])"?[\s,;|]*', re.IGNORECASE)
Rows = Iterator[tuple[int, list[str]]]


class Dialect(NamedTuple):
    """How the cells are separated."""

    separator: str
    skip_spaces: bool = False  # after a separator, as in `question, answer`
    has_quotes: bool = True  # False: quotes are letters, as in many tab-separated files

    def read(self, lines: Iterable[str]) -> Any:
        return csv.reader(
            lines,
            delimiter=self.separator,
            skipinitialspace=self.skip_spaces,
            quoting=csv.QUOTE_MINIMAL if self.has_quotes else csv.QUOTE_NONE,
            strict=True,
        )


def read_delimited(
    stream: Any, name: str, limit: int | None, own_separator: str, delimiter: str | None
) -> Iterator[pa.Table]:
    """Yield the rows in tables, after one without rows. `own_separator` is the extension's, `delimiter` data.delimiter.

    Raises DataError, with the line, if the text is not UTF-8 or a row does not have one cell for each column.
    """
    csv.field_size_limit(MAX_ROW_BYTES)
    lines = _text_lines(stream, name)
    sample = list(_take_sample(lines))
    given, skipped = SEPARATOR_NAMES.get(delimiter or "", delimiter), 0
    if sample and (match := SEPARATOR_LINE.fullmatch(sample[0])):
        given, skipped = given or match["separator"], 1
    dialect = _detect_dialect(sample[skipped:], given, own_separator, name)
    _log_dialect(dialect, own_separator if delimiter is None else dialect.separator, name)
    rows = _rows(dialect.read(chain(sample[skipped:], lines)), name, skipped)
    header = next((row for _, row in rows if any(map(str.strip, row))), None)
    if header is None:
        raise DataError(f"{name} is empty; expected a first line with the names of the columns")
    columns = columns_of_header(header, name)
    yield pa.schema([(column.name, pa.string()) for column in columns if column.is_named]).empty_table()
    with_text = dict[str, None]()
    for cells in chunked(_fitted_rows(rows, header, dialect, name), limit):
        table = _table(cells, columns)
        with_text |= dict.fromkeys(table.column_names)
        yield table
    log_unnamed_columns(columns, with_text, name)


def _table(rows: list[list[str]], columns: list[Column]) -> pa.Table:
    """The rows as a table, without the nameless columns that have no text in them."""
    cells = dict(zip(columns, zip(*rows, strict=True), strict=True))
    return pa.table(
        {
            column.name: pa.array(values, pa.string())
            for column, values in cells.items()
            if column.is_named or any(values)
        }
    )


def _text_lines(stream: Any, name: str) -> Iterator[str]:
    for number, line in iter_lines(stream, name):
        text = decode_line(line, name, number)
        yield from LINE.findall(text) if "\r" in text[:-2] else (text,)


def _take_sample(lines: Iterator[str]) -> Iterator[str]:
    characters = 0
    for number, line in enumerate(lines, start=1):
        yield line
        characters += len(line)
        if number == SAMPLE_LINES or characters > SAMPLE_CHARACTERS:
            return


def _detect_dialect(lines: list[str], given: str | None, own_separator: str, name: str) -> Dialect:
    """The dialect that fits most of the first rows, with more than one column if any has; of equals, the extension's."""
    separators = [given] if given else list(dict.fromkeys((own_separator, *SEPARATORS)))
    candidates = [Dialect(separator, _has_spaces(separator, lines)) for separator in separators]
    candidates += [Dialect("\t", has_quotes=False)] if "\t" in separators else []
    fits = {dialect: _fit(dialect, lines) for dialect in candidates}
    best = max(fits, key=lambda dialect: fits[dialect])
    equals = [dialect.separator for dialect, fit in fits.items() if fit == fits[best] > 0]
    if len(others := set(equals) - {best.separator}):
        log.warning(
            f"{name}: the first rows can be separated by {' or '.join(map(_describe, dict.fromkeys(equals)))}; using "
            f"{_describe(best.separator)}. To choose: {_override(min(others))}"
        )
    return best


def _log_dialect(dialect: Dialect, expected: str, name: str) -> None:
    if dialect.separator != expected:
        log.info(f"{name}: the columns are separated by {_describe(dialect.separator)}")
    if dialect.skip_spaces:
        log.info(f"{name}: a space follows each separator, so spaces at the start of a cell are left out unless quoted")
    if not dialect.has_quotes:
        log.info(f"{name}: quotes do not enclose cells, so they are read as they are")


def _has_spaces(separator: str, lines: list[str]) -> bool:
    """Whether all names of columns but the first begin with a space, so that it belongs to the separator."""
    others = next(_sample(Dialect(separator), lines), [])[1:]
    return bool(others) and all(cell.startswith(" ") for cell in others)


def _fit(dialect: Dialect, lines: list[str]) -> float:
    """The share of the first rows that have one cell for each column; 0 if there is only one, half if only one has a name."""
    rows = _sample(dialect, lines)
    header = next(rows, [])
    if len(header) < 2:
        return 0
    fits = [fit_row(row, header) is not None for row in rows]
    share = sum(fits) / len(fits) if fits else 1
    return share if sum(map(bool, map(str.strip, header))) > 1 else share / 2


def _sample(dialect: Dialect, lines: list[str]) -> Iterator[list[str]]:
    """The first rows that have text. Where the quotes do not fit the dialect, they end with a row without cells."""
    try:
        for row in dialect.read(lines):
            if any(map(str.strip, row)):
                yield row
    except csv.Error as error:
        is_cut = sum(map(len, lines)) > SAMPLE_CHARACTERS or len(lines) >= SAMPLE_LINES - 1
        if not (is_cut and "unexpected end" in str(error)):
            yield []


def fit_row(row: list[str], header: list[str]) -> list[str] | None:
    """The row with one cell for each cell of the header, if only empty cells or nameless columns make the difference.

    >>> fit_row(["a", "b", "", ""], ["question", "answer", ""]), fit_row(["a", "b"], ["question", "answer", ""])
    (['a', 'b', ''], ['a', 'b', ''])
    >>> fit_row(["a"], ["question", "answer"]) is None
    True
    """
    width, cells = len(header), len(row)
    if cells == width:
        return row
    if cells > width:
        return None if any(row[width:]) else row[:width]
    return None if any(header[cells:]) else row + [""] * (width - cells)


def _rows(reader: Any, name: str, skipped: int) -> Rows:
    """(number of the first line, cells) of each row. Skips blank lines."""
    first_line = 1 + skipped
    try:
        for row in reader:
            if row:
                yield first_line, row
            first_line = reader.line_num + 1 + skipped
    except csv.Error as error:
        if "field limit" in str(error):
            raise row_size_error(f"{name}, line {first_line}") from None
        reason = "a quote that begins there is not closed" if "unexpected end" in str(error) else error
        raise DataError(f"{name}, line {first_line}: not CSV ({reason}); double the quotes within a cell") from None


def _fitted_rows(rows: Rows, header: list[str], dialect: Dialect, name: str) -> Rows:
    """(size, cells) of each row. Raises DataError if a row does not have one cell for each column."""
    width = len(header)
    for line, row in rows:
        cells = row if len(row) == width else fit_row(row, header)
        if cells is None:
            if len(row) == 1 and not row[0].strip(" \t\x1a"):  # a blank line, or the mark that DOS ends a file with
                continue
            raise _width_error(f"{name}, line {line}", len(row), header, dialect)
        yield sum(map(len, cells)) + 8 * width, cells


def _width_error(location: str, cells: int, header: list[str], dialect: Dialect) -> DataError:
    separator = _describe(dialect.separator)
    if len(header) == 1:
        advice = (
            f"Put quotes around text that contains {separator}, or set data.delimiter=tab to read each line as one cell"
        )
    else:
        advice = f"Put quotes around a cell that contains {separator} or line breaks"
    count = f"{cells} cell{'s' * (cells != 1)}"
    expected = f"{len(header)}, one for each column ({format_names(header)}), separated by {separator}"
    return DataError(f"{location}: {count}; expected {expected}. {advice}")


def _override(separator: str) -> str:
    r"""The override that sets data.delimiter, as a shell and Hydra need it.

    >>> _override(";"), _override("\t")
    ('-S "data.delimiter=\';\'"', '-S data.delimiter=tab')
    """
    return "-S data.delimiter=tab" if separator == "\t" else f"-S \"data.delimiter='{separator}'\""


def _describe(separator: str) -> str:
    return SEPARATORS.get(separator, repr(separator))
