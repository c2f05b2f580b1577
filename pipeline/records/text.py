"""Normalizes text: whitespace for training, and words for comparison."""

import re
import unicodedata

INVISIBLE = re.compile("[\u200b\u2060\ufeff\x00]")  # zero-width space, word joiner, byte order mark, NUL
BLANK_LETTERS = "\u2800\u3164\uffa0\u115f\u1160"  # a Braille pattern and Hangul letters that show nothing
WORD = re.compile(r"\w+")


def cell_text(value: str | float | None) -> str:
    """A cell as text: None and NaN are empty, 3.0 (an integer in a column with gaps) is 3.

    >>> cell_text(None), cell_text(3.0), cell_text("a")
    ('', '3', 'a')
    """
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def is_blank(text: str) -> bool:
    r"""Whether a text has nothing to see: only whitespace, control and invisible characters.

    >>> is_blank("\u200b\u00a0\n\ufeff"), is_blank(" 0")
    (True, False)
    """
    if text[:1].isalnum() and text[0] not in BLANK_LETTERS:
        return False
    return all(c.isspace() or c in BLANK_LETTERS or unicodedata.category(c) in ("Cc", "Cf") for c in text)


def normalize_line_ends(text: str) -> str:
    r"""
    >>> normalize_line_ends("a\r\nb\rc\n")
    'a\nb\nc\n'
    """
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def trim_blank_lines(text: str) -> str:
    r"""The text without blank lines at its start and end; its first line's indentation and its last line's end stay.

    >>> trim_blank_lines("\n \n  return 1\n\n"), trim_blank_lines("a\n")
    ('  return 1\n', 'a\n')
    """
    if not (text[:1].isspace() or text[-1:].isspace()) or text.isspace():
        return text
    start = len(text) - len(text.lstrip())
    end = len(text.rstrip())
    line_end = text.find("\n", end)
    return text[text.rfind("\n", 0, start) + 1 : line_end + 1 if line_end >= 0 else len(text)]


def collapse_whitespace(text: str) -> str:
    r"""The text with every run of whitespace, no-break spaces included, as one space, and none at the ends.

    >>> collapse_whitespace(" Hi\u00a0doctor, \n\n thanks ")
    'Hi doctor, thanks'
    """
    return " ".join(_strip_invisible(text).split())


def _strip_invisible(text: str) -> str:
    return text if text.isascii() and "\0" not in text else INVISIBLE.sub("", text)


def words(text: str) -> list[str]:
    """The words of a text for comparison: compatibility forms and case are folded, punctuation is left out.

    >>> words("What\u2019s  Ｈ２Ｏ, doctor?")
    ['what', 's', 'h2o', 'doctor']
    """
    folded = (
        text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    )  # the same result, faster
    return WORD.findall(folded)


def comparison_key(question: str) -> tuple[str, ...]:
    """The key by which questions are compared: the words, or the text itself if it has none.

    >>> comparison_key("Is it flu?") == comparison_key("is it FLU"), comparison_key("???") == comparison_key("!")
    (True, False)
    """
    return tuple(words(question)) or (question,)
