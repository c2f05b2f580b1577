"""pipeline/records/text.py on literal texts."""

import pytest

from pipeline.records.text import collapse_whitespace, tidy_lines, words


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
        pytest.param("a\nb\n\nc", "a\nb\n\nc", id="line breaks stay"),
        pytest.param("a\r\n\u00a0\r\n\n\nb", "a\n\nb", id="at most two in a row"),
        pytest.param("if x:\n    return  1\t", "if x:\n    return 1", id="indentation stays"),
        pytest.param("a \u00a0 b\u200b", "a b", id="runs within a line"),
    ],
)
def test_tidy_lines(text: str, expected: str) -> None:
    assert tidy_lines(text) == expected


def test_words_fold_case_width_and_punctuation() -> None:
    assert words("ＦＬＵ, Straße: ﬁne_2 — 流感!") == ["flu", "strasse", "fine_2", "流感"]
