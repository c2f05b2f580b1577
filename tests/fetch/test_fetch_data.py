"""What fetch writes: every column of the source, whatever its type, and a log that stays short."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.sources import file_rows, load_from

from pipeline.errors import DataError
from pipeline.fetch.stage import fetch_data
from pipeline.records.columns import column_values


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_json_values_come_back_as_they_were_given() -> None:
    others: list[Any] = [1, "one", [1, "x", None], {"a": {}, "b": []}, None, True, 1.0]
    rows = [{"question": f"q{row}", "answer": "a", "other": other} for row, other in enumerate(others)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fetch_data(file_rows("rows.jsonl"))
    stored = pq.read_table("data/raw/rows.parquet")
    assert stored.schema.field("other").type == pa.json_()
    assert [(type(value), value) for value in column_values(stored, "other")] == [(type(v), v) for v in others]


UNUSUAL: dict[str, Callable[[], pa.Array]] = {
    "struct without fields": lambda: pa.array([{}, None], pa.struct([])),
    "struct of views": lambda: pa.array([{"a": "x"}, None], pa.struct([("a", pa.string_view())])),
    "list of views": lambda: pa.array([["x"], []], pa.list_(pa.string_view())),
    "map of null": lambda: pa.array([[("a", None)], []], pa.map_(pa.string(), pa.null())),
    "map of structs without fields": lambda: pa.array([[("a", {})], []], pa.map_(pa.string(), pa.struct([]))),
    "null": lambda: pa.nulls(2),
    "list of null": lambda: pa.array([[None], None], pa.list_(pa.null())),
    "run ends": lambda: pa.RunEndEncodedArray.from_arrays([2], pa.array(["x"])),
    "dictionary in a list": lambda: pa.ListArray.from_arrays([0, 1, 2], pa.array(["x", "y"]).dictionary_encode()),
    "interval": lambda: pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
    "union": lambda: pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
}


@pytest.mark.parametrize("make", UNUSUAL.values(), ids=UNUSUAL)
def test_column_of_any_arrow_type_is_stored(make: Callable[[], pa.Array]) -> None:
    table = pa.table({"text": ["a", "b"], "other": make()})
    with pa.ipc.new_file("rows.arrow", table.schema) as writer:
        writer.write_table(table)
    fetch_data(file_rows("rows.arrow"))
    stored = pq.read_table("data/raw/rows.parquet")
    assert stored["text"].to_pylist() == ["a", "b"]
    assert stored.slice(1, 1).num_rows == 1
    given = table["other"].to_pylist()
    assert json.dumps(column_values(stored, "other"), default=str) == json.dumps(given, default=str)


def test_log_of_many_columns_stays_short(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="pipeline")
    names = ["question", "answer", "long " * 100, *(f"column {number}" for number in range(400))]
    Path("rows.jsonl").write_text(json.dumps(dict.fromkeys(names, "x")) + "\n")
    assert fetch_data(file_rows("rows.jsonl"))["columns"] == 403
    line = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("Columns: "))
    assert line.endswith("column 7, column 8 and 391 more")
    assert len(line) < 300


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json"])
def test_binary_data_is_no_text(name: str) -> None:
    for content in (b"\0" * 100, random.Random(0).randbytes(1000), b"\x7fELF\x02\x01\x01\0\0"):
        Path(name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} holds binary data"):
            load_from(name)
