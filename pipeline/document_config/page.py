"""docs/configuration.md: every key of params.yaml with its type, meaning and default."""

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config.base import Section
from pipeline.config.params import Params
from pipeline.config.validation import DISCRIMINATORS
from pipeline.document_config.fields import (
    SHIPPED,
    describe_key,
    describe_section,
    describe_type,
    load_option,
    nested_section,
    option_file,
    section_of,
)

PAGE = Path("docs/configuration.md")
INTRODUCTION = """\
<!-- Written by `python -m pipeline.document_config` from the docstrings in pipeline/config/ and the values in conf/. -->

# Configuration

Every key of `params.yaml`, with its type, meaning and default. Set a key for one experiment with `-S`, such as
`dvc exp run -S train.epochs=3`, and choose an option of a group likewise, such as `-S train/method=lora`. To change a
default, edit the file in `conf/` that sets it, then run `make params`.
"""
PATTERNS_NOTE = (
    "Patterns that fit one dataset. `data=generated` (so the default configuration) and `data=medical` select "
    "`medical`; other data options use `none`."
)
WIDTH = 120
MAX_DEFAULT = 60  # characters of a value on the page; of a longer one, the page names the file


def render_page() -> str:
    """The page, with the defaults that conf/ has now."""
    blocks = [INTRODUCTION.rstrip()]
    for name in Params.model_fields:
        blocks.append(f"## `{name}`")
        if name not in SHIPPED:
            blocks.append(_render_keys(Params, [name], load_option("", "config"), option_file("", "config")))
            continue
        blocks.append(_wrap(describe_key(Params, name)))
        if len(SHIPPED[name]) > 1:
            blocks += _render_group(name, "###")
        else:
            blocks += _render_section(section_of(name, {}), name, load_option(name, "default"), "###")
    return "\n\n".join(blocks) + "\n"


def _render_section(section: type[Section], name: str, values: dict[str, Any], heading: str) -> Iterator[str]:
    """The blocks of a section without options: its own keys, its nested sections, its groups."""
    nested = {key: child for key in section.model_fields if (child := nested_section(section, key))}
    groups = [group for group in SHIPPED if group.startswith(f"{name}/")]
    group_keys = {group.rpartition("/")[2] for group in groups}
    keys = [key for key in section.model_fields if key not in {*nested, *group_keys}]
    yield _render_keys(section, keys, values, option_file(name.split(".")[0], "default"))
    for key, child in nested.items():
        if key not in group_keys:
            yield from (f"{heading} `{name}.{key}`", _wrap(describe_key(section, key)))
            yield from _render_section(child, f"{name}.{key}", values.get(key, {}), f"{heading}#")
    for group in groups:
        key = group.rpartition("/")[2]
        text = describe_key(section, key) if key in section.model_fields else PATTERNS_NOTE
        yield from (f"{heading} `{group}`", _wrap(text), *_render_group(group, f"{heading}#"))


def _render_group(group: str, heading: str) -> Iterator[str]:
    """The blocks of a group: its options, each with its keys. A class that several options share is described once."""
    options = [option for option in SHIPPED[group] if option_file(group, option).exists()]
    names = ", ".join(f"`{group}={option}`" for option in options)
    yield _wrap(f"Options: {names}. Default: `{_default_option(group)}`.")
    described: dict[type[Section], str] = {}
    for option in options:
        values = load_option(group, option)
        section = section_of(group, values)
        yield f"{heading} `{group}={option}`"
        keys = [key for key in values if key in section.model_fields and key not in DISCRIMINATORS]
        if section in described:
            yield f"The keys of `{group}={described[section]}`, with other defaults."
        elif section.model_fields.keys() & set(DISCRIMINATORS):
            yield _wrap(describe_section(section))
        if keys:
            yield _render_keys(section, keys, values, option_file(group, option), is_short=section in described)
        described.setdefault(section, option)


def _default_option(group: str) -> str:
    section, _, name = group.rpartition("/")
    config = load_option(section, "default") if section else load_option("", "config")
    return str(next(entry[name] for entry in config["defaults"] if isinstance(entry, dict) and name in entry))


def _render_keys(
    section: type[Section], keys: list[str], values: dict[str, Any], path: Path, is_short: bool = False
) -> str:
    """A list of keys with their types, meanings and defaults; if short, with their defaults only."""
    schemas = section.model_json_schema()["properties"]
    entries = []
    for key in keys:
        words = describe_type(schemas[key])
        text = f"**`{key}`**." if is_short else f"**`{key}`** ({words}): {describe_key(section, key)}"
        entries.append(f"{text} {_describe_default(key, values, path, 'null' not in words)}.")
    return "\n".join(_wrap(f"- {entry}") for entry in entries)


def _describe_default(key: str, values: dict[str, Any], path: Path, is_required: bool) -> str:
    if key not in values:
        groups = [group for group in SHIPPED if group.startswith(f"{path.parent.name}/")]
        return f"Default: from `{groups[0]}`" if groups else "Default: none"
    value = values[key]
    if value is None and is_required:
        return "Required; no default"
    text = value if isinstance(value, str) and "\n" not in value else json.dumps(value, ensure_ascii=False)
    return f"Default: `{text}`" if len(text) <= MAX_DEFAULT else f"Default: in `{path}`"


def _wrap(text: str) -> str:
    """Wrap a paragraph or list item, but not inside code: in Markdown, a line starting with # or + is not plain text."""
    indent = "  " if text.startswith("- ") else ""
    joined_code = re.sub("`[^`]*`", lambda code: code[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(joined_code, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")
