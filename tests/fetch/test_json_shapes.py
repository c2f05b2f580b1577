"""pipeline/fetch/json_rows.py, json_shapes.py, json_stream.py: rows in JSON of any shape, under either ending."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sources import load_from

from pipeline.errors import DataError
from pipeline.fetch import json_rows
from pipeline.fetch.table_builder import column_of, concat_tables, tables_of_objects
from pipeline.records.columns import column_values

ROWS = [{"question": "Flu?", "answer": "Rest.\n"}, {"question": "Cough?", "answer": "Tea."}]
COLUMNS = {"question": ["Flu?", "Cough?"], "answer": ["Rest.\n", "Tea."]}
TURNS = [{"role": "user", "content": "Flu?"}, {"role": "assistant", "content": "Rest."}]
LogLines = Callable[[], list[str]]


def lines_of(rows: list[Any], **options: Any) -> str:
    return "".join(json.dumps(row, **options) + "\n" for row in rows)


def read_columns(path: Path, **values: Any) -> dict[str, list[Any]]:
    table = load_from(path, **values).table
    return {name: column_values(table, name) for name in table.column_names}


@pytest.mark.parametrize("extension", ["json", "jsonl"])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2) + "\n",
        lines_of(ROWS),
        "\n\n" + lines_of(ROWS).replace("\n", "\r\n\r\n"),
        "\ufeff" + lines_of(ROWS).replace("\n", "\n\ufeff", 1),
        lines_of(ROWS, indent=2),
        lines_of(ROWS).replace("\n", ""),
        json.dumps({"version": "1.0", "data": ROWS}),
        json.dumps({"version": "1.0", "data": ROWS, "tags": []}, indent=1) + "\n",
        json.dumps({"page": {"count": 2}, "result": {"items": ROWS}}),
        json.dumps({"conversations": ROWS}),
        json.dumps({"schema": {"fields": [{"name": "question"}]}, "data": ROWS}),
        json.dumps(COLUMNS),
        json.dumps({key: dict(enumerate(cells)) for key, cells in COLUMNS.items()}),
        json.dumps({"columns": list(COLUMNS), "index": [0, 1], "data": [list(row.values()) for row in ROWS]}),
        json.dumps(dict(enumerate(ROWS))),
    ],
    ids=[
        "list", "pretty list", "lines", "lines with blanks", "joined files with BOMs", "pretty objects", "objects on one line",
        "wrapped", "pretty wrapped", "deeper", "key named like a column", "pandas table", "columns", "pandas columns",
        "pandas split", "pandas index",
    ],
)  # fmt: skip
def test_rows_are_found_in_every_shape(tmp_path: Path, text: str, extension: str) -> None:
    path = tmp_path / f"rows.{extension}"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_columns(path) == COLUMNS


@pytest.mark.parametrize("max_object", [1 << 24, 8])
def test_a_long_wrapped_list_is_read_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines, max_object: int
) -> None:
    monkeypatch.setattr(json_rows, "MAX_OBJECT", max_object)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"version": 1234567, "data": ROWS, "tags": [], "turns": TURNS}))
    assert read_columns(path) == COLUMNS
    assert log_lines() == [f"{path}: the rows are those in the key data; left out: version, tags, turns"]


@pytest.mark.parametrize("max_object", [1 << 24, 8])
@pytest.mark.parametrize("values", [COLUMNS, {key: {"a": one, "b": two} for key, (one, two) in COLUMNS.items()}])
def test_columns_of_any_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines, max_object: int, values: dict[str, Any]
) -> None:
    monkeypatch.setattr(json_rows, "MAX_OBJECT", max_object)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"version": 1} | values))
    assert read_columns(path) == COLUMNS
    assert log_lines() == [f"{path}: read as columns; left out, because they are no columns: version"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ROWS[0], {"question": ["Flu?"], "answer": ["Rest.\n"]}),
        ({"messages": TURNS}, {"messages": [TURNS]}),
        (
            {"messages": TURNS, "tools": [{"type": "function"}]},
            {"messages": [TURNS], "tools": [[{"type": "function"}]]},
        ),
        ({"messages": [{}, {"content": "x"}]}, {"messages": [[{}, {"content": "x"}]]}),
        ({"messages": [TURNS, TURNS]}, {"messages": [TURNS, TURNS]}),
        ({"t1": ROWS[0], "t2": ROWS[1]}, {"key": ["t1", "t2"]} | COLUMNS),
        ({"conversations": [{"id": 1, "messages": TURNS}]}, {"id": [1], "messages": [TURNS]}),
    ],
    ids=["row", "chat", "chat with tools", "broken chat", "column of chats", "rows by id", "chats in a key"],
)
def test_an_object_that_is_a_row_or_holds_chats(tmp_path: Path, value: Any, expected: dict[str, Any]) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(value))
    assert read_columns(tmp_path / "rows.json") == expected


def test_data_columns_tell_columns_from_a_row(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(
        json.dumps({"F": ["Flu?", "Cough?"], "A": ["Rest.", "Tea."], "meta": [{"n": 1}, {}]})
    )
    columns = {"question": "F", "answer": "A"}
    assert read_columns(tmp_path / "rows.json", columns=columns)["meta"] == [{"n": 1}, {}]


@pytest.mark.parametrize("max_object", [1 << 24, 8])
def test_field_chooses_among_several_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_object: int) -> None:
    monkeypatch.setattr(json_rows, "MAX_OBJECT", max_object)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"train": ROWS, "test": ROWS[:1], "more": {"rows": ROWS[1:]}}))
    with pytest.raises(DataError, match=r"Choose the one that holds the rows:\n  data.field=train\n  data.field=test"):
        load_from(path)
    assert read_columns(path, field="train") == COLUMNS
    assert read_columns(path, field="more.rows") == {"question": ["Cough?"], "answer": ["Tea."]}
    with pytest.raises(DataError, match=r"data.field=dev: .*rows.json has no such key; its keys are train, test, more"):
        load_from(path, field="dev")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"question": ["a", "b"], "answer": ["c"]}, r"do not have the same rows \(values: question 2, answer 1\)"),
        ({"question": {"0": "a", "1": "b"}, "answer": {"1": "c", "0": "d"}}, "do not have the same rows"),
        ({"data": [ROWS[0], "x"]}, "rows.json, data, row 2: a JSON text; expected an object"),
        ({"columns": ["question", "answer"], "data": [["a"]]}, "differ in length from columns; expected 2"),
        ({"data": [{"title": "t", "paragraphs": [{"qas": []}]}]}, "No known task has the columns title, paragraphs"),
        ({}, "row 1: an object without keys"),
    ],
    ids=["uneven columns", "other index", "no object", "pandas split", "SQuAD", "empty"],
)
def test_shapes_that_are_unclear_are_errors(tmp_path: Path, value: Any, message: str) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=message):
        load_from(tmp_path / "rows.json")


def test_field_is_an_error_where_nothing_wraps_the_rows(tmp_path: Path) -> None:
    for text in (json.dumps(ROWS), lines_of(ROWS), lines_of(ROWS, indent=1)):
        (tmp_path / "rows.json").write_text(text)
        with pytest.raises(DataError, match=r"data.field=data: .* has no keys around its rows; leave data.field out"):
            load_from(tmp_path / "rows.json", field="data")


@pytest.mark.parametrize(
    "text", ["[1180591620717411303424, 1]", r'["\ud800", "a"]', "[NaN, {}]", "[3.0, 3]", "[true, 1]"]
)
def test_values_that_fit_no_plain_column_come_back(tmp_path: Path, text: str) -> None:
    """Long integers, lone surrogates, NaN, numbers of two types."""
    values = json.loads(text)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": "t", "x": value}) + "\n" for value in values))
    assert repr(read_columns(tmp_path / "rows.jsonl")["x"]) == repr(values)


def test_a_column_nested_deeply_is_read_or_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(('{"text": "t", "x": ' + "[" * 300 + "]" * 300 + "}\n") * 2)
    assert len(read_columns(tmp_path / "rows.jsonl")["x"]) == 2


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(VALUES, min_size=1, max_size=6))
def test_values_of_any_type_come_back_as_given(values: list[Any]) -> None:
    table = concat_tables(
        list(tables_of_objects(((1, {"x": json.loads(json.dumps(value))}) for value in values), "f", None))
    )
    assert repr(column_values(table, "x")) == repr(values)


@given(st.lists(st.lists(VALUES, min_size=1, max_size=3), min_size=1, max_size=3))
def test_values_come_back_from_tables_of_other_types(parts: list[list[Any]]) -> None:
    import pyarrow as pa

    table = concat_tables([pa.table({"x": column_of(part)}) for part in parts])
    assert repr(column_values(table, "x")) == repr([value for part in parts for value in part])
