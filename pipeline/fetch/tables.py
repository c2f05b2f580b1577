"""Reads tables in the usual file formats, a few thousand rows at a time.

A reader takes a stream and yields tables. Errors are DataErrors that name the file and the line or row.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.config.sources import FileRows
from pipeline.errors import DataError
from pipeline.fetch.arrow_tables import read_arrow, read_parquet_tables
from pipeline.fetch.delimited import read_delimited
from pipeline.fetch.json_rows import iter_json_rows
from pipeline.fetch.spreadsheet import read_spreadsheet
from pipeline.fetch.streams import CORRUPTION_ERRORS, FORMATS, SPREADSHEET_FORMATS, format_and_compression
from pipeline.fetch.table_builder import tables_of_objects
from pipeline.fetch.text_streams import utf8_stream


class ReadOptions(NamedTuple):
    """The keys of the data section that say how files are read; null: detect."""

    delimiter: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    field: str | None = None
    columns: dict[str, str] | None = None


def read_options(source: FileRows) -> ReadOptions:
    return ReadOptions(source.delimiter, source.encoding, source.sheet, source.field, source.columns)


def read_tables(stream: Any, name: str, limit: int | None, options: ReadOptions | None = None) -> Iterator[pa.Table]:
    """Yield the (first `limit`) rows of a file in tables.

    Raises DataError if the file is not in the format of its extension.
    """
    kind = format_and_compression(name)[0]
    if kind is None:
        raise DataError(f"{name}: unknown extension; expected one of {', '.join(FORMATS)}, compressed or not")
    rows = 0
    try:
        for table in _read(kind, stream, name, limit, options or ReadOptions()):
            yield table
            rows += table.num_rows
    except CORRUPTION_ERRORS as error:
        where = f"{name}, after row {rows}" if rows else name
        raise DataError(f"{where}: not a valid {kind} file: {error}; write the file again") from None


def _read(kind: str, stream: Any, name: str, limit: int | None, options: ReadOptions) -> Iterator[pa.Table]:
    if kind == ".parquet":
        return read_parquet_tables(stream, name, limit)
    if kind == ".arrow":
        return read_arrow(stream, name, limit)
    if kind in SPREADSHEET_FORMATS:
        return read_spreadsheet(stream, name, limit, options.sheet)
    text = utf8_stream(stream, name, options.encoding)
    if kind in (".csv", ".tsv"):
        return read_delimited(text, name, limit, "," if kind == ".csv" else "\t", options.delimiter)
    return tables_of_objects(iter_json_rows(text, name, options.field, options.columns), name, limit)
