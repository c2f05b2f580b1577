"""Edits the files of conf/ in place, preserving comments, key order and quotes."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.core.files import atomic_write


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 120
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    return yaml


def load_yaml(path: Path) -> Any:
    return _yaml().load(path)


def dump_yaml(path: Path, config: Any) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        _yaml().dump(config, stream)
