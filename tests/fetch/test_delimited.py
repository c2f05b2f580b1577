"""pipeline/fetch/delimited.py: separators, encodings, quotes and headers as programs write them."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sources import load_from

from pipeline.config.sources import FileRows
from pipeline.errors import DataError
from pipeline.fetch.delimited import read_delimited
from pipeline.fetch.table_builder import concat_tables

QUESTION_AND_ANSWER = {"question": ["Is it flu, doctor?"], "answer": ["Rest; drink"]}
LogLines = Callable[[], list[str]]


@pytest.mark.parametrize(
    ("name", "content", "log"),
    [
        ("rows.csv", 'question;answer\nIs it flu, doctor?;"Rest; drink"\n', "semicolons"),
        ("rows.csv", "question\tanswer\nIs it flu, doctor?\tRest; drink\n", "tabs"),
        ("rows.csv", "question|answer\nIs it flu, doctor?|Rest; drink\n", "vertical bars"),
        ("rows.tsv", 'question,answer\n"Is it flu, doctor?",Rest; drink\n', "commas"),
        ("rows.tsv", 'question;answer\nIs it flu, doctor?;"Rest; drink"\n', "semicolons"),
        ("rows.csv", 'sep=;\r\nquestion;answer\r\nIs it flu, doctor?;"Rest; drink"\r\n', "semicolons"),
        ("rows.csv", '\ufeff"sep=\t"\nquestion\tanswer\nIs it flu, doctor?\tRest; drink\n', "tabs"),
        ("rows.csv", "SEP=^\nquestion^answer\nIs it flu, doctor?^Rest; drink\n", "'^'"),
    ],
    ids=[
        "semicolon",
        "tab",
        "bar",
        "comma in tsv",
        "semicolon in tsv",
        "sep line",
        "sep line quoted, BOM",
        "sep line, other",
    ],
)
def test_other_separators_are_found_and_logged(
    tmp_path: Path, log_lines: LogLines, name: str, content: str, log: str
) -> None:
    (tmp_path / name).write_text(content, newline="")
    assert load_from(tmp_path / name).table.to_pydict() == QUESTION_AND_ANSWER
    assert log_lines() == [f"{tmp_path / name}: the columns are separated by {log}"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("question,answer\n|a|b|,x\n", {"question": ["|a|b|"], "answer": ["x"]}),
        ('question,answer\n"a;b\n1;2","says ""hi"""\n', {"question": ["a;b\n1;2"], "answer": ['says "hi"']}),
        ("question,answer\nx,y,\nz,w,,\n", {"question": ["x", "z"], "answer": ["y", "w"]}),
        ("question,answer,,\nx,y,,\nz,w\n", {"question": ["x", "z"], "answer": ["y", "w"]}),
        ("\n,,\nquestion,answer\nx,y\n\x1a", {"question": ["x"], "answer": ["y"]}),
        (" question , answer\nx,y\n", {"question": ["x"], "answer": ["y"]}),
        ('question, answer\nx, "y, z"\n', {"question": ["x"], "answer": ["y, z"]}),
        ("PAR1,question\nx,y\n", {"PAR1": ["x"], "question": ["y"]}),
        ("question,answer\rx,y\r", {"question": ["x"], "answer": ["y"]}),
        ("question,answer\nx\0,  y \n", {"question": ["x\0"], "answer": ["  y "]}),
        ("question,answer,\nx,y,n\nz,w,\n", {"question": ["x", "z"], "answer": ["y", "w"], "column_3": ["n", ""]}),
        (",question,answer\n0,x,y\n", {"column_1": ["0"], "question": ["x"], "answer": ["y"]}),
        ("question,answer;note\nx,y;1\nz,w;2\n", {"question": ["x", "z"], "answer;note": ["y;1", "w;2"]}),
    ],
    ids=[
        "table in a cell", "quotes and line breaks", "separators after rows", "separators after names", "empty lines, Ctrl-Z",
        "spaces around names", "comma and space", "name like a format", "CR alone", "NUL and spaces stay",
        "text without a name", "pandas' index", "two that fit: the extension's",
    ],
)  # fmt: skip
def test_cells_are_read_as_programs_mean_them(tmp_path: Path, content: str, expected: dict[str, list[str]]) -> None:
    (tmp_path / "rows.csv").write_bytes(content.encode())
    columns = {"text": "question"}
    assert load_from(tmp_path / "rows.csv", columns=columns).table.to_pydict() == expected


def test_more_columns_than_a_sheet_has_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a," * 20_000 + "a")
    with pytest.raises(DataError, match="20,001 columns; expected at most 16,384: is a line break missing"):
        load_from(tmp_path / "rows.csv")
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"{number}": 1}}\n' for number in range(20_000)))
    with pytest.raises(DataError, match="more than 16,384 different keys"):
        load_from(tmp_path / "rows.jsonl")


def test_tab_separated_text_with_loose_quotes(tmp_path: Path, log_lines: LogLines) -> None:
    (tmp_path / "rows.tsv").write_text('question\tanswer\n"Hi" he said\tan "open\n"never closed\tb\n')
    expected = {"question": ['"Hi" he said', '"never closed'], "answer": ['an "open', "b"]}
    assert load_from(tmp_path / "rows.tsv").table.to_pydict() == expected
    assert log_lines() == [f"{tmp_path / 'rows.tsv'}: quotes do not enclose cells, so they are read as they are"]


def test_what_is_left_out_or_named_is_logged(tmp_path: Path, log_lines: LogLines) -> None:
    (tmp_path / "rows.csv").write_text("question, answer,,\nx, y,,n\n")
    assert load_from(tmp_path / "rows.csv").table.column_names == ["question", "answer", "column_4"]
    assert [line.removeprefix(f"{tmp_path / 'rows.csv'}: ") for line in log_lines()] == [
        "columns without a name in the header are called column_4",
        "left out 1 empty column without a name",
    ]


def test_two_separators_that_fit_are_a_warning(tmp_path: Path, log_lines: LogLines) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer;note\nx,y;1\n")
    load_from(path, columns={"text": "question"})
    assert log_lines() == [
        f"{path}: the first rows can be separated by commas or semicolons; using commas. To choose: "
        "-S \"data.delimiter=';'\""
    ]
    assert load_from(path, columns={"text": "note"}, delimiter=";").table.column_names == ["question,answer", "note"]


@pytest.mark.parametrize("delimiter", ["tab", "\\t", "\t"])
def test_delimiter_tab_reads_lines_of_one_column(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "rows.csv").write_text("text\nHello, you\n")
    assert load_from(tmp_path / "rows.csv", delimiter=delimiter).table.to_pydict() == {"text": ["Hello, you"]}


@pytest.mark.parametrize(
    ("key", "value"),
    [("delimiter", ""), ("delimiter", ";;"), ("delimiter", '"'), ("encoding", "x"), ("encoding", "hex")],
)
def test_values_that_are_no_separator_or_encoding_are_rejected(key: str, value: str) -> None:
    with pytest.raises(ValueError, match="no separator" if key == "delimiter" else "no encoding of text"):
        FileRows.model_validate(dict.fromkeys(FileRows.model_fields) | {"source": "file", "path": "x.csv", key: value})


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        (None, "\ufeffquestion\tanswer\nGrüße\t流感\n".encode("utf-16-le")),
        (None, "\ufeffquestion\tanswer\nGrüße\t流感\n".encode("utf-16-be")),
        (None, "\ufeffquestion\tanswer\nGrüße\t流感\n".encode("utf-32-le")),
        ("cp1252", "\ufeffquestion\tanswer\nGrüße\t流感\n".encode()),
        ("gb18030", "question\tanswer\nGrüße\t流感\n".encode("gb18030")),
        ("utf-16-be", "question\tanswer\nGrüße\t流感\n".encode("utf-16-be")),
    ],
    ids=["UTF-16 LE", "UTF-16 BE", "UTF-32", "BOM beats data.encoding", "data.encoding", "UTF-16 without BOM"],
)
def test_encodings(tmp_path: Path, encoding: str | None, content: bytes) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    table = load_from(tmp_path / "rows.csv", encoding=encoding).table
    assert table.to_pydict() == {"question": ["Grüße"], "answer": ["流感"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "a;b\nx;y\nGrüße;naïve\n".encode("cp1252"),
            "line 3: not UTF-8 text (byte 3: invalid start byte); save the file as UTF-8, or set data.encoding, perhaps to one "
            "of these:\n  data.encoding=cp1252 reads the line as 'Grüße;naïve'",
        ),
        (
            "a;b\nКак дела?;Хорошо, спасибо\n".encode("cp1251"),
            "data.encoding=cp1251 reads the line as 'Как дела?;Хорошо",
        ),
        ("a;b\nx;y\n".encode("utf-16-le"), "looks like UTF-16 without a byte order mark; set data.encoding=utf-16-le"),
        ("a;b\nx;y\n".encode("utf-16-be"), "looks like UTF-16 without a byte order mark; set data.encoding=utf-16-be"),
        ("a;b\nx;y\n".encode("utf-16")[:-1], "about line 2: not utf-16 text (truncated data)"),
        (b"PK\x03\x04\0\0", "rows.csv is not text, but a ZIP archive or an Office document"),
        (b"PAR1\0\0", "rows.csv is not text, but Parquet; give it the extension .parquet"),
        (bytes(range(256)), "rows.csv holds binary data"),
        (b"\xef\xbb\xbf\n\n", "rows.csv is empty"),
    ],
    ids=["cp1252", "cp1251", "UTF-16 LE", "UTF-16 BE", "UTF-16 cut", "workbook", "Parquet", "junk", "no text"],
)
def test_text_that_is_not_utf8_names_line_and_encoding(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(DataError) as error:
        load_from(tmp_path / "rows.csv")
    assert message in str(error.value)


CELL = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(
    rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    own=st.sampled_from([",", "\t"]),
)
def test_what_the_csv_module_writes_comes_back(rows: list[tuple[str, str]], separator: str, own: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([("question", "answer"), *rows])
    stream = io.BytesIO(text.getvalue().encode())
    table = concat_tables(list(read_delimited(stream, "rows.csv", None, own, None)))
    assert list(zip(*table.to_pydict().values(), strict=True)) == rows
