"""Overrides on the command line in Hydra's grammar, and the correction of one that does not parse.

In that grammar a value without quotes may hold ASCII letters, digits and few other characters: no umlaut, no quote, no #,
and a comma begins a second value. Within quotes it may hold anything.
"""

import re
import shlex
from functools import cache
from typing import Any

import yaml

from pipeline.config.addresses import display_text

SAFE_IN_DOUBLE_QUOTES = re.compile(r'[^"$`\\!]*')  # what a shell leaves alone between double quotes
BARE = re.compile(r"[A-Za-z][\w./-]*", re.ASCII)  # a value that needs no quotes
LITERALS = {"null", "true", "false", "nan", "inf"}  # bare words that are not text


def quote_value(value: Any) -> str:
    r"""A text, or a mapping or list of texts, as a value of an override.

    >>> print(quote_value("helpdesk.csv"), quote_value("Über Fragen/x.jsonl"), quote_value("it's"))
    helpdesk.csv 'Über Fragen/x.jsonl' 'it\'s'
    >>> quote_value({"question": "{Subject} {Body}", "answer": "Reply"})
    "{question: '{Subject} {Body}', answer: Reply}"
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quote_value(key)}: {quote_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(quote_value, value)) + "]"
    if not isinstance(value, str):
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    if BARE.fullmatch(value) and value.lower() not in LITERALS:
        return value
    # A backslash is itself, except before a quote: before the closing one, too.
    escaped = re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"'{escaped}'"


def shell_quote(override: str) -> str:
    """The override as one word of a shell command, in double quotes where that is enough.

    >>> print(shell_quote("data=file"), shell_quote("data.path='Über Fragen/x.jsonl'"))
    data=file "data.path='Über Fragen/x.jsonl'"
    """
    quoted = shlex.quote(override)
    is_readable = quoted == override or ("'" in override and SAFE_IN_DOUBLE_QUOTES.fullmatch(override))
    return (override if quoted == override else f'"{override}"') if is_readable else quoted


def correct_override(override: str) -> str | None:
    """The override with its value in quotes, if it does not parse as one value without them; else None.

    >>> correct_override("data.path=Über Fragen/x.jsonl"), correct_override("data.path=a b.csv")
    ("data.path='Über Fragen/x.jsonl'", None)
    >>> correct_override("data.columns={question: Über, answer: Reply}")
    "data.columns={question: 'Über', answer: Reply}"
    """
    key, separator, text = override.partition("=")
    if not separator or not key.isascii() or _is_one_value(override):
        return None
    corrected = f"{key}={quote_value(_meant_value(text))}"
    return corrected if _is_one_value(corrected) else None


def _meant_value(text: str) -> Any:
    """A mapping or list in YAML's notation, which is that of Hydra but for the quotes; else the text itself."""
    if text[:1] in ("{", "["):
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            return text
        if isinstance(value, dict | list):
            return value
    return re.fullmatch(r"(['\"]?)(.*)\1", text, re.DOTALL)[2]  # type: ignore[index]  # matches any text


@cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def _is_one_value(override: str) -> bool:
    from hydra.errors import HydraException

    try:
        return not _parser().parse_override(override).is_sweep_override()
    except HydraException:
        return False


def override_error(override: str) -> str | None:
    """What is wrong with an override that is not one value, with the command corrected where that is possible; else None.

    Addresses are shown without their query: this check comes before the one for credentials.
    """
    if _is_one_value(override):
        return None
    shown, corrected = display_text(override), correct_override(override)
    if corrected is None:
        return f"{shown}: not in Hydra's grammar; expected KEY=VALUE or GROUP=OPTION"
    value = shown.partition("=")[2]
    reason = "several values" if _is_sweep(override) else f"{value} has characters that Hydra reads only within quotes"
    grid = "; a grid needs dvc exp run --queue" if _is_sweep(override) else ""
    return (
        f"{shown}: {reason}{grid}. For one value, add quotes inside the shell's own: "
        f"-S {shell_quote(display_text(corrected))} (python -m pipeline.compose takes it without -S)"
    )


def parse_value(override: str) -> Any:
    """The value of an override that has no error; texts in it without their quotes.

    >>> parse_value("data.columns={question: 'Über', answer: Reply}")
    {'question': 'Über', 'answer': 'Reply'}
    """
    return _parser().parse_override(override).value()


def _is_sweep(override: str) -> bool:
    from hydra.errors import HydraException

    try:
        return bool(_parser().parse_override(override).is_sweep_override())
    except HydraException:
        return False
