"""What the arguments SOURCE and --model mean: a local path, an address, an option of conf/, or a name on the Hub."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from pipeline.compose.composition import compose_unresolved
from pipeline.compose.yaml_files import load_yaml
from pipeline.config.addresses import is_remote
from pipeline.core.files import GLOB_CHARACTERS, local_files, local_path
from pipeline.core.paths import CONF
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.fetch.data_files import missing_file_message
from pipeline.fetch.streams import DataFile

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


class Named(NamedTuple):
    """A source: the shipped option that its kind of source copies, and the key and value that say which it is."""

    kind: str  # file or hub of the data; folder or hub of a model
    key: str  # path or name
    value: str


def data_source(text: str) -> Named:
    """What SOURCE is. Raises DataError if it is nothing that exists or could be on the Hub."""
    if is_remote(text):
        return Named("file", "path", text)
    if local_path(text).resolve() in (Path.cwd(), *Path.cwd().parents):
        raise DataError(
            f"{text} is the project's own folder, or contains it; expected a folder that holds only the data"
        )
    if local_path(text).exists():
        return Named("file", "path", relative_to_project(text))
    if GLOB_CHARACTERS.search(text):
        if not local_files(text)[1]:
            raise DataError(f"no file matches {text}")
        return Named("file", "path", text)
    if HUB_NAME.fullmatch(text) and not _looks_like_a_path(text):
        return Named("hub", "name", text)
    raise DataError(f"{missing_file_message(text)}\nA dataset on the Hugging Face Hub is named OWNER/NAME")


def _looks_like_a_path(text: str) -> bool:
    return DataFile(text, text).format is not None or Path(text).parent.is_dir()


def model_source(text: str) -> Named | str:
    """What --model is; a text is the name of an option of conf/model that is there already.

    Raises ModelError if it is nothing that exists or could be on the Hub.
    """
    if local_path(text).is_dir():
        return Named("folder", "path", relative_to_project(text))
    if local_path(text).exists():
        raise ModelError(f"--model: {text} is a file; expected a model folder, which has config.json and *.safetensors")
    if (CONF / "model" / f"{text}.yaml").exists():
        return text
    if HUB_NAME.fullmatch(text) and not Path(text).parent.is_dir():
        return Named("hub", "name", text)
    options = ", ".join(sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
    raise ModelError(
        f"--model: no folder {text}, and no option of conf/model of this name ({options}); a model on the Hugging Face Hub is "
        "named OWNER/NAME"
    )


def relative_to_project(text: str) -> str:
    """The path relative to the project's root, if it is below it, so that the configuration works in another checkout."""
    path = Path(text).expanduser()
    absolute = Path(os.path.normpath(path.absolute()))
    root = Path.cwd()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) and absolute != root else text


def is_same_source(option: dict[str, Any], source: Named) -> bool:
    """Whether an option's file is about this source."""
    return bool(option.get("source") == source.kind and option.get(source.key) == source.value)


def find_option(group: str, source: Named) -> str | None:
    """The name of an option of conf/ that is about this source; None if there is none."""
    for path in sorted((CONF / group).glob("*.yaml")):
        option = load_yaml(path)
        if isinstance(option, dict) and is_same_source(option, source):
            return path.stem
    return None


def composed_with(overrides: list[str], changes: dict[str, Any]) -> dict[str, Any]:
    """The values that conf/ composes with the overrides, and then with the dotted keys changed; unchecked."""
    from pipeline.compose.composition import resolve_params

    config = compose_unresolved(*overrides)
    for key, value in changes.items():
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    return resolve_params(config)


def require_no_interpolation(changes: dict[str, Any]) -> None:
    """Raise ConfigError if a value has ${ in it: conf/ and params.yaml would take it for the name of another key."""
    for key, value in changes.items():
        for text in value.values() if isinstance(value, dict) else [value]:
            if isinstance(text, str) and "${" in text:
                raise ConfigError(
                    f"data.{key}: {text!r} has ${{ in it, which refers to another key in conf/; rename it"
                )


def require_project_root() -> None:
    """Raise ConfigError outside the project's root."""
    if not (CONF / "stage.yaml").exists() or not (CONF / "config.yaml").exists():
        raise ConfigError("conf/config.yaml is not here; run this command in the project's root")
