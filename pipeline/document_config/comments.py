"""The comment on each key of the shipped option files in conf/: the first sentence of the field's docstring."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from pipeline.config.base import Section
from pipeline.config.params import Params
from pipeline.core.paths import CONF
from pipeline.document_config.fields import (
    SHIPPED,
    describe_key,
    first_sentence,
    load_option,
    nested_section,
    option_file,
    section_of,
)

MAX_ALIGNED = 36  # column up to which the comments of a file are aligned
Keys = tuple[str, ...]  # the path of a key in its file


def expected_comments() -> dict[Path, dict[Keys, str]]:
    """Shipped file → the keys that it may hold → their comments."""
    files: dict[Path, dict[Keys, str]] = {
        option_file(group, option): dict(_section_comments(section_of(group, load_option(group, option))))
        for group, options in SHIPPED.items()
        for option in options
        if option_file(group, option).exists()
    }
    files[CONF / "config.yaml"] = {("version",): first_sentence(describe_key(Params, "version"))}
    return files


def _section_comments(section: type[Section], keys: Keys = ()) -> Iterator[tuple[Keys, str]]:
    for key in section.model_fields:
        yield (*keys, key), first_sentence(describe_key(section, key))
        if child := nested_section(section, key):
            yield from _section_comments(child, (*keys, key))


def outdated_comments(text: str, comments: dict[Keys, str]) -> dict[str, str]:
    r"""Dotted key → the comment after it, for the keys of a YAML text with another comment than the expected one.

    >>> outdated_comments("rank: 8 # old\nalpha: 16.0\n", {("rank",): "Rank", ("alpha",): "Scale"})
    {'rank': 'old', 'alpha': ''}
    """
    lines = text.splitlines()
    current = {keys: lines[line][end:].strip().removeprefix("# ") for keys, line, end in _commentable_keys(text)}
    return {".".join(keys): comment for keys, comment in current.items() if comment != comments.get(keys, comment)}


def write_comments(text: str, comments: dict[Keys, str]) -> str:
    r"""The YAML text with these comments after their keys, instead of the comments that are there.

    >>> print(write_comments("rank: 8 # old\nalpha: 16.0\n", {("rank",): "Rank", ("alpha",): "Scale"}), end="")
    rank: 8      # Rank
    alpha: 16.0  # Scale
    """
    lines = text.splitlines()
    positions = [(keys, line, end) for keys, line, end in _commentable_keys(text) if keys in comments]
    column = max((end for *_, end in positions if end <= MAX_ALIGNED), default=0)
    for keys, line, end in positions:
        lines[line] = f"{lines[line][:end]:<{column}}  # {comments[keys]}"
    return "\n".join(lines) + "\n"


def _commentable_keys(text: str) -> Iterator[tuple[Keys, int, int]]:
    """(key, line, column at which a comment may begin) of all keys, except those of flow collections."""
    root = yaml.compose(text)
    if isinstance(root, yaml.MappingNode):
        yield from _node_keys(root, ())


def _node_keys(node: yaml.MappingNode, parents: Keys) -> Iterator[tuple[Keys, int, int]]:
    for key, value in node.value:
        keys, line = (*parents, str(key.value)), key.end_mark.line
        begins_here, ends_here = value.start_mark.line == line, value.end_mark.line == line
        if not begins_here:  # a block below the key
            yield keys, line, key.end_mark.column + 1
        elif ends_here:
            yield keys, line, value.end_mark.column
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _node_keys(value, keys)
