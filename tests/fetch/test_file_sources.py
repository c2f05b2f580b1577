"""pipeline/fetch/sources.py and tables.py on literal files: values, limits and errors that all formats have in common."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.sources import load_from

from pipeline.errors import DataError
from pipeline.fetch.data_files import local_data_files
from pipeline.fetch.read_files import peek_rows, read_files
from pipeline.records.columns import column_values

CHAT = [
    {"messages": [{"role": "user", "content": "Is it flu?"}, {"role": "assistant", "content": "Rest."}]},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?\nTell me."}]},
]


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def read_table(path: Path, limit: int | None = None) -> pa.Table:
    return read_files(local_data_files(str(path)), limit).table


def values_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as Python values, with those of JSON columns parsed."""
    columns = {name: column_values(table, name) for name in table.column_names}
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param(
            "rows.csv",
            "question,answer\nNA,007\n1e5,true\n,null\n",
            [
                {"question": "NA", "answer": "007"},
                {"question": "1e5", "answer": "true"},
                {"question": "", "answer": "null"},
            ],
            id="csv cells stay text",
        ),
        pytest.param(
            "rows.csv",
            'question,answer\n"two\nlines","says ""hi"", then goes"\n',
            [{"question": "two\nlines", "answer": 'says "hi", then goes'}],
            id="csv quoted newline, quote and comma",
        ),
        pytest.param(
            "rows.csv",
            b'\xef\xbb\xbfquestion,answer\r\nflu?,"a\r\nb"\r\n',
            [{"question": "flu?", "answer": "a\r\nb"}],
            id="csv byte order mark and CRLF",
        ),
        pytest.param("rows.csv", "text\na\n\nb\n", [{"text": "a"}, {"text": "b"}], id="csv blank line is no row"),
        pytest.param("ROWS.CSV", "text\na\n", [{"text": "a"}], id="extension in capitals"),
        pytest.param("rows.csv", "text,more\n", [], id="csv with names alone"),
        pytest.param("rows.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n', [{"text": "a"}], id="jsonl byte order mark, CRLF"),
        pytest.param(
            "rows.jsonl",
            '{"text": "a\u2028b\x85c"}\n',
            [{"text": "a\u2028b\x85c"}],
            id="jsonl line separator in a string",
        ),
        pytest.param(
            "rows.jsonl",
            '{"text": "a"}\n\n{"note": 7}\n',
            [{"text": "a", "note": None}, {"text": None, "note": 7}],
            id="jsonl blank line, keys that lack",
        ),
        pytest.param("rows.jsonl", '{"text": "NA"}', [{"text": "NA"}], id="jsonl without a last line break"),
        pytest.param("rows.jsonl", '{"text":\r"a"}\n', [{"text": "a"}], id="jsonl carriage return in a row"),
        pytest.param("rows.json", '[{"text": "a"},\n {"text": null}]', [{"text": "a"}, {"text": None}], id="json list"),
        pytest.param("rows.json", b'\xef\xbb\xbf[{"text": "a"}]', [{"text": "a"}], id="json byte order mark"),
    ],
)
def test_file_is_read_unchanged(
    write_file: Callable[..., Path], name: str, content: str | bytes, expected: list[dict[str, Any]]
) -> None:
    assert values_of(read_table(write_file(name, content))) == expected


@pytest.mark.parametrize("content", ["a,b\n1,2.5\n", "a,b\n"], ids=["numbers", "no rows"])
def test_csv_columns_are_all_text(write_file: Callable[..., Path], content: str) -> None:
    assert read_table(write_file("rows.csv", content)).schema == pa.schema({"a": pa.string(), "b": pa.string()})


def test_nested_chat_survives_jsonl_and_parquet(write_file: Callable[..., Path], tmp_path: Path) -> None:
    table = read_table(write_file("chat.jsonl", "".join(json.dumps(row) + "\n" for row in CHAT)))
    pq.write_table(table, tmp_path / "json.parquet")
    pq.write_table(pa.Table.from_pylist(CHAT), tmp_path / "nested.parquet")
    assert values_of(table) == CHAT
    assert values_of(read_table(tmp_path / "json.parquet")) == CHAT
    assert values_of(read_table(tmp_path / "nested.parquet")) == CHAT


def test_parquet_keeps_types_and_loses_schema_metadata(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "number": [1, 2]}).replace_schema_metadata({"pandas": "{}"})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert read_table(tmp_path / "rows.parquet").schema.metadata is None
    assert read_table(tmp_path / "rows.parquet").to_pydict() == {"text": ["a", "b"], "number": [1, 2]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(
            "rows.txt",
            "a",
            "unknown extension .txt; expected one of .jsonl, .json, .csv, .tsv, .parquet, .arrow, .xlsx, .xls, .ods (also "
            "compressed: .gz",
            id="extension",
        ),
        pytest.param("rows", "a", "unknown extension (none)", id="no extension"),
        pytest.param("rows.csv", "", "rows.csv is empty; expected a first line with the names", id="empty csv"),
        pytest.param(
            "rows.csv",
            "a,b\n1,2\n3\n",
            "line 3: 1 cell; expected 2, one for each column (a, b)",
            id="csv row too short",
        ),
        pytest.param("rows.csv", 'a,b\n"1\n1",2\n3,4,5\n', "line 4: 3 cells; expected 2", id="csv row too long"),
        pytest.param(
            "rows.csv",
            "text\nHi, you\n",
            "data.delimiter=tab to read each line as one cell",
            id="csv commas, one column",
        ),
        pytest.param("rows.csv", "a,b,a,a_1\n1,2,3,4\n", "more than one column is called a_1", id="csv doubled column"),
        pytest.param("rows.csv", 'a,b\n1,2\n"3"x,4\n', "line 3: not CSV", id="csv text after a quote"),
        pytest.param(
            "rows.csv", 'a,b\n"1,2\n', "line 2: not CSV (a quote that begins there is not closed)", id="csv open quote"
        ),
        pytest.param("rows.csv", b"a,b\n\xff,2\n", "not UTF-8 text", id="csv not UTF-8"),
        pytest.param("rows.jsonl", '{"a": 1}\n\n{"a":\n', "line 3: not JSON (Expecting value", id="broken jsonl line"),
        pytest.param("rows.jsonl", '{"a": 1}\n[1]\n', "line 2: a JSON list; expected an object", id="jsonl list"),
        pytest.param("rows.jsonl", "[1]\n", "row 1: a JSON number; expected an object", id="jsonl list first"),
        pytest.param("rows.jsonl", '[{"a": 1}]\n[{"a": 2}]', "line 2: not JSON (more text after", id="jsonl two lists"),
        pytest.param("rows.jsonl", "a,b\n1,2\n", "line 1: not a JSON object; expected", id="csv named jsonl"),
        pytest.param(
            "rows.jsonl", '{"a": 1, "a": 2}\n', "line 1: not readable as JSON (the key 'a' occurs", id="key twice"
        ),
        pytest.param(
            "rows.jsonl",
            '{"a": 1}\n{"m": {"a": 1, "a": 2}}\n',
            "line 2: not readable as JSON (the key 'a'",
            id="inner key twice",
        ),
        pytest.param("rows.jsonl", '{"a": ' + "[" * 9999, "line 1: not readable as JSON (maximum rec", id="too deep"),
        pytest.param(
            "rows.jsonl", r'{"\ud800": 1}', r"the column name '\ud800' is not valid text", id="surrogate in a name"
        ),
        pytest.param("rows.jsonl", b'{"a": "\xff"}\n', "not UTF-8 text", id="jsonl not UTF-8"),
        pytest.param("rows.json", "", "rows.json is empty; expected a JSON list of objects, or", id="empty json"),
        pytest.param("rows.json", "\n3\n", "line 2: not a JSON object; expected a JSON list", id="json number"),
        pytest.param("rows.json", '[{"a": 1}, null]', "row 2: a JSON null; expected an object", id="json null in list"),
        pytest.param("rows.json", '[{"a": 1}', "line 1: not JSON (Expecting ',' or ']', column 10)", id="json cut"),
        pytest.param("rows.json", "[1, 2]", "row 1: a JSON number; expected an object", id="json list of numbers"),
        pytest.param("rows.json", '[{"a": 1},\n {"a": ]', "line 2: not JSON", id="broken json"),
        pytest.param(
            "rows.json",
            b'[{"a": "\xff"}]',
            "line 1: not UTF-8 text (byte 9: invalid start byte); save the file as UTF-8, or set data.encoding",
            id="json not UTF-8",
        ),
        pytest.param("rows.parquet", "a,b\n1,2\n3,4\n", "not a valid .parquet file", id="csv named parquet"),
        pytest.param("rows.parquet", "", "not a valid .parquet file", id="empty parquet"),
    ],
)
def test_error_names_file_and_line_or_row(
    write_file: Callable[..., Path], name: str, content: str | bytes, message: str
) -> None:
    path = write_file(name, content)
    with pytest.raises(DataError) as error:
        read_table(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.csv", "no such file: .*nothing.csv"),
        (".", "has no data files; expected some that end in .jsonl"),
        ("*.csv", r"no file matches .*\*.csv"),
    ],
    ids=["missing", "empty folder", "glob"],
)
def test_path_without_a_data_file_is_a_data_error(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_from(tmp_path / name)
    with pytest.raises(DataError, match=message):
        peek_rows(str(tmp_path / name))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.json", "rows.parquet"])
def test_peek_and_first_rows(write_file: Callable[..., Path], tmp_path: Path, name: str) -> None:
    rows = [{"question": f"q{number}", "answer": "a"} for number in range(250)]
    contents = {
        "rows.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "rows.csv": "question,answer\n" + "".join(f"{row['question']},a\n" for row in rows),
        "rows.json": json.dumps(rows),
    }
    if name in contents:
        write_file(name, contents[name])
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name, row_group_size=2)
    assert peek_rows(str(tmp_path / name)).column_names == ["question", "answer"]
    assert read_table(tmp_path / name, limit=3).to_pylist() == rows[:3]


def test_peek_does_not_read_past_its_rows(write_file: Callable[..., Path]) -> None:
    path = write_file("rows.jsonl", '{"text": "a"}\n' * 100 + "broken\n")
    assert peek_rows(str(path)).column_names == ["text"]
    with pytest.raises(DataError, match="line 101: not JSON"):
        read_table(path)


def test_limit_takes_the_first_rows(write_file: Callable[..., Path]) -> None:
    path = write_file("rows.csv", "text\na\nb\nc\n")
    assert load_from(path, limit=2).table.to_pydict() == {"text": ["a", "b"]}
    assert load_from(path, limit=9).table.num_rows == 3


def test_source_without_rows_is_a_data_error(write_file: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="the source has no rows"):
        load_from(write_file("rows.csv", "text\n"))


def test_revision_is_the_sha256_of_the_file(write_file: Callable[..., Path]) -> None:
    checksum = "ef271522dd0a16c1b66bcbadc17474307a88dea874019dc4146b4789a09a8c2d"
    assert load_from(write_file("rows.csv", "text\na\n")).revision == checksum


def test_changed_file_is_a_data_error_with_both_checksums(write_file: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"has changed since .* expected 000000000000…\).\n.*make params"):
        load_from(write_file("rows.csv", "text\na\n"), sha256="0" * 64)
