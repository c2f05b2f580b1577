"""pipeline/fetch/arrow_tables.py: Arrow and Parquet as polars, pandas and DuckDB write them."""

import datetime
import decimal
import io
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.sources import load_from

from pipeline.errors import DataError
from pipeline.records.columns import column_values

TEXTS = ["short", "long " * 20, None]
VIEW, BINARY_VIEW = pa.string_view(), pa.binary_view()
ENCODED = pa.array(TEXTS).dictionary_encode()
TURNS = [[{"role": "user", "content": "Flu?"}, {"role": "assistant", "content": "Rest " * 9}], None, []]
TURN = pa.struct([("role", pa.dictionary(pa.int8(), pa.string())), ("content", VIEW)])
COLUMNS: dict[str, tuple[pa.Array, list[Any]]] = {  # name → column, its values
    "view": (pa.array(TEXTS, VIEW), TEXTS),
    "binary view": (pa.array([b"a", b"b" * 30, None], BINARY_VIEW), [b"a", b"b" * 30, None]),
    "large": (pa.array(TEXTS, pa.large_string()), TEXTS),
    "dictionary": (ENCODED, TEXTS),
    "dictionary of views": (pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(TEXTS[:2], VIEW)), TEXTS),
    "run ends": (pc.run_end_encode(pa.array(["a", "a", None])), ["a", "a", None]),
    "list of views": (pa.array([["a"], None, ["b" * 30, None]], pa.list_(VIEW)), [["a"], None, ["b" * 30, None]]),
    "large list of turns": (pa.array(TURNS, pa.large_list(TURN)), TURNS),
    "list view": (pa.array([["a"], None, ["b"]], pa.list_view(VIEW)), [["a"], None, ["b"]]),
    "fixed list": (pa.array([["a", "b"], None, ["c", "d"]], pa.list_(VIEW, 2)), [["a", "b"], None, ["c", "d"]]),
    "list of dictionaries": (pa.ListArray.from_arrays([0, 1, 2, 2], ENCODED), [TEXTS[:1], TEXTS[1:2], []]),
    "struct of run ends": (
        pa.StructArray.from_arrays([pc.run_end_encode(pa.array(["a", "a", "b"]))], ["x"]),
        [{"x": "a"}, {"x": "a"}, {"x": "b"}],
    ),
    "struct of list views": (
        pa.array([{"x": ["a"]}, None, {"x": ["b"]}], pa.struct([("x", pa.list_view(VIEW))])),
        [{"x": ["a"]}, None, {"x": ["b"]}],
    ),
    "map": (pa.array([[("k", "v")], None, []], pa.map_(pa.string(), VIEW)), [[("k", "v")], None, []]),
    "union": (
        pa.UnionArray.from_sparse(pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array([*"abc"])]),
        [1, "b", 3],
    ),
    "empty struct": (pa.array([{}, None, {}], pa.struct([])), [{}, None, {}]),
    "decimal": (pa.array([decimal.Decimal("1.50"), None, None]), [decimal.Decimal("1.50"), None, None]),
    "date": (pa.array([datetime.date(2024, 12, 31), None, None]), [datetime.date(2024, 12, 31), None, None]),
    "UUID": (pa.array([uuid.UUID(int=1).bytes, None, None], pa.uuid()), [str(uuid.UUID(int=1)), None, None]),
    "JSON": (pa.array(['{"a": [1, null]}', None, "2.0"], pa.json_()), [{"a": [1, None]}, None, 2.0]),
    "large JSON": (pa.array(['{"a": 1}', None, "2"], pa.json_(pa.large_string())), [{"a": 1}, None, 2]),
    "no JSON": (pa.array(['{"a": ', None, "x"], pa.json_()), ['{"a": ', None, "x"]),
    "bool8": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None], pa.int8())), [True, False, None]),
    "opaque": (pa.ExtensionArray.from_storage(pa.opaque(VIEW, "t", "v"), pa.array(TEXTS, VIEW)), TEXTS),
    "nothing": (pa.nulls(3), [None, None, None]),
}


def arrow_file(table: pa.Table, rows: int = 2) -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return buffer.getvalue()


def arrow_stream(table: pa.Table, rows: int = 2) -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return buffer.getvalue()


def parquet_file(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def read_back(path: Path, content: bytes) -> pa.Table:
    """The table as the fetch stage stores it, where `text` is mapped."""
    path.write_bytes(content)
    return pq.read_table(io.BytesIO(parquet_file(load_from(path, columns={"text": "text"}).table)))


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_any_type_are_read_and_stored(tmp_path: Path, name: str) -> None:
    column, values = COLUMNS[name]
    table = pa.table({"text": TEXTS, "x": column})
    assert column_values(read_back(tmp_path / "rows.arrow", arrow_file(table)), "x") == values
    assert column_values(read_back(tmp_path / "rows.arrow", arrow_stream(table)), "x") == values
    try:
        parquet = parquet_file(table)
    except pa.ArrowNotImplementedError:  # Parquet has no such type
        return
    assert column_values(read_back(tmp_path / "rows.parquet", parquet), "x") == values


def test_first_rows_of_a_file_with_views(tmp_path: Path) -> None:
    (tmp_path / "rows.arrow").write_bytes(arrow_file(pa.table({"text": COLUMNS["view"][0]})))
    assert load_from(tmp_path / "rows.arrow", limit=1).table.to_pydict() == {"text": ["short"]}


def test_index_of_pandas_is_left_out_and_logged(tmp_path: Path, log_lines: Callable[[], list[str]]) -> None:
    table = pa.table({"text": ["a", "b"], "__index_level_0__": [5, 3]})
    assert read_back(tmp_path / "rows.parquet", parquet_file(table)).column_names == ["text"]
    assert log_lines() == [f"{tmp_path / 'rows.parquet'}: left out pandas' index, __index_level_0__"]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (pa.array([{"a": 1}]), pa.array([{"b": 1.5}]), [{"a": 1}, {"b": 1.5}]),
        (pa.array([3]), pa.array([0.5]), [3, 0.5]),
        (pa.array([3], pa.int8()), pa.array([2**40]), [3, 2**40]),
        (pa.array(["a"]), pa.array(["b"], VIEW), ["a", "b"]),
        (pa.nulls(1), pa.array([[1]]), [None, [1]]),
        (pa.array([datetime.date(2024, 1, 2)]), pa.array(["x"]), ["2024-01-02", "x"]),
    ],
    ids=["structs", "integer and float", "integers", "texts", "null", "date and text"],
)
def test_files_whose_columns_differ_in_type(
    tmp_path: Path, one: pa.Array, other: pa.Array, expected: list[Any]
) -> None:
    for name, column in (("a", one), ("b", other)):
        (tmp_path / f"{name}.arrow").write_bytes(arrow_file(pa.table({"text": ["t"], "x": column})))
    assert column_values(load_from(tmp_path).table, "x") == expected


def test_text_that_is_not_utf8_names_row_and_column(tmp_path: Path) -> None:
    invalid = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff")]
    )
    (tmp_path / "rows.arrow").write_bytes(arrow_file(pa.table({"note": ["x", "y"], "text": invalid}), rows=1))
    with pytest.raises(DataError, match="row 2: column text holds text that is not UTF-8"):
        load_from(tmp_path / "rows.arrow")
