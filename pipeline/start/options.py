"""Which options of conf/ start writes or chooses for the rows and for the model."""

from pathlib import Path
from typing import Any, NamedTuple

from pipeline.compose.yaml_files import chosen_option, load_yaml
from pipeline.core.paths import CONF
from pipeline.errors import ConfigError
from pipeline.start.naming import RESERVED, option_name, require_option_name
from pipeline.start.questions import Questions
from pipeline.start.source import Named, find_option, is_same_source


class Target(NamedTuple):
    """An option to choose: one to write, by copying `base` and changing it, or one that is there and stays as it is."""

    group: str
    name: str
    base: str  # the option that is copied, which is itself if it is there already and about the same source
    source: Named | None  # None: stays as it is

    @property
    def path(self) -> Path:
        return CONF / self.group / f"{self.name}.yaml"

    @property
    def changes(self) -> dict[str, Any]:
        """The keys that say which source it is."""
        return {self.source.key: self.source.value} if self.source else {}


def data_target(source: Named, given_name: str | None, is_changed: bool, questions: Questions) -> Target:
    """The option for the rows. is_changed: whether keys besides the source's are set.

    Raises ConfigError if the given name is invalid or taken by other rows.
    """
    base = source.kind
    if given_name is None:
        existing = find_option("data", source)
        if existing is not None and not _is_shipped("data", existing):
            return Target("data", existing, existing, source)
        if existing is not None and not is_changed:
            return Target("data", existing, existing, None)
        base, name = existing or base, option_name(source.value, "data")
    else:
        name = require_option_name(given_name, "data")
    path = CONF / "data" / f"{name}.yaml"
    if not path.exists():
        return Target("data", name, base, source)
    option = load_yaml(path)
    if is_same_source(option, source):
        return Target("data", name, name, source)
    other = option.get("path") or option.get("name")
    if questions.confirm(f"{path} is about {other}. Overwrite it?", default=False):
        return Target("data", name, base, source)
    if given_name is not None:
        raise ConfigError(f"--name: {name} is taken: {path} is about {other}; choose another name, or remove that file")
    return Target("data", _free_name("data", name), base, source)


def model_target(source: Named | str | None) -> Target:
    """The option for the model; None: the one that conf/ chooses; a text: the name of one that is there."""
    if source is None or isinstance(source, str):
        name = source or chosen_option("model") or ""
        return Target("model", name, name, None)
    existing = find_option("model", source)
    if existing is not None:
        return Target("model", existing, existing, None)
    return Target("model", _free_name("model", option_name(source.value, "model")), source.kind, source)


def _is_shipped(group: str, name: str) -> bool:
    return name in RESERVED[group] and name != "adopted"


def _free_name(group: str, name: str) -> str:
    candidates = (name if number == 1 else f"{name}_{number}" for number in range(1, 1000))
    return next(candidate for candidate in candidates if not (CONF / group / f"{candidate}.yaml").exists())
