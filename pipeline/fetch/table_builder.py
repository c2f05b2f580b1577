"""Builds Arrow tables from rows of Python values, and one table from several."""

from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.errors import DataError
from pipeline.fetch.header import MAX_COLUMNS
from pipeline.records.json_cells import dump_json

RowT = TypeVar("RowT")
JSON_TYPE = pa.json_()
MAX_ROWS, MAX_BYTES = 4096, 1 << 24  # of a table that is built at once
# The types of values that all become one plain column. Others are stored as JSON: mixed, nested, or too long an integer.
PLAIN_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
# Types that merge without a change to their values. Integers and floats do not: 3 would become 3.0.
TYPE_FAMILIES = (
    pa.types.is_signed_integer,
    pa.types.is_unsigned_integer,
    pa.types.is_floating,
    lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
    pa.types.is_decimal,
)


def chunked(rows: Iterable[tuple[int, RowT]], limit: int | None) -> Iterator[list[RowT]]:
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


def tables_of_objects(rows: Iterable[tuple[int, dict[str, Any]]], name: str, limit: int | None) -> Iterator[pa.Table]:
    """(size, row) → tables, with null where a row lacks a key. Raises DataError if the first rows have no keys."""
    first_row, keys = 0, dict[str, None]()
    for objects in chunked(rows, limit):
        keys |= dict.fromkeys(key for row in objects for key in row)
        if not keys:
            raise DataError(f"{name}, row {first_row + 1}: an object without keys; expected the names of the columns")
        if len(keys) > MAX_COLUMNS:
            raise DataError(
                f"{name}: more than {MAX_COLUMNS:,} different keys; expected the same columns in each object"
            )
        columns = [_column(key, [row.get(key) for row in objects], name, first_row) for key in keys]
        yield pa.table(columns, names=list(keys))
        first_row += len(objects)


def _column(key: str, values: list[Any], name: str, first_row: int) -> pa.Array:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise DataError(f"{name}: the column name {key!a} is not valid text; rename the column") from None
    try:
        return column_of(values)
    except RecursionError:
        rows = f"rows {first_row + 1} to {first_row + len(values)}"
        raise DataError(f"{name}, {rows}: column {key} is nested too deeply; expected fewer levels") from None


def column_of(values: list[Any]) -> pa.Array:
    """The values as a plain column if they have one type, else as JSON. They come back exactly as they were given."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    kind = PLAIN_TYPES.get(kinds.pop()) if len(kinds) == 1 else None
    if kind is not None:
        try:
            return pa.array(values, kind)
        except (OverflowError, UnicodeEncodeError, pa.ArrowInvalid):  # too long an integer, a lone surrogate
            pass
    return json_array(values)


def json_array(values: Iterable[Any]) -> pa.Array:
    """A JSON column of the values; None stays null."""
    texts = pa.array([None if value is None else dump_json(value) for value in values], pa.string())
    return pa.ExtensionArray.from_storage(JSON_TYPE, texts)


def concat_tables(tables: list[pa.Table]) -> pa.Table:
    """One table of all rows; a column that some tables lack is null there.

    A column whose types in the tables do not merge without a change becomes a JSON column.
    """
    types: dict[str, list[pa.DataType]] = {}
    for schema in dict.fromkeys(table.schema for table in tables):
        for field in schema:
            types.setdefault(field.name, []).append(field.type)
    merged = {name: reduce(_merged_type, kinds) for name, kinds in types.items()}
    return pa.concat_tables([_with_types(table, merged) for table in tables]) if tables else pa.table({})


def _merged_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if any(in_family(one) and in_family(other) for in_family in TYPE_FAMILIES):
        schemas = [pa.schema([("both", kind)]) for kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    return JSON_TYPE


def _with_types(table: pa.Table, types: dict[str, pa.DataType]) -> pa.Table:
    """The table with the columns and types, in their order."""
    if table.schema.names == list(types) and table.schema.types == list(types.values()):
        return table
    columns = []
    for name, kind in types.items():
        if name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, kind))
        elif kind == JSON_TYPE and table.schema.field(name).type != kind:
            columns.append(json_array(table.column(name).to_pylist()))
        else:
            columns.append(table.column(name).cast(kind))
    return pa.table(columns, schema=pa.schema(list(types.items())))
