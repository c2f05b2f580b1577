"""What clean changes in the texts of a row: repairs encodings, tidies spaces, strips endings, masks contact details."""

import re
from collections.abc import Callable

import regex

from pipeline.config.params import Clean
from pipeline.records.text import collapse_whitespace, tidy_lines

# Name in metrics/clean.json → description of the changed rows.
TRANSFORMS = {
    "mended": "with a repaired encoding",
    "stripped": "with text stripped from the end",
    "masked": "with masked contacts",
}
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
# A number with its country code; ten digits as 3-3-4 or 5-5; ten or eleven digits in a row that begin like mobile and
# trunk numbers. The doses, blood pressures, dates and ranges that doctors write match none of these.
PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,5}(?<=\d{2})|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}|\d{5}[ -]\d{5}"
    r"|0\d{9,10}|[6-9]\d{9})(?![\w/-])"
)


class Transforms:
    """Turns a cell into the text to learn from. Each method adds to `applied` the TRANSFORMS that changed the text."""

    def __init__(self, options: Clean) -> None:
        self.options = options
        # Matched backwards: a text with another ending is rejected at its last character.
        self.endings = [regex.compile(pattern, regex.IGNORECASE | regex.REVERSE) for pattern in options.strip]
        self.fix_encoding: Callable[[str], str] = str
        if options.mend_encoding:
            from ftfy import fix_encoding

            self.fix_encoding = fix_encoding

    def clean_text(self, cell: str, is_prose: bool, applied: set[str]) -> str:
        """Clean any text. In prose, line breaks have no meaning and become spaces."""
        if (text := self.fix_encoding(cell)) != cell:
            applied.add("mended")
        text = collapse_whitespace(text) if is_prose else tidy_lines(text)
        if self.options.contacts == "mask" and (masked := mask_contacts(text)) != text:
            applied.add("masked")
            return masked
        return text

    def strip_question(self, text: str) -> str:
        return strip_prefixes(text, self.options.question_prefixes)

    def strip_answer(self, text: str, applied: set[str]) -> str:
        for ending in self.endings:
            if match := ending.match(text):
                text = text[: match.start()].rstrip()
                applied.add("stripped")
        return text


def strip_prefixes(text: str, prefixes: list[str]) -> str:
    """The text without the prefixes; each is removed once, in the order given.

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
