"""Checks parameters against the schema and says what is wrong in the words of params.yaml, all faults together."""

import difflib
from typing import Any, get_args

from pydantic import ValidationError

from pipeline.config.params import Params, Section
from pipeline.errors import ConfigError

TAGS = ("source", "kind")  # the keys by which the options of a group are told apart
# Pydantic's words → ours.
WORDS = {
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
    """Return the checked parameters, or raise ConfigError that names every fault, one a line."""
    if faults := param_errors(values):
        raise ConfigError(format_errors(faults))
    return Params.model_validate(values)


def param_errors(values: dict[str, Any]) -> list[str]:
    """One line for each fault of the parameters: unknown and missing keys, types, ranges, contradictions."""
    try:
        Params.model_validate(values)
    except ValidationError as error:
        return [format_error(details, values) for details in error.errors()]
    return []


def format_errors(faults: list[str]) -> str:
    head = "1 parameter is wrong:" if len(faults) == 1 else f"{len(faults)} parameters are wrong:"
    return "\n".join([head, *(f"  {each}" for each in faults)])


def format_error(details: Any, values: dict[str, Any]) -> str:
    """One line for one of pydantic's faults: the key as it is written in params.yaml, the value, what was expected."""
    loc = list(details["loc"])
    path = _without_tags(loc, values)
    key, kind, given = ".".join(str(part) for part in path), details["type"], details["input"]
    if kind.startswith("union_tag"):
        tag = details["ctx"]["discriminator"].strip("'")
        found = given.get(tag) if isinstance(given, dict) else given
        return f"{key}.{tag}: {found!r}; expected {details['ctx'].get('expected_tags', f'a {tag}')}"
    if kind == "model_attributes_type":
        return f"{key}: {given!r} is not right; choose an option of the group: {key.replace('.', '/')}=…"
    if kind == "extra_forbidden":
        return f"{key}: unknown key{_suggestion(path, loc)}"
    if kind == "missing":
        return f"{key}: missing; compose params.yaml anew: make params"
    if kind == "value_error":
        return f"{key}: {details['ctx']['error']}"
    if given is None:
        return f"{key}: is null; expected a value"
    expected = details["msg"]
    for theirs, ours in WORDS.items():
        expected = expected.replace(theirs, ours)
    return f"{key}: {given!r} is not right; {expected}"


def _without_tags(loc: list[Any], values: dict[str, Any]) -> list[Any]:
    """Pydantic puts a union's tag (data.FILE.path) into the location; params.yaml knows no such key."""
    path, section = [], values
    for part in loc:
        if isinstance(section, dict) and path and part in [section.get(tag) for tag in TAGS]:
            continue
        path.append(part)
        section = section.get(part) if isinstance(section, dict) else None
    return path


def _suggestion(path: list[Any], loc: list[Any]) -> str:
    known: list[str] = list(Params.model_fields)
    section: Any = Params
    for part in loc[:-1]:
        section = _step(section, part)
        known = list(section.model_fields) if isinstance(section, type) and issubclass(section, Section) else known
    near = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}"


def _step(section: Any, part: Any) -> Any:
    """The class behind one part of a location: a field's section, or a union's member with that tag."""
    if isinstance(section, type) and issubclass(section, Section):
        return section.model_fields[part].annotation if part in section.model_fields else section
    for member in get_args(section):
        if any(part in get_args(member.model_fields[tag].annotation) for tag in TAGS if tag in member.model_fields):
            return member
    return section
