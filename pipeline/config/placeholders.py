"""Placeholders in templates: the prompt template, and column mappings that combine several columns."""

from collections.abc import Mapping
from string import Formatter


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
    """The literal parts of a template, each with the placeholder that follows it.

    Raises ValueError if the braces do not match or a placeholder has a format or conversion.

    >>> parse_template("Q: {Title} ({Body})")
    [('Q: ', 'Title'), (' (', 'Body'), (')', None)]
    """
    parts: list[tuple[str, str | None]] = []
    for literal, name, form, conversion in Formatter().parse(template):
        if name == "" or form or conversion:
            content = (name or "") + ":" * bool(form) + (form or "")
            raise ValueError(f"a placeholder holds only the name of a column, not {content!r}")
        parts.append((literal, name))
    return parts


def column_template_errors(columns: Mapping[str, str]) -> list[str]:
    """The errors of the templates in data.columns, one line each."""
    errors = []
    for name, value in columns.items():
        try:
            has_placeholder = any(placeholder is not None for _, placeholder in parse_template(value))
        except ValueError as error:
            errors.append(
                f"columns.{name}: {value!r} is not a template: {error}; write {{{{ and }}}} for literal braces"
            )
        else:
            if ("{" in value or "}" in value) and not has_placeholder:
                errors.append(f"columns.{name}: {value!r} names no column; expected some, such as {{Title}}")
    return errors
