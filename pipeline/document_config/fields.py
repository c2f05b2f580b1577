"""The schema in words: the shipped options of each group, and the description and type of their keys."""

import inspect
import re
from pathlib import Path
from typing import Any, get_args

import yaml

from pipeline.config.base import Section
from pipeline.config.params import Params
from pipeline.config.validation import DISCRIMINATORS
from pipeline.core.paths import CONF

# Group → its options in conf/, in the order of the page.
SHIPPED: dict[str, tuple[str, ...]] = {
    "data": ("generated", "generated_chats", "file", "hub", "medical"),
    "model": ("folder", "nano", "hub", "pythia-70m", "scratch"),
    "clean": ("default",),
    "clean/preset": ("none", "medical"),
    "format": ("default",),
    "format/template": ("auto", "chat", "tutorial", "plain"),
    "format/near": ("question", "question_and_answer"),
    "tokenize": ("default",),
    "train": ("default",),
    "train/method": ("full", "lora", "qlora"),
    "train/schedule": (
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "step",
        "exponential",
        "inverse_sqrt",
        "warmup_stable_decay",
        "plateau",
    ),
    "compute": ("local", "ddp", "fsdp"),
    "evaluate": ("default",),
    "compare": ("default",),
}


def option_file(group: str, option: str) -> Path:
    return CONF / group / f"{option}.yaml"


def load_option(group: str, option: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(option_file(group, option).read_text(encoding="utf-8"))
    return values


def section_of(group: str, values: dict[str, Any]) -> type[Section]:
    """The schema class of an option with these values: of a union, the member that `kind` or `source` names."""
    annotation: Any = Params
    for name in group.split("/"):
        if name in annotation.model_fields:  # clean/preset has keys of clean itself
            annotation = annotation.model_fields[name].annotation
    members: tuple[type[Section], ...] = get_args(annotation) or (annotation,)
    return next(member for member in members if _tag_of(member) in (None, *values.values()))


def _tag_of(section: type[Section]) -> Any:
    """The `kind` or `source` that selects a member of a union."""
    tags = (section.model_fields[name].annotation for name in DISCRIMINATORS if name in section.model_fields)
    return next((get_args(tag)[0] for tag in tags), None)


def nested_section(section: type[Section], key: str) -> type[Section] | None:
    """The class of a key that holds a section without options."""
    annotation = section.model_fields[key].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def describe_section(section: type[Section]) -> str:
    return " ".join(inspect.cleandoc(section.__doc__ or "").split())


def describe_key(section: type[Section], key: str) -> str:
    """The docstring of a field on one line; for `kind` and `source`, the docstring of the class."""
    if key in DISCRIMINATORS:
        return describe_section(section)
    return " ".join((section.model_fields[key].description or "").split())


def first_sentence(text: str) -> str:
    """
    >>> first_sentence("Share of train.learning_rate; null: all of it. Not used with folds.")
    'Share of train.learning_rate; null: all of it'
    """
    return re.split(r"\.(?:\s|$)", text, maxsplit=1)[0]


def describe_type(schema: dict[str, Any]) -> str:
    """The JSON schema of a field in words.

    >>> describe_type({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]})
    'integer of at least 1 or null'
    """
    if "anyOf" in schema:
        return " or ".join(map(describe_type, schema["anyOf"]))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        *others, last = (f"`{choice}`" for choice in schema["enum"])
        return f"{', '.join(others)} or {last}"
    if "pattern" in schema:
        return "SHA-256 in hexadecimal"
    kind: str = schema["type"]
    if kind == "array":
        items = describe_type(schema["items"])
        return f"list of {items}" if "enum" in schema["items"] else f"list of {items}s"
    return {"boolean": "true or false", "object": "mapping"}.get(kind, kind) + _describe_range(schema)


def _describe_range(schema: dict[str, Any]) -> str:
    """
    >>> _describe_range({"minimum": 0, "maximum": 1}), _describe_range({"exclusiveMinimum": 0, "exclusiveMaximum": 1.0})
    (' from 0 to 1', ' above 0 and below 1')
    """
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    words = {
        "minimum": "of at least",
        "exclusiveMinimum": "above",
        "maximum": "of at most",
        "exclusiveMaximum": "below",
    }
    limits = [f"{words[name]} {schema[name]:.10g}" for name in words if name in schema]
    return f" {' and '.join(limits)}" if limits else ""
