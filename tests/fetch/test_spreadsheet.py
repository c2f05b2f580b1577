"""pipeline/fetch/spreadsheet.py: sheets of workbooks."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sources import load_from
from support.workbooks import Raw, workbook

from pipeline.errors import DataError
from pipeline.records.columns import column_values

HEADER = ["question", "answer"]
LogLines = Callable[[], list[str]]


def read_columns(path: Path, content: bytes, **values: Any) -> dict[str, list[Any]]:
    path.write_bytes(content)
    table = load_from(path, columns={"text": "question"}, **values).table
    return {name: column_values(table, name) for name in table.column_names}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([HEADER, ["Flu?", "a\n  b "]], {"question": ["Flu?"], "answer": ["a\n  b "]}),
        ([[" question", "n"], ["x", 3], ["y", 4]], {"question": ["x", "y"], "n": [3, 4]}),
        ([["question", "n"], ["x", 3], ["y", 2.5]], {"question": ["x", "y"], "n": [3.0, 2.5]}),
        (
            [["question", "n"], ["x", 3], ["y", "two"], [True, None]],
            {"question": ["x", "y", True], "n": [3, "two", None]},
        ),
        (
            [["question", "day", "time"], ["x", Raw("<v>45657</v>", 's="1"'), Raw("<v>45657.5</v>", 's="2"')]],
            {"question": ["x"], "day": ["2024-12-31"], "time": ["2024-12-31T12:00:00"]},
        ),
        ([HEADER, ["x", Raw("<f>A2</f><v>stored</v>", 't="str"')]], {"question": ["x"], "answer": ["stored"]}),
        ([[], [None, *HEADER, None], [], [None, "x", "y"], [None, None], []], {"question": ["x"], "answer": ["y"]}),
        ([[*HEADER, None, None], ["x", "y", None, "note"]], {"question": ["x"], "answer": ["y"], "column_4": ["note"]}),
        ([["question", 2024], ["x", "y"]], {"question": ["x"], "2024": ["y"]}),
        ([["Export of May"], ["by Ann Lee"], [], HEADER, ["x", "y"]], {"question": ["x"], "answer": ["y"]}),
        ([["question"], ["x", "y"], ["z", "w"]], {"question": ["x", "z"], "column_2": ["y", "w"]}),
        (
            [["note", *HEADER, "note"], [1, "x", "y", 2]],
            {"note_1": [1], "question": ["x"], "answer": ["y"], "note_2": [2]},
        ),
    ],
    ids=[
        "text",
        "integers",
        "floats",
        "mixed",
        "dates",
        "formula",
        "empty rows and columns",
        "no name",
        "number as name",
        "title lines",
        "one name",
        "same names",
    ],
)
def test_cells_of_a_sheet(tmp_path: Path, rows: list[list[Any]], expected: dict[str, list[Any]]) -> None:
    content = workbook({"Tickets": rows})
    assert read_columns(tmp_path / "rows.xlsx", content) == expected
    assert read_columns(tmp_path / "rows.xlsx.gz", gzip.compress(content)) == expected


def test_a_cell_merged_downwards_has_its_value_in_each_row(tmp_path: Path) -> None:
    rows = [HEADER, ["x", "a"], [None, "b"], ["y", "c"]]
    expected = {"question": ["x", "x", "y"], "answer": ["a", "b", "c"]}
    assert read_columns(tmp_path / "rows.xlsx", workbook({"A": rows}, merged=["A2:A3", "B4:D4"])) == expected


def test_sheets_are_chosen_and_logged(tmp_path: Path, log_lines: LogLines) -> None:
    path = tmp_path / "rows.xlsx"
    content = workbook(
        {
            "Notes": [HEADER, ["n", "n"]],
            "Cover": [["Tickets of 2024"]],
            "A": [HEADER, ["x", "y"]],
            "B": [HEADER, ["z", "w"]],
        },
        hidden=["Notes"],
    )
    assert read_columns(path, content)["question"] == ["x"]
    assert log_lines() == [f"{path}: using the sheet A. To use another, set data.sheet to its name: Notes, Cover, B"]
    assert read_columns(path, content, sheet="B")["question"] == ["z"]
    with pytest.raises(
        DataError, match=r"data.sheet=C: .*rows.xlsx has no such sheet; its sheets are Notes, Cover, A, B"
    ):
        load_from(path, sheet="C")


def test_first_rows_of_a_sheet(tmp_path: Path) -> None:
    content = workbook({"A": [HEADER, *([f"q{number}", "a"] for number in range(5000))]})
    assert read_columns(tmp_path / "rows.xlsx", content, limit=2) == {"question": ["q0", "q1"], "answer": ["a", "a"]}
    assert len(read_columns(tmp_path / "rows.xlsx", content)["question"]) == 5000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.xlsx", workbook({"A": [HEADER, ["x", "y"]]})[:-50], "not a valid workbook"),
        ("rows.xlsx", b"question,answer\nx,y\n", "not a valid workbook"),
        ("rows.xls", b"<html><table></table></html>", r"not a valid workbook .*save it again as .xlsx or .csv"),
        ("rows.ods", b"", "not a valid workbook"),
        (
            "rows.xlsx",
            b"\xd0\xcf\x11\xe0" + b"\0" * 600 + "EncryptedPackage".encode("utf-16-le"),
            "protected by a password",
        ),
        ("rows.xlsx", workbook({"A": []}), "sheet A is empty; expected a first row"),
        ("rows.xlsx", workbook({"A": [HEADER]}), "has no rows"),
        ("rows.xlsx", workbook({"A": [["a", "a", "a_1"], ["x", "y", "z"]]}), "more than one column is called a_1"),
    ],
    ids=["cut", "csv", "html", "nothing", "password", "no cells", "no rows", "same names"],
)
def test_workbooks_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_from(tmp_path / name)
