"""pipeline/core/console.py: no character of the data acts on the terminal."""

import logging
import sys
import unicodedata

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.project import ROOT

from pipeline.core.console import PrintableFormatter, preview, printable
from pipeline.errors import ConfigError, DataError

HOSTILE = {
    "clear the screen": ("\x1b[2J\x1b[H", r"\x1b[2J\x1b[H"),
    "window title": ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
    "link": ("\x1b]8;;http://evil.example\x1b\\click", r"\x1b]8;;http://evil.example\x1b" + "\\click"),
    "clipboard": ("\x1b]52;c;cm0gLXJm\x07", r"\x1b]52;c;cm0gLXJm\x07"),
    "8-bit CSI": ("\x9b2J", r"\x9b2J"),
    "8-bit OSC and its end": ("\x9d0;x\x9c", r"\x9d0;x\x9c"),
    "overwritten line": ("1 error\r0 errors", r"1 error\r0 errors"),
    "backspaces": ("no\x08\x08yes", r"no\x08\x08yes"),
    "next line, vertical tab, form feed": ("a\x85b\x0bc\x0c", r"a\x85b\x0bc\x0c"),
    "other character set": ("\x0e\x0f", r"\x0e\x0f"),
    "NUL and DEL": ("\x00\x7f", r"\x00\x7f"),
    "right to left": ("user\u202etxt.exe\u2066\u2069", r"user\u202etxt.exe\u2066\u2069"),
    "line separators": ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
    "undecodable file name": ("caf\udce9.csv", r"caf\udce9.csv"),
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text", ["a\tb\nc", "Fièvre à 39,5 °C", "流感 是 病", "👩‍⚕️ rest", "שלום", "مرحبا", r"C:\temp", "→ … –"]
)
def test_other_text_stays(text: str) -> None:
    assert printable(text) == text


@given(st.text(st.characters()))
def test_printable_text_is_encodable_and_free_of_controls(text: str) -> None:
    shown = printable(text)
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cs") and char not in "\t\n"]
    assert printable(shown) == shown
    shown.encode("utf-8")


@given(st.text(st.characters(), max_size=300), st.integers(8, 60))
def test_preview_is_one_line_of_limited_width(text: str, width: int) -> None:
    line = preview(text, width)
    assert len(line) <= width
    assert len(line.splitlines()) <= 1


def test_preview_reads_only_the_beginning_of_a_long_text() -> None:
    assert preview("x" * 50_000_000) == "x" * 108 + " …"
    assert preview(" " * 5000 + "x") == " …"


def test_log_lines_and_their_tracebacks_are_printable() -> None:
    try:
        raise ValueError("cell \x1b[2J")
    except ValueError:
        record = logging.LogRecord("stage", logging.ERROR, __file__, 1, "column %s", ("\x9b1m",), sys.exc_info())
    text = PrintableFormatter("%(message)s").format(record)
    assert text.startswith("column \\x9b1m\nTraceback (most recent call last):\n")
    assert text.endswith(r"ValueError: cell \x1b[2J")


def test_errors_are_printable() -> None:
    assert str(DataError("no column \x1b[2J")) == r"no column \x1b[2J"
    assert str(ConfigError()) == ""


def test_the_stages_log_through_the_printable_formatter() -> None:
    logging_config = yaml.safe_load((ROOT / "conf/hydra/job_logging/plain.yaml").read_text(encoding="utf-8"))
    assert logging_config["formatters"]["plain"]["class"] == "pipeline.core.console.PrintableFormatter"
    assert {handler["formatter"] for handler in logging_config["handlers"].values()} == {"plain"}
