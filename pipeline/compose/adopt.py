"""Makes the values of params.yaml the configuration in conf/: `python -m pipeline.compose --adopt`.

After `dvc exp apply`, params.yaml holds an experiment's values, which the next composition would overwrite. Adopting them
changes conf/ so that it composes the same params.yaml:

- the chosen options go into the defaults of conf/config.yaml; those of a group within a section, such as train/method, into
  the section's file;
- other values that differ from the options go into conf/config.yaml;
- values that differ in the sections data and model, which only fit one source, go into an option of their own, such as
  conf/data/adopted.yaml.
"""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.compose import yaml_files
from pipeline.compose.composition import (
    compose_params,
    compose_unresolved,
    load_params,
    parse_params,
    resolve_params,
)
from pipeline.compose.leaves import ABSENT, Leaves, diff_leaves, flatten
from pipeline.compose.yaml_files import CONFIG, restored_on_error
from pipeline.config.validation import DISCRIMINATORS
from pipeline.core.paths import CONF, PARAMS
from pipeline.errors import ConfigError

SOURCES = ("data", "model")
ADOPTED = "adopted"
Groups = dict[str, str]  # group, such as train/method → Hydra's override, such as train/method=lora


def adopt() -> str:
    """Change conf/ so that it composes the values of params.yaml; return a message that lists what changed.

    Raises ConfigError if params.yaml is not valid or no such configuration is found; conf/ is then unchanged.
    """
    target = load_params()
    groups = _closest_options(target)
    config = compose_unresolved(*groups.values())
    differences = diff_leaves(flatten(target), flatten(resolve_params(config)))
    changes = {key: value for key, (value, _) in differences.items() if not _is_derived(config, key)}
    may_change = [*map(_defaults_file, groups), CONFIG, *(CONF / source / f"{ADOPTED}.yaml" for source in SOURCES)]
    with restored_on_error(may_change):
        _write_source_options(groups, changes)
        _write_config(groups, {key: value for key, value in changes.items() if key.split(".")[0] not in SOURCES})
        text = compose_params()
        wrong = diff_leaves(flatten(target), flatten(parse_params(text)))
        if keys := [key for key in wrong if not _is_derived(config, key)]:
            raise ConfigError(f"found no configuration that composes these keys of params.yaml: {', '.join(keys)}")
    PARAMS.write_text(text, encoding="utf-8")
    return f"{CONFIG} now composes params.yaml: {', '.join([*groups.values(), *changes]) or 'nothing had to change'}"


def _is_derived(config: DictConfig, key: str) -> bool:
    """Whether an interpolation computes the key, or a section that contains it."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        if OmegaConf.is_interpolation(node, part):
            return True
        node = node[part]
    return False


def _closest_options(target: dict[str, Any]) -> Groups:
    """An override for each group that has an option closer to the target than the configured values are."""
    configured, overrides = resolve_params(compose_unresolved()), {}
    folders = {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")}
    for group in sorted(folder for folder in folders if _section(target, folder)):
        distances = {"": _distance(target, configured, group)}
        if distances[""] == 0:
            continue
        for option in sorted((CONF / group).glob("*.yaml")):
            override = f"{group}={option.stem}"
            distances[override] = _distance(target, resolve_params(compose_unresolved(override)), group)
        closest = min(distances, key=lambda override: distances[override])
        if closest:
            overrides[group] = closest
    return overrides


def _distance(target: dict[str, Any], values: dict[str, Any], group: str) -> int:
    """How many keys of a group's section differ; infinite if the sections are of different kinds."""
    wanted, current = _section(target, group), _section(values, group)
    if any(wanted.get(tag) != current.get(tag) for tag in DISCRIMINATORS):
        return sys.maxsize
    return len(diff_leaves(flatten(wanted), flatten(current)))


def _section(values: dict[str, Any], group: str) -> dict[str, Any]:
    """The section that a group, such as train/method, configures; empty if there is none."""
    section: Any = values
    for name in group.split("/"):
        section = section.get(name)
        if not isinstance(section, dict):
            return {}
    return dict(section)


def _defaults_file(group: str) -> Path:
    """The file with the defaults list that chooses a group's option: conf/config.yaml, or its section's chosen option.

    The file of `python -m pipeline.start` may override the latter.
    """
    section, _, nested = group.partition("/")
    if not nested:
        return CONFIG
    started = CONF / "start" / f"{yaml_files.chosen_option('start')}.yaml"
    if started.exists() and any(_chooses(entry, group) for entry in yaml_files.load_yaml(started).get("defaults", [])):
        return started
    return CONF / section / f"{yaml_files.chosen_option(section)}.yaml"


def _chooses(entry: Any, group: str) -> bool:
    """Whether an entry of a defaults list chooses the option of a group, such as `method: full` in train's own list."""
    key = next(iter(entry)) if isinstance(entry, dict) else ""
    return bool(key == group.rpartition("/")[2] or key.startswith(f"override /{group}@"))


def _write_source_options(groups: Groups, changes: Leaves) -> None:
    """Write the changes of data and model as copies of the chosen options, and choose the copies in `groups`."""
    for source in SOURCES:
        own = {key.removeprefix(f"{source}."): v for key, v in changes.items() if key.startswith(f"{source}.")}
        if own:
            chosen = groups[source].removeprefix(f"{source}=") if source in groups else yaml_files.chosen_option(source)
            option = yaml_files.load_yaml(CONF / source / f"{chosen}.yaml")
            _set_keys(option, own)
            yaml_files.dump_yaml(CONF / source / f"{ADOPTED}.yaml", option)
            groups[source] = f"{source}={ADOPTED}"


def _write_config(groups: Groups, changes: Leaves) -> None:
    """Choose the options of `groups` in the defaults lists, and write the changes into conf/config.yaml."""
    for group, override in groups.items():
        path = _defaults_file(group)
        config = yaml_files.load_yaml(path)
        entry = next(entry for entry in config["defaults"] if _chooses(entry, group))
        entry[next(iter(entry))] = override.split("=")[1]
        yaml_files.dump_yaml(path, config)
    config = yaml_files.load_yaml(CONFIG)
    _set_keys(config, changes)
    yaml_files.dump_yaml(CONFIG, config)


def _set_keys(config: Any, changes: Leaves) -> None:
    """Remove the dotted keys whose value is ABSENT, then set the others; a section may replace a null."""
    for key, value in sorted(changes.items(), key=lambda change: change[1] != ABSENT):
        *sections, name = key.split(".")
        section = config
        for part in sections:
            section = section.setdefault(part, {})
        if value == ABSENT:
            section.pop(name, None)
        else:
            section[name] = value
