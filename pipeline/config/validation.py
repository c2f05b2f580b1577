"""Checks parameters against the schema and reports all errors together, by the keys of params.yaml."""

import difflib
from typing import Any, get_args

from pydantic import ValidationError

from pipeline.config.base import Section
from pipeline.config.params import Params
from pipeline.errors import ConfigError

DISCRIMINATORS = ("source", "kind")  # the keys that name the option of a group
# Pydantic's wording → ours.
PLAIN_WORDING = {
    "Input should be": "expected",
    "String should have at least 1 character": "expected some text",
    "String should match pattern '^[0-9a-f]{64}$'": "expected a SHA-256, 64 digits from 0 to f",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid list": "a list",
    "a valid dictionary": "keys with values",
}


def validate_params(values: dict[str, Any]) -> Params:
    """The checked parameters. Raises ConfigError with all errors, one per line."""
    if errors := param_errors(values):
        raise ConfigError(format_errors(errors))
    return Params.model_validate(values)


def param_errors(values: dict[str, Any]) -> list[str]:
    """One line per error: unknown and missing keys, types, ranges, contradictions."""
    try:
        Params.model_validate(values)
    except ValidationError as error:
        return [format_error(details, values) for details in error.errors()]
    return []


def format_errors(errors: list[str]) -> str:
    """A message with all errors, one per line."""
    head = f"{len(errors)} invalid parameter{'s' if len(errors) > 1 else ''}:"
    return "\n".join([head, *(f"  {error}" for error in errors)])


def format_error(details: Any, values: dict[str, Any]) -> str:
    """One line for one of pydantic's errors: the key as in params.yaml, the value, and what was expected."""
    loc = list(details["loc"])
    path = _path_without_tags(loc, values)
    key, kind, value = ".".join(str(part) for part in path), details["type"], details["input"]
    if kind.startswith("union_tag"):
        discriminator = details["ctx"]["discriminator"].strip("'")
        tag = value.get(discriminator) if isinstance(value, dict) else value
        expected_tags = details["ctx"].get("expected_tags", f"a {discriminator}")
        return f"{key}.{discriminator}: {tag!r}; expected {expected_tags}"
    if kind == "model_attributes_type":
        return f"{key}: {value!r} is invalid; choose an option of the group: {key.replace('.', '/')}=…"
    if kind == "extra_forbidden":
        return f"{key}: unknown key{_suggestion(path, loc)}"
    if kind == "missing":
        return f"{key}: missing; compose params.yaml again: make params"
    if kind == "value_error":
        return f"{key}: {details['ctx']['error']}"
    if value is None:
        return f"{key}: required, but null"
    expected = details["msg"]
    for pydantic_wording, plain_wording in PLAIN_WORDING.items():
        expected = expected.replace(pydantic_wording, plain_wording)
    if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        expected += f", which needs quotes: -S \"{key}='{value}'\""
    return f"{key}: {value!r} is invalid; {expected}"


def _path_without_tags(loc: list[Any], values: dict[str, Any]) -> list[Any]:
    """The path of a key in params.yaml: pydantic adds the tags of unions to a location, such as data.FILE.path."""
    path: list[Any] = []
    section: Any = values
    for part in loc:
        if isinstance(section, dict) and path and part in [section.get(name) for name in DISCRIMINATORS]:
            continue
        path.append(part)
        section = section.get(part) if isinstance(section, dict) else None
    return path


def _suggestion(path: list[Any], loc: list[Any]) -> str:
    known: list[str] = list(Params.model_fields)
    section: Any = Params
    for part in loc[:-1]:
        section = _child_section(section, part)
        known = list(section.model_fields) if isinstance(section, type) and issubclass(section, Section) else known
    matches = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"; did you mean {matches[0]}?" if matches else f"; known here: {', '.join(known)}"


def _child_section(section: Any, part: Any) -> Any:
    """The class that one part of a location leads to: the section of a field, or the member of a union with that tag."""
    if isinstance(section, type) and issubclass(section, Section):
        return section.model_fields[part].annotation if part in section.model_fields else section
    for member in get_args(section):
        tags = [member.model_fields[name].annotation for name in DISCRIMINATORS if name in member.model_fields]
        if any(part in get_args(tag) for tag in tags):
            return member
    return section
