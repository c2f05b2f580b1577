"""Placeholders in templates: the prompt template, and column mappings that combine several columns."""

import re
from collections.abc import Mapping
from string import Formatter

BRACES = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}]+)\}|[{}]")


def template_errors(prompt: str, completion: str) -> list[str]:
    """The errors of a prompt template, one line each."""
    return _placeholder_errors("prompt", prompt, "question") + _placeholder_errors("completion", completion, "answer")


def _placeholder_errors(name: str, template: str, placeholder: str) -> list[str]:
    try:
        parsed = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        return [f"{name} {template!r} is not a template: {error}; write {{{{ and }}}} for literal braces"]
    if parsed == [(placeholder, "", None)]:
        return []
    return [f"{name} {template!r} must hold {{{placeholder}}} once and no other placeholder"]


def parse_template(template: str) -> list[tuple[str, str | None]]:
    """The literal parts of a template, each with the name in braces that follows it; {{ and }} are literal braces.

    Raises ValueError if the braces do not match.

    >>> parse_template("Q: {Title} ({Body})")
    [('Q: ', 'Title'), (' (', 'Body'), (')', None)]
    """
    parts: list[tuple[str, str | None]] = []
    literal, position = "", 0
    for match in BRACES.finditer(template):
        literal += template[position : match.start()]
        position = match.end()
        if (name := match["name"]) is not None:
            parts.append((literal, name))
            literal = ""
        elif match[0] in ("{{", "}}"):
            literal += match[0][0]
        else:
            raise ValueError(f"the brace {match[0]} at character {match.start() + 1} has no partner")
    if literal := literal + template[position:]:
        parts.append((literal, None))
    return parts


def escape_braces(name: str) -> str:
    """A column's name as it is written in data.columns.

    >>> escape_braces("Frage {de}")
    'Frage {{de}}'
    """
    return name.replace("{", "{{").replace("}", "}}")


def column_template_errors(columns: Mapping[str, str]) -> list[str]:
    """The errors of the templates in data.columns, one line each."""
    errors = []
    for name, value in columns.items():
        try:
            parse_template(value)
        except ValueError as error:
            errors.append(
                f"columns.{name}: {value!r} is not a template: {error}; write {{{{ and }}}} for literal braces"
            )
    return errors
