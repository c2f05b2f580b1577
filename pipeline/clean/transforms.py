"""What clean changes in the texts of a row. Without a switch: only line ends, and blank lines around an answer."""

import re
from collections.abc import Callable
from functools import partial

import regex

from pipeline.clean.emails import strip_quoted_reply, strip_signature
from pipeline.clean.html_text import html_to_text
from pipeline.config.params import Clean
from pipeline.records.tasks import Task
from pipeline.records.text import collapse_whitespace, normalize_line_ends, trim_blank_lines

# Name in metrics/details/clean.json → description of the changed rows.
TRANSFORMS = {
    "line_ends": "with normalized line ends",
    "mended": "with a repaired encoding",
    "html": "with HTML turned into text",
    "quoted_replies": "without a quoted reply",
    "signatures": "without a signature",
    "whitespace": "with collapsed whitespace",
    "masked": "with masked contacts",
    "prefixes": "without a prefix of the question",
    "stripped": "with text stripped from the end",
    "blank_lines": "without blank lines around an answer",
}
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
# A number with its country code; ten digits as 3-3-4 or 5-5; ten or eleven digits in a row that begin like mobile and
# trunk numbers. The doses, blood pressures, dates and ranges that doctors write match none of these.
PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,5}(?<=\d{2})|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}|\d{5}[ -]\d{5}"
    r"|0\d{9,10}|[6-9]\d{9})(?![\w/-])"
)
CONTINUATIONS = ("prompt/completion", "text")  # tasks whose texts go on where another ends: their blank lines count

TransformStep = tuple[str, Callable[[str], str]]  # name in TRANSFORMS, function
Changes = dict[str, tuple[str, str]]  # name in TRANSFORMS → the first text that it changed in the row, before and after


class Transforms:
    """The steps that the clean section turns on, by the kind of text."""

    def __init__(self, options: Clean, task: Task) -> None:
        before = [
            *_step("line_ends", normalize_line_ends, options.line_ends == "normalize"),
            *_encoding_steps(options),
            *_step("html", html_to_text, options.html == "text"),
        ]
        emails = [
            *_step("quoted_replies", strip_quoted_reply, options.quoted_replies == "strip"),
            *_step("signatures", strip_signature, options.signatures == "strip"),
        ]
        after = [
            *_step("whitespace", collapse_whitespace, options.whitespace == "collapse"),
            *_step("masked", mask_contacts, options.contacts == "mask"),
        ]
        prefixes, endings = options.question_prefixes, _compile_endings(options.strip)
        trims = options.blank_lines == "trim" and task.name not in CONTINUATIONS
        self.outer = _step("blank_lines", trim_blank_lines, trims)
        self.endings = _step("stripped", partial(strip_endings, endings=endings), bool(endings))
        self.context = [*before, *after]  # system prompts and tool results
        self.text = [*before, *emails, *after]
        self.question = [*self.text, *_step("prefixes", partial(strip_prefixes, prefixes=prefixes), bool(prefixes))]
        self.answer = [*self.text, *self.endings, *self.outer]


def _step(name: str, function: Callable[[str], str], is_on: bool) -> list[TransformStep]:
    return [(name, function)] if is_on else []


def apply_steps(text: str, steps: list[TransformStep], changes: Changes) -> str:
    """The text after the steps. Each step that changes it is added to `changes`."""
    for name, function in steps:
        changed = function(text)
        if changed != text:
            changes.setdefault(name, (text, changed))
            text = changed
    return text


def _encoding_steps(options: Clean) -> list[TransformStep]:
    if not options.mend_encoding:
        return []
    from ftfy import fix_encoding

    return [("mended", fix_encoding)]


def _compile_endings(patterns: list[str]) -> list["regex.Pattern[str]"]:
    # Matched backwards: a text with another ending is rejected at its last character.
    return [regex.compile(pattern, regex.IGNORECASE | regex.REVERSE) for pattern in patterns]


def strip_endings(text: str, endings: list["regex.Pattern[str]"]) -> str:
    """The text without what the patterns match at its end, whitespace aside."""
    for ending in endings:
        body = text.rstrip()
        match = ending.match(body)
        if match and match.start() < len(body):
            text = body[: match.start()].rstrip()
    return text


def strip_prefixes(text: str, prefixes: list[str]) -> str:
    """The text without the prefixes; each is removed once, in the order given.

    >>> strip_prefixes("Q. Quick pulse?", ["Q."]), strip_prefixes("  Quick pulse?", ["Q."])
    ('Quick pulse?', '  Quick pulse?')
    """
    for prefix in prefixes:
        start = text.lstrip()
        if start.startswith(prefix):
            text = start[len(prefix) :].lstrip()
    return text


def mask_contacts(text: str) -> str:
    """
    >>> mask_contacts("Write to ann.lee@example.org or call +44 20 7946 0958.")
    'Write to [email] or call [phone].'
    """
    return PHONE.sub("[phone]", EMAIL.sub("[email]", text))
