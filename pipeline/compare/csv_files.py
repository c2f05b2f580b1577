"""CSV files that a spreadsheet can open without running a text of the data as a formula.

A spreadsheet evaluates a cell that begins with =, +, - or @. Such a text is written with an apostrophe before it (OWASP, "CSV
Injection"); numbers such as -3 stay as they are. `unescape_formula` gives back the text.
"""

import csv
import re
from pathlib import Path
from typing import Any

import pandas as pd

# What begins a formula, also in full width, after what a program may skip: white space, quotes, invisible characters. OWASP
# adds a text that begins with a tab or a line break, whatever follows.
FORMULA = re.compile(r"[\s\x00-\x1f\"'`\u200b-\u200f\u2060\ufeff]*[=+\-@＝＋－＠]|[\t\r\n]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def escape_formula(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet might evaluate.

    >>> escape_formula("=1+1"), escape_formula("-3"), escape_formula("- Rest."), escape_formula("'Rest'")
    ("'=1+1", '-3', "'- Rest.", "'Rest'")
    """
    return f"'{text}" if _is_formula(text) else text


def unescape_formula(text: str) -> str:
    """The text that `escape_formula` was given, from what it returned.

    >>> unescape_formula("'=1+1"), unescape_formula("'Rest'")
    ('=1+1', "'Rest'")
    """
    return text[1:] if text.startswith("'") and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    """Apostrophes at the start make no difference, so that an escaped text is recognized whatever it began with."""
    start = text.lstrip("'")
    return FORMULA.match(start) is not None and NUMBER.fullmatch(start) is None


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write the table without its index. Text is in quotes, so that readers keep the line breaks in it apart from rows.

    Lone surrogates, which UTF-8 cannot express, are written as Python writes them: \\ud800.
    """
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(map(_cell, table.columns))
        writer.writerows(map(_cell, row) for row in table.itertuples(index=False, name=None))


def _cell(value: Any) -> str | int | float | None:
    """None for a missing value, which becomes an empty cell."""
    if isinstance(value, str):
        return escape_formula(value)
    if value is None or value != value:
        return None
    return value if isinstance(value, int | float) else escape_formula(str(value))
