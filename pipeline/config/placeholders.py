"""Placeholders in templates: of the prompt, and of texts made of several columns."""

from collections.abc import Mapping
from string import Formatter


def template_errors(prompt: str, completion: str) -> list[str]:
    """What keeps the two texts from being a template; empty if nothing does."""
    return _faults("prompt", prompt, "question") + _faults("completion", completion, "answer")


def _faults(name: str, template: str, field: str) -> list[str]:
    try:
        parsed = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        return [f"{name} {template!r} is not a template: {error}; write {{{{ and }}}} for literal braces"]
    return (
        []
        if parsed == [(field, "", None)]
        else [f"{name} {template!r} must hold {{{field}}} once and no other placeholder"]
    )


def parse_template(template: str) -> list[tuple[str, str | None]]:
    """Literal texts, each with the placeholder that follows it; ValueError if the braces do not match.

    >>> parse_template("Q: {Title} ({Body})")
    [('Q: ', 'Title'), (' (', 'Body'), (')', None)]
    """
    found = []
    for literal, name, form, conversion in Formatter().parse(template):
        if name == "" or form or conversion:
            raise ValueError(
                f"a placeholder holds the name of a column alone, not {name + ':' * bool(form) + (form or '')!r}"
            )
        found.append((literal, name))
    return found


def column_template_errors(columns: Mapping[str, str]) -> list[str]:
    """What keeps values of data.columns that hold braces from being templates of the source's columns."""
    faults = []
    for name, value in columns.items():
        try:
            has_column = any(field is not None for _, field in parse_template(value))
        except ValueError as error:
            faults.append(
                f"columns.{name}: {value!r} is not a template: {error}; write {{{{ and }}}} for literal braces"
            )
        else:
            if ("{" in value or "}" in value) and not has_column:
                faults.append(f"columns.{name}: {value!r} names no column; expected some, such as {{Title}}")
    return faults
