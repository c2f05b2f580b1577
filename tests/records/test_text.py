"""pipeline/records/text.py on literal texts."""

import pytest

from pipeline.records.text import collapse_whitespace, is_blank, trim_blank_lines, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Hi\u00a0\u00a0doctor", "Hi doctor", id="no-break spaces"),
        pytest.param("\u3000a\u2009b\u202fc\u2028d\x85e", "a b c d e", id="Unicode spaces and line ends"),
        pytest.param(" a\r\n\tb ", "a b", id="CRLF and tab"),
        pytest.param("\ufeffzero\u200bwidth\u2060\x00", "zerowidth", id="invisible characters"),
        pytest.param("\u00a0 \n\u200b", "", id="nothing but space"),
        pytest.param("naïve, 中文 — ok", "naïve, 中文 — ok", id="letters stay"),
    ],
)
def test_collapse_whitespace(text: str, expected: str) -> None:
    assert collapse_whitespace(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a\n", "a\n", id="the last line keeps its end"),
        pytest.param("a\n\n", "a\n", id="blank line at the end"),
        pytest.param("a  \n \t\n\u00a0", "a  \n", id="spaces after the last word stay"),
        pytest.param("\n \n    return 1\n  x", "    return 1\n  x", id="indentation of the first line stays"),
        pytest.param("  a\n\n\nb  ", "  a\n\n\nb  ", id="nothing at the ends"),
        pytest.param(" \n\t\n", " \n\t\n", id="nothing but blank lines"),
        pytest.param("a\r\n\r\n", "a\r\n", id="CRLF"),
        pytest.param("\u2028a\u2028", "\u2028a\u2028", id="Unicode line separator stays"),
        pytest.param("\n" * 100_000 + "a" + "\n" * 100_000, "a\n", id="long"),
    ],
)
def test_trim_blank_lines(text: str, expected: str) -> None:
    assert trim_blank_lines(text) == expected


@pytest.mark.parametrize(
    ("text", "blank"),
    [("", True), (" \r\n\u3000", True), ("\u200b\u2060\ufeff\0\u00ad\u200e", True), ("\u3164", True), (".", False)],
)
def test_is_blank(text: str, blank: bool) -> None:
    assert is_blank(text) is blank


def test_words_fold_case_width_and_punctuation() -> None:
    assert words("ＦＬＵ, Straße: ﬁne_2 — 流感!") == ["flu", "strasse", "fine_2", "流感"]
