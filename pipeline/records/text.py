"""Normalizes text: whitespace for training, and words for comparison."""

import re
import unicodedata

INVISIBLE = re.compile("[\u200b\u2060\ufeff\x00]")  # zero-width space, word joiner, byte order mark, NUL
WORD = re.compile(r"\w+")


def cell_text(value: str | float | None) -> str:
    """A cell as text: None and NaN are empty, 3.0 (an integer in a column with gaps) is 3.

    >>> cell_text(None), cell_text(3.0), cell_text("a")
    ('', '3', 'a')
    """
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def collapse_whitespace(text: str) -> str:
    r"""The text with every run of whitespace, no-break spaces included, as one space, and none at the ends.

    >>> collapse_whitespace(" Hi\u00a0doctor, \n\n thanks ")
    'Hi doctor, thanks'
    """
    return " ".join(_strip_invisible(text).split())


def _strip_invisible(text: str) -> str:
    return text if text.isascii() and "\0" not in text else INVISIBLE.sub("", text)


def tidy_lines(text: str) -> str:
    r"""As `collapse_whitespace`, but indentation and line breaks stay, at most two in a row: for code and lists.

    >>> tidy_lines("def f():\u00a0\n\n\n\n  return 1 ")
    'def f():\n\n  return 1'
    """
    lines = [re.sub(r"(?<=\S)[^\S\n]+", " ", line).rstrip() for line in _strip_invisible(text).splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


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
