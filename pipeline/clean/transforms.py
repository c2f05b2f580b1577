"""What clean changes in the texts of a row: damage mended, spaces tidied, endings stripped, contacts masked."""

import re
from collections.abc import Callable

import regex

from pipeline.config.params import Clean
from pipeline.records.text import collapse_whitespace, tidy_lines

TRANSFORMS = ("mended", "stripped", "masked")
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
# A number with its country's code; ten digits as 3-3-4 or 5-5; ten or eleven in a row as mobile and trunk numbers
# begin. What doctors write of doses, blood pressure, dates and ranges is none of these.
PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,5}(?<=\d{2})|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}|\d{5}[ -]\d{5}"
    r"|0\d{9,10}|[6-9]\d{9})(?![\w/-])"
)


class Transforms:
    """Makes a cell the text that is learned. `done` collects which of CHANGES were made to a row."""

    def __init__(self, options: Clean) -> None:
        self.options = options
        # Backwards from the end: a text that ends otherwise is left at the first sign.
        self.endings = [regex.compile(each, regex.IGNORECASE | regex.REVERSE) for each in options.strip]
        self.mend: Callable[[str], str] = str
        if options.mend_encoding:
            from ftfy import fix_encoding

            self.mend = fix_encoding

    def text(self, cell: str, prose: bool, done: set[str]) -> str:
        """What holds of every text. `prose`: line breaks mean nothing."""
        if (text := self.mend(cell)) != cell:
            done.add("mended")
        text = collapse_whitespace(text) if prose else tidy_lines(text)
        if self.options.contacts == "mask" and (masked := mask_contacts(text)) != text:
            done.add("masked")
            return masked
        return text

    def question(self, text: str) -> str:
        return strip_prefixes(text, self.options.question_prefixes)

    def answer(self, text: str, done: set[str]) -> str:
        for ending in self.endings:
            if found := ending.match(text):
                text = text[: found.start()].rstrip()
                done.add("stripped")
        return text


def strip_prefixes(text: str, prefixes: list[str]) -> str:
    """The text without those of the prefixes that it starts with, each as a whole.

    >>> strip_prefixes("Q. Quick pulse?", ["Q."]), strip_prefixes("Quick pulse?", ["Q."])
    ('Quick pulse?', 'Quick pulse?')
    """
    for prefix in prefixes:
        text = text.removeprefix(prefix).strip()
    return text


def mask_contacts(text: str) -> str:
    """
    >>> mask_contacts("Write to ann.lee@example.org or call +44 20 7946 0958.")
    'Write to [email] or call [phone].'
    """
    return PHONE.sub("[phone]", EMAIL.sub("[email]", text))
