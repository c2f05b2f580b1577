"""Reads Parquet and Arrow files, and turns Arrow's encodings into the plain types that every later step handles.

Views (polars), dictionaries (pandas' categories), run-end encodings and extension types become the types of their values, nested
ones too. What Parquet cannot store, such as unions, becomes JSON.
"""

import logging
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.fetch.header import require_unique_names
from pipeline.fetch.table_builder import JSON_TYPE, json_array
from pipeline.records.json_cells import parse_json
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # Arrow's
PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # of rows that were selected or shuffled
BATCH_ROWS = 1024
# Types with a plain one of the same values.
PLAIN_TYPES: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType], pa.DataType]], ...] = (
    (pa.types.is_string_view, lambda kind: pa.large_string()),
    (pa.types.is_binary_view, lambda kind: pa.large_binary()),
    (pa.types.is_dictionary, lambda kind: plain_type(kind.value_type)),
    (pa.types.is_run_end_encoded, lambda kind: plain_type(kind.value_type)),
    (lambda kind: isinstance(kind, pa.JsonType), lambda kind: JSON_TYPE),
    (lambda kind: isinstance(kind, pa.Bool8Type), lambda kind: pa.bool_()),
    (lambda kind: isinstance(kind, pa.UuidType), lambda kind: pa.string()),
    (lambda kind: isinstance(kind, pa.BaseExtensionType), lambda kind: plain_type(kind.storage_type)),
    (pa.types.is_fixed_size_list, lambda kind: pa.list_(plain_type(kind.value_type), kind.list_size)),
    (pa.types.is_large_list, lambda kind: pa.large_list(plain_type(kind.value_type))),
    (pa.types.is_large_list_view, lambda kind: pa.large_list(plain_type(kind.value_type))),
    (
        lambda kind: pa.types.is_list(kind) or pa.types.is_list_view(kind),
        lambda kind: pa.list_(plain_type(kind.value_type)),
    ),
    (pa.types.is_map, lambda kind: pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))),
    (pa.types.is_struct, lambda kind: pa.struct([(field.name, plain_type(field.type)) for field in kind])),
)


def read_parquet_tables(stream: Any, name: str, limit: int | None) -> Iterator[pa.Table]:
    """Yield the (first `limit`) rows in tables, after one without rows. Raises DataError if text is not UTF-8."""
    file = pq.ParquetFile(stream)
    size = min(BATCH_ROWS, limit or BATCH_ROWS)
    groups = range(file.num_row_groups)  # one by one: Arrow would prefetch several
    batches = (batch for group in groups for batch in file.iter_batches(batch_size=size, row_groups=[group]))
    yield from _plain_tables(file.schema_arrow, batches, name, limit)


def read_arrow(stream: Any, name: str, limit: int | None) -> Iterator[pa.Table]:
    """Like `read_parquet`, of both of Arrow's forms: the file (also Feather), and the stream, which `datasets` writes."""
    magic = stream.read(6)
    if magic == b"ARROW1":
        stream.seek(0)
        file = pa.ipc.open_file(stream)
        schema, batches = file.schema, (file.get_batch(number) for number in range(file.num_record_batches))
    else:
        stream.seek(-min(len(END_OF_STREAM), stream.seek(0, 2)), 2)
        if stream.read() != END_OF_STREAM:
            raise DataError(f"{name}: not a valid .arrow file, or cut short; write the file again")
        stream.seek(0)
        batches = pa.ipc.open_stream(stream)
        schema = batches.schema
    yield from _plain_tables(schema, batches, name, limit)


def _plain_tables(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], name: str, limit: int | None
) -> Iterator[pa.Table]:
    require_unique_names(schema.names, name)
    if index := [column for column in schema.names if PANDAS_INDEX.fullmatch(column)]:
        log.info(f"{name}: left out pandas' index, {format_names(index)}")
    kept = [column for column in schema.names if column not in index]
    yield pa.schema([(column, _stored_type(schema.field(column).type)) for column in kept]).empty_table()
    rows = 0
    for batch in batches:
        table = pa.Table.from_batches([batch]).select(kept)
        table = table.slice(0, None if limit is None else limit - rows)
        _require_valid(table, name, rows)
        yield _without_invalid_json(plain_table(table))
        rows += table.num_rows
        if rows == limit:
            return


def plain_table(table: pa.Table) -> pa.Table:
    """The table with plain types, without the schema's metadata."""
    columns = [_plain_column(column) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = _stored_type(column.type)
    chunks = [_plain_array(chunk, kind) for chunk in column.chunks]
    if len({chunk.type for chunk in chunks}) > 1:  # some had to become JSON
        chunks = [chunk if chunk.type == JSON_TYPE else json_array(chunk.to_pylist()) for chunk in chunks]
    return pa.chunked_array(chunks, chunks[0].type if chunks else kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without views, dictionaries, run ends and extensions, within nested types too.

    >>> plain_type(pa.list_(pa.struct([("role", pa.dictionary(pa.int8(), pa.string()))])))
    ListType(list<item: struct<role: string>>)
    """
    return next((plain(kind) for is_kind, plain in PLAIN_TYPES if is_kind(kind)), kind)


def _plain_array(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The array as the type `kind`, or as JSON if Arrow has no way to it."""
    if array.type == kind:
        return array
    if kind == JSON_TYPE and not isinstance(array.type, pa.JsonType):
        return json_array(array.to_pylist())
    if isinstance(array.type, pa.UuidType):
        return pa.array([None if cell is None else str(cell) for cell in array.to_pylist()], kind)
    if isinstance(array.type, pa.JsonType):
        return pa.ExtensionArray.from_storage(JSON_TYPE, pa.array(array.to_pylist(), pa.string()))
    if isinstance(array.type, pa.BaseExtensionType):
        return _plain_array(array.storage, kind)
    if pa.types.is_run_end_encoded(array.type):
        return _plain_array(pc.run_end_decode(array), kind)
    try:
        if not _contains(array.type, _is_list_view):  # Arrow casts list views to lists that are not valid
            return array.cast(kind)
    except pa.ArrowNotImplementedError:
        pass
    try:
        return pa.array(array.to_pylist(), kind)
    except (pa.ArrowException, TypeError):
        return json_array(array.to_pylist())


def _without_invalid_json(table: pa.Table) -> pa.Table:
    """The table with JSON columns as text if a cell is not JSON: Arrow does not check what a file declares."""
    for number, field in enumerate(table.schema):
        if isinstance(field.type, pa.JsonType) and not _is_json(table.column(number).to_pylist()):
            table = table.set_column(number, field.name, pa.array(table.column(number).to_pylist(), pa.string()))
    return table


def _is_json(texts: list[str | None]) -> bool:
    try:
        for text in texts:
            parse_json("null" if text is None else text)
    except ValueError:
        return False
    return True


def _stored_type(kind: pa.DataType) -> pa.DataType:
    """The plain type, or JSON if Parquet cannot store it."""
    plain = plain_type(kind)
    unstorable = (_is_empty_struct, pa.types.is_union, pa.types.is_interval)
    return JSON_TYPE if any(_contains(plain, condition) for condition in unstorable) else plain


def _is_empty_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and kind.num_fields == 0


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _contains(kind: pa.DataType, condition: Callable[[pa.DataType], bool]) -> bool:
    """Whether the type, or one within it, meets the condition."""
    fields = [kind.field(number) for number in range(kind.num_fields)] if pa.types.is_nested(kind) else []
    return condition(kind) or any(_contains(field.type, condition) for field in fields)


def _require_valid(table: pa.Table, name: str, first_row: int) -> None:
    """Raise DataError with the first row and the columns that hold text that is not UTF-8, or are damaged."""
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
