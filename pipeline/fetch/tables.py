"""Reads tables in the usual file formats, a few thousand rows at a time.

A reader takes a stream and yields tables. Errors are DataErrors that name the file and the line or row.
"""

import csv
import re
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.files import decode_utf8, parse_json_object
from pipeline.errors import DataError
from pipeline.fetch.json_list import iter_json_list
from pipeline.fetch.streams import CORRUPTION_ERRORS, FORMATS, format_and_compression
from pipeline.records.tasks import format_names

ColumnTypes = dict[str, pa.DataType]  # of the columns so far
RowT = TypeVar("RowT")
MAX_ROWS, MAX_BYTES = 4096, 1 << 24  # of a table that is read at once
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # Arrow's
# What Arrow raises for values that no column can hold.
CONVERSION_ERRORS = (pa.ArrowException, UnicodeEncodeError, OverflowError, RecursionError)


def read_tables(stream: Any, name: str, limit: int | None, types: ColumnTypes) -> Iterator[pa.Table]:
    """Yield the (first `limit`) rows of a file in tables.

    `types` holds the columns' types in the tables before, of this file or others, and is updated. Raises DataError if the
    file is not in the format of its extension or if its columns do not match `types`.
    """
    kind = format_and_compression(name)[0]
    if kind is None:
        raise DataError(f"{name}: unknown extension; expected one of {', '.join(FORMATS)}, compressed or not")
    rows = 0
    try:
        for table in _READERS[kind](stream, name, limit, types):
            part = table.slice(0, None if limit is None else limit - rows).replace_schema_metadata(None)
            _require_valid(part, name, rows, types)
            rows += part.num_rows
            yield part
            if rows == limit:
                return
    except CORRUPTION_ERRORS as error:
        where = f"{name}, after row {rows}" if rows else name
        raise DataError(f"{where}: not a valid {kind} file: {error}; write the file again") from None


def concat_tables(tables: list[pa.Table]) -> pa.Table:
    """One table of all rows; a column that some tables lack is null there."""
    try:
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    except pa.ArrowException as error:
        raise DataError(f"data: the rows do not fit into one table: {error}; expected one type per column") from None


def _chunks(rows: Iterable[tuple[int, RowT]], limit: int | None) -> Iterator[list[RowT]]:
    """(size, row) → lists of rows, each of at most MAX_ROWS rows and about MAX_BYTES bytes."""
    chunk: list[RowT] = []
    chunk_size = 0
    for size, row in islice(rows, limit):
        chunk.append(row)
        chunk_size += size
        if len(chunk) == MAX_ROWS or chunk_size > MAX_BYTES:
            yield chunk
            chunk, chunk_size = [], 0
    if chunk:
        yield chunk


def _lines(stream: Any, name: str) -> Iterator[tuple[int, bytes]]:
    r"""(number from 1, line). Lines end at \n only: str.splitlines would also split at characters that JSON allows."""
    number = 0
    try:
        for number, line in enumerate(stream, start=1):
            yield number, line
    except CORRUPTION_ERRORS as error:
        raise DataError(f"{name}, after line {number}: damaged or cut short ({error}); write the file again") from None


def _read_jsonl(stream: Any, name: str, limit: int | None, types: ColumnTypes) -> Iterator[pa.Table]:
    lines = ((number, line) for number, line in _lines(stream, name) if line.strip())
    objects = ((len(line), parse_json_object(line, f"{name}, line {number}")) for number, line in lines)
    yield from _tables_of_objects(objects, name, limit, types)


def _read_json(stream: Any, name: str, limit: int | None, types: ColumnTypes) -> Iterator[pa.Table]:
    yield from _tables_of_objects(iter_json_list(stream, name), name, limit, types)


def _tables_of_objects(
    rows: Iterable[tuple[int, dict[str, Any]]], name: str, limit: int | None, types: ColumnTypes
) -> Iterator[pa.Table]:
    first_row, keys = 0, dict[str, None]()
    for objects in _chunks(rows, limit):
        keys |= dict.fromkeys(key for row in objects for key in row)
        if not keys:
            raise DataError(f"{name}, row {first_row + 1}: an object without keys; expected the names of the columns")
        columns = [_column(key, [row.get(key) for row in objects], name, first_row, types) for key in keys]
        yield pa.table(columns, names=list(keys))
        first_row += len(objects)


def _column(key: str, values: list[Any], name: str, first_row: int, types: ColumnTypes) -> pa.Array:
    """The values as one type. Raises DataError with the first row whose value does not match those before it."""
    try:
        return _to_array(key, values, types)
    except CONVERSION_ERRORS as error:
        conversion_error = error
    at = bisect_left(range(len(values)), True, key=lambda row: not _is_convertible(key, values[: row + 1], types))
    raise DataError(
        f"{name}, row {first_row + at + 1}: column {ascii(key)[1:-1]} holds {_preview(values[at])}, which does not match "
        f"the rows before it or fits no column ({conversion_error}); expected one type per column, text in UTF-8"
    )


def _to_array(key: str, values: list[Any], types: ColumnTypes) -> pa.Array:
    key.encode()  # a name that is not UTF-8 fits no table either
    array = pa.array(values)
    _common_type(types.get(key), array.type)
    return array


def _is_convertible(key: str, values: list[Any], types: ColumnTypes) -> bool:
    try:
        _to_array(key, values, types)
    except CONVERSION_ERRORS:
        return False
    return True


def _common_type(one: pa.DataType | None, other: pa.DataType) -> pa.DataType:
    if one is None or one == other:
        return other
    schemas = [pa.schema([("both", kind)]) for kind in (one, other)]
    return pa.unify_schemas(schemas, promote_options="permissive").field(0).type


def _preview(value: Any) -> str:
    text = ascii(value)
    return f"a {type(value).__name__}, {text if len(text) <= 60 else text[:57] + '...'}"


def _read_csv(
    stream: Any, name: str, limit: int | None, types: ColumnTypes, delimiter: str = ","
) -> Iterator[pa.Table]:
    """Every cell as text: libraries that guess types misread "NA", "1e5" and "007"."""
    csv.field_size_limit(sys.maxsize)
    rows = _csv_rows(csv.reader(_csv_lines(stream, name), delimiter=delimiter, strict=True), name)
    names = next(rows, (0, []))[1]
    if not names:
        raise DataError(f"{name} is empty; expected a first line with the names of the columns")
    _require_unique_names(names, name)
    schema = pa.schema([(column, pa.string()) for column in names])
    yield schema.empty_table()
    for cells in _chunks(rows, limit):
        yield pa.table([pa.array(column, pa.string()) for column in zip(*cells, strict=True)], schema=schema)


def _read_tsv(stream: Any, name: str, limit: int | None, types: ColumnTypes) -> Iterator[pa.Table]:
    yield from _read_csv(stream, name, limit, types, delimiter="\t")


def _csv_lines(stream: Any, name: str) -> Iterator[str]:
    for number, line in _lines(stream, name):
        text = decode_utf8(line, f"{name}, line {number}")
        yield from LINE.findall(text) if "\r" in text[:-2] else (text,)


def _csv_rows(reader: Any, name: str) -> Iterator[tuple[int, list[str]]]:
    """(size, cells) of each row. Skips blank lines; raises DataError if a row is not as wide as the first."""
    width = 0
    try:
        for row in reader:
            width = width or len(row)
            if row and len(row) != width:
                raise DataError(
                    f"{name}, line {reader.line_num}: {len(row)} cells; expected {width}, as in the first line"
                )
            if row:
                yield sum(map(len, row)) + 8 * width, row
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: not CSV ({error})") from None


def _read_parquet(stream: Any, name: str, limit: int | None, types: ColumnTypes) -> Iterator[pa.Table]:
    file = pq.ParquetFile(stream)
    yield file.schema_arrow.empty_table()
    for group in range(file.num_row_groups):  # one by one: Arrow would prefetch several
        for batch in file.iter_batches(batch_size=min(1024, limit or 1024), row_groups=[group]):
            yield pa.Table.from_batches([batch])


def _read_arrow(stream: Any, name: str, limit: int | None, types: ColumnTypes) -> Iterator[pa.Table]:
    """Both of Arrow's forms: the file (also Feather), and the stream, which `datasets` writes."""
    magic = stream.read(6)
    if magic == b"ARROW1":
        stream.seek(0)
        file = pa.ipc.open_file(stream)
        batches: Any = (file.get_batch(number) for number in range(file.num_record_batches))
        yield file.schema.empty_table()
    else:
        stream.seek(-min(len(END_OF_STREAM), stream.seek(0, 2)), 2)
        if stream.read() != END_OF_STREAM:
            raise DataError(f"{name}: not a valid .arrow file, or cut short; write the file again")
        stream.seek(0)
        batches = pa.ipc.open_stream(stream)
        yield batches.schema.empty_table()
    for batch in batches:
        yield pa.Table.from_batches([batch])


def _require_valid(table: pa.Table, name: str, first_row: int, types: ColumnTypes) -> None:
    """Raise DataError if columns share a name, change their type, or hold text that is not UTF-8; update `types`."""
    _require_unique_names(table.column_names, name)
    for field in table.schema:
        try:
            types[field.name] = _common_type(types.get(field.name), field.type)
        except pa.ArrowException:
            raise DataError(
                f"{name}: column {field.name} holds {field.type}, but {types[field.name]} in the files before it; "
                "expected one type per column"
            ) from None
    if not _is_valid(table):
        at = bisect_left(range(table.num_rows), True, key=lambda row: not _is_valid(table.slice(0, row + 1)))
        invalid = [key for key in table.column_names if not _is_valid(table.select([key]))]
        raise DataError(
            f"{name}, row {first_row + at + 1}: column {format_names(invalid)} holds text that is not UTF-8, or is damaged"
        )


def _is_valid(table: pa.Table) -> bool:
    try:
        table.validate(full=True)
    except pa.ArrowException:
        return False
    return True


def _require_unique_names(names: list[str], name: str) -> None:
    if duplicates := [key for key, count in Counter(names).items() if count > 1]:
        raise DataError(f"{name}: more than one column is called {format_names(duplicates)}; expected each name once")


_READERS: dict[str, Callable[[Any, str, int | None, ColumnTypes], Iterator[pa.Table]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}
