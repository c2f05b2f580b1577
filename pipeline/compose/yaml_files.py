"""Edits the files of conf/ in place, preserving comments, key order and quotes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.core.files import atomic_write
from pipeline.core.paths import CONF

CONFIG = CONF / "config.yaml"


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


def chosen_option(section: str) -> str | None:
    """The option that the defaults list of conf/config.yaml chooses for a group; None if it chooses none."""
    defaults = load_yaml(CONFIG)["defaults"]
    option = next((entry[section] for entry in defaults if isinstance(entry, dict) and section in entry), None)
    return None if option is None else str(option)


@contextmanager
def restored_on_error(paths: Iterable[Path]) -> Iterator[None]:
    """Give the files their present content back if the body fails or is interrupted, and remove those that are not there."""
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        raise
