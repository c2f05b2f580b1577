"""Tables in the formats that people keep rows in, read a few thousand rows at a time.

A reader takes a stream and yields tables; what is wrong is a DataError that names the file and the line or row.
"""

import csv
import re
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.files import decode_utf8, parse_json_object
from pipeline.errors import DataError
from pipeline.fetch.json_list import iter_json_list
from pipeline.fetch.streams import CORRUPTION_ERRORS, FORMATS, format_and_compression
from pipeline.records.tasks import format_names

Types = dict[str, pa.DataType]  # of the columns so far
Row = TypeVar("Row")
ROWS, BYTES = 4096, 1 << 24  # of a table that is read at once: whichever comes first
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
END_MARK = b"\xff\xff\xff\xff\0\0\0\0"
UNFIT = (pa.ArrowException, UnicodeEncodeError, OverflowError, RecursionError)  # what no column holds


def read_tables(stream: Any, name: str, limit: int | None, types: Types) -> Iterator[pa.Table]:
    """The (first `limit`) rows; `types` has the columns' types in the tables before and is brought up to date."""
    kind = format_and_compression(name)[0]
    if kind is None:
        raise DataError(f"{name}: unknown ending; expected one of {', '.join(FORMATS)}, packed or not")
    done = 0
    try:
        for table in _READERS[kind](stream, name, limit, types):
            part = table.slice(0, None if limit is None else limit - done).replace_schema_metadata(None)
            _require_sound(part, name, done, types)
            done += part.num_rows
            yield part
            if done == limit:
                return
    except CORRUPTION_ERRORS as error:
        where = f"{name}, after row {done}" if done else name
        raise DataError(f"{where}: not a table that {kind} holds: {error}; write the file anew") from None


def concat_tables(tables: list[pa.Table]) -> pa.Table:
    """One table of all rows; a column that some lack is null there."""
    try:
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    except pa.ArrowException as error:
        raise DataError(f"data: the rows do not go into one table: {error}; expected one type a column") from None


def _chunks(rows: Iterable[tuple[int, Row]], limit: int | None) -> Iterator[list[Row]]:
    """(size, row) → rows, so many that they are neither many nor big."""
    chunk: list[Row] = []
    size = 0
    for length, row in islice(rows, limit):
        chunk.append(row)
        size += length
        if len(chunk) == ROWS or size > BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _lines(stream: Any, name: str) -> Iterator[tuple[int, bytes]]:
    r"""(number from 1, line): lines end at \n alone; str.splitlines would also cut at what JSON leaves as it is."""
    number = 0
    try:
        for number, line in enumerate(stream, start=1):
            yield number, line
    except CORRUPTION_ERRORS as error:
        raise DataError(f"{name}, after line {number}: damaged or cut short ({error}); write the file anew") from None


def _jsonl(stream: Any, name: str, limit: int | None, types: Types) -> Iterator[pa.Table]:
    lines = ((number, line) for number, line in _lines(stream, name) if line.strip())
    yield from _from_objects(
        ((len(x), parse_json_object(x, f"{name}, line {n}")) for n, x in lines), name, limit, types
    )


def _json(stream: Any, name: str, limit: int | None, types: Types) -> Iterator[pa.Table]:
    yield from _from_objects(iter_json_list(stream, name), name, limit, types)


def _from_objects(
    rows: Iterable[tuple[int, dict[str, Any]]], name: str, limit: int | None, types: Types
) -> Iterator[pa.Table]:
    first, names = 0, dict[str, None]()
    for objects in _chunks(rows, limit):
        names |= dict.fromkeys(key for each in objects for key in each)
        if not names:
            raise DataError(f"{name}, row {first + 1}: an object without keys; expected the columns' names")
        columns = [_column(key, [each.get(key) for each in objects], name, first, types) for key in names]
        yield pa.table(columns, names=list(names))
        first += len(objects)


def _column(key: str, values: list[Any], name: str, first: int, types: Types) -> pa.Array:
    """One type a column; DataError names the first row whose value does not go with those before it."""
    try:
        return _fitting(key, values, types)
    except UNFIT as error:
        fault = error
    at = bisect_left(range(len(values)), True, key=lambda row: _is_unfit(key, values[: row + 1], types))
    raise DataError(
        f"{name}, row {first + at + 1}: column {ascii(key)[1:-1]} holds {_shown(values[at])}, which does not go with the "
        f"rows before it or into no table ({fault}); expected one type a column, text in UTF-8"
    )


def _fitting(key: str, values: list[Any], types: Types) -> pa.Array:
    key.encode()  # a column's name is text, too
    array = pa.array(values)
    _merged(types.get(key), array.type)
    return array


def _is_unfit(key: str, values: list[Any], types: Types) -> bool:
    try:
        _fitting(key, values, types)
    except UNFIT:
        return True
    return False


def _merged(one: pa.DataType | None, other: pa.DataType) -> pa.DataType:
    if one is None or one == other:
        return other
    schemas = [pa.schema([("both", each)]) for each in (one, other)]
    return pa.unify_schemas(schemas, promote_options="permissive").field(0).type


def _shown(value: Any) -> str:
    text = ascii(value)
    return f"a {type(value).__name__}, {text if len(text) <= 60 else text[:57] + '...'}"


def _csv(stream: Any, name: str, limit: int | None, types: Types, delimiter: str = ",") -> Iterator[pa.Table]:
    """Every cell as the text it is: libraries that guess types take "NA", "1e5" and "007" for something else."""
    csv.field_size_limit(sys.maxsize)
    rows = _cells(csv.reader(_texts(stream, name), delimiter=delimiter, strict=True), name)
    names = next(rows, (0, []))[1]
    if not names:
        raise DataError(f"{name} is empty; expected a first line with the names of the columns")
    _require_once(names, name)
    schema = pa.schema([(each, pa.string()) for each in names])
    yield schema.empty_table()
    for cells in _chunks(rows, limit):
        yield pa.table([pa.array(column, pa.string()) for column in zip(*cells, strict=True)], schema=schema)


def _tsv(stream: Any, name: str, limit: int | None, types: Types) -> Iterator[pa.Table]:
    yield from _csv(stream, name, limit, types, delimiter="\t")


def _texts(stream: Any, name: str) -> Iterator[str]:
    for number, line in _lines(stream, name):
        text = decode_utf8(line, f"{name}, line {number}")
        yield from LINE.findall(text) if "\r" in text[:-2] else (text,)


def _cells(reader: Any, name: str) -> Iterator[tuple[int, list[str]]]:
    """(size, cells) of each row that is no blank line, all as wide as the first."""
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


def _parquet(stream: Any, name: str, limit: int | None, types: Types) -> Iterator[pa.Table]:
    file = pq.ParquetFile(stream)
    yield file.schema_arrow.empty_table()
    for group in range(file.num_row_groups):  # one by one: of all together Arrow would fetch all at once
        for batch in file.iter_batches(batch_size=min(1024, limit or 1024), row_groups=[group]):
            yield pa.Table.from_batches([batch])


def _arrow(stream: Any, name: str, limit: int | None, types: Types) -> Iterator[pa.Table]:
    """Both forms: the file (Feather, too), and the stream, as `datasets` writes it."""
    magic = stream.read(6)
    if magic == b"ARROW1":
        stream.seek(0)
        file = pa.ipc.open_file(stream)
        batches: Any = (file.get_batch(number) for number in range(file.num_record_batches))
        yield file.schema.empty_table()
    else:
        stream.seek(-min(len(END_MARK), stream.seek(0, 2)), 2)
        if stream.read() != END_MARK:
            raise DataError(f"{name}: not a table that .arrow holds, or cut short; write the file anew")
        stream.seek(0)
        batches = pa.ipc.open_stream(stream)
        yield batches.schema.empty_table()
    for batch in batches:
        yield pa.Table.from_batches([batch])


def _require_sound(table: pa.Table, name: str, first: int, types: Types) -> None:
    """Raise DataError where columns share a name, change their type, or hold text that is not UTF-8."""
    _require_once(table.column_names, name)
    for field in table.schema:
        try:
            types[field.name] = _merged(types.get(field.name), field.type)
        except pa.ArrowException:
            raise DataError(
                f"{name}: column {field.name} holds {field.type}, in the files before it {types[field.name]}; "
                "expected one type a column"
            ) from None
    if _is_unsound(table):
        at = bisect_left(range(table.num_rows), True, key=lambda row: _is_unsound(table.slice(0, row + 1)))
        bad = [key for key in table.column_names if _is_unsound(table.select([key]))]
        raise DataError(
            f"{name}, row {first + at + 1}: column {format_names(bad)} holds what is no text in UTF-8, or damaged"
        )


def _is_unsound(table: pa.Table) -> bool:
    try:
        table.validate(full=True)
    except pa.ArrowException:
        return True
    return False


def _require_once(names: list[str], name: str) -> None:
    if doubled := [key for key, count in Counter(names).items() if count > 1]:
        raise DataError(f"{name}: more than one column is called {format_names(doubled)}; expected each name once")


_READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _tsv, ".parquet": _parquet, ".arrow": _arrow}
