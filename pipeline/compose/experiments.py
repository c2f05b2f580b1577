"""What to say while DVC composes an experiment: a source that the next one will not use, a folder that DVC cannot work in."""

import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipeline.compose.quoting import shell_quote
from pipeline.config.addresses import display_address
from pipeline.core.console import printable
from pipeline.core.paths import CONF
from pipeline.errors import ConfigError

IDENTITY = ("source", "path", "name", "config", "split")  # the keys that say which rows or model a section means
# DVC gives the folder's path to tqdm as a format, in every run.
BREAKS_DVC = "{}"
# DVC pushes an experiment that runs in a copy to the URL file://PATH, without quoting it.
BREAKS_COPIES = "#?"
COPY_FLAGS = ("--queue", "--temp", "--run-all")


def notify_of_other_sources(values: dict[str, Any]) -> None:
    """Print once if the data or the model is not the one that conf/ composes by default: the next experiment uses that again."""
    for section in ("data", "model"):
        default = default_source(section)
        if default is not None and _identity(values.get(section)) != _identity(default):
            _print_once(_other_source_notice(section, values[section], default))


def default_source(section: str) -> dict[str, Any] | None:
    """The section as conf/ sets it without overrides, interpolations unresolved; None if conf/ is not readable.

    Two small files are read: composing a second time would double the time of each experiment of a grid.
    """
    try:
        config = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
        option = next(entry[section] for entry in config["defaults"] if isinstance(entry, dict) and section in entry)
        values = yaml.safe_load((CONF / section / f"{option}.yaml").read_text(encoding="utf-8"))
        return {**values, **(config.get(section) or {})}
    except (OSError, ValueError, yaml.YAMLError, StopIteration, LookupError, TypeError, AttributeError):
        return None  # composition reports what is wrong with it


def _identity(section: Any) -> Any:
    return [section.get(key) for key in IDENTITY] if isinstance(section, dict) else None


def _other_source_notice(section: str, values: Any, default: dict[str, Any]) -> str:
    now, then = (_display(source) for source in (values, default))
    head = f"Note: {section} is {now} in this experiment only; the next one uses conf/'s {section} ({then}) again. To keep it: "
    if section == "data" and values.get("source") in ("file", "hub"):
        return f"{head}python -m pipeline.start {shell_quote(now)}"
    return f"{head}dvc exp apply NAME, then python -m pipeline.compose --adopt"


def _display(source: dict[str, Any]) -> str:
    kind = source.get("source")
    place = source.get("path") if kind in ("file", "folder") else source.get("name")
    return display_address(str(place or kind))


@cache
def _print_once(message: str) -> None:
    sys.stderr.write(f"{printable(message)}\n")


def require_usable_folder(arguments: list[str], folder: Path) -> None:
    """Raise ConfigError if DVC cannot run an experiment in a folder of this name; `arguments`: the command line.

    Queued experiments fail as soon as they start, with an error about git, long after they were queued.
    """
    if "run" not in arguments or not {"exp", "experiments"} & set(arguments):
        return
    runs_in_copy = any(flag in arguments for flag in COPY_FLAGS)
    name = str(folder)
    wrong = [c for c in name if c in BREAKS_DVC or (runs_in_copy and (c in BREAKS_COPIES or not c.isascii()))]
    if wrong:
        what = "queued experiments, or those with --temp," if runs_in_copy else "experiments"
        other = "" if set(wrong) & set(BREAKS_DVC) else "; experiments without --queue do run here"
        raise ConfigError(
            f"DVC cannot run {what} in a folder whose path contains {' '.join(dict.fromkeys(wrong))}: {name}. "
            f"Rename the folder, or move the project{other}"
        )
