"""Makes the values of params.yaml the configuration: `python -m pipeline.compose --adopt`.

After `dvc exp apply`, params.yaml holds an experiment's values, which the next composition would overwrite. Adopting
writes into conf/config.yaml which option of a group they took and which values differ from it; the option of a group
within a section, such as train/method, into that section's file. Values of a source of data or model belong to that
source alone: they become an option of their own, conf/data/adopted.yaml.
"""

import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from pipeline.compose import yaml_files
from pipeline.compose.composition import compose_params, current_params, parse_params, without_version
from pipeline.compose.leaves import ABSENT, Leaves, diff_leaves, flatten
from pipeline.config.validation import TAGS
from pipeline.core.paths import CONF, PARAMS
from pipeline.errors import ConfigError

CONFIG = CONF / "config.yaml"
SOURCES = ("data", "model")
ADOPTED = "adopted"


def adopt() -> str:
    """Write into conf/ what makes it compose the present params.yaml; say what was written.

    ConfigError, and conf/ as it was, if no such configuration is found.
    """
    target = current_params()
    groups = _groups_of(target)
    raw = _raw(*groups.values())
    differing = diff_leaves(flatten(target), flatten(_resolved(raw)))
    changed = {key: here for key, (here, _) in differing.items() if not _is_derived(raw, key)}
    written = [*map(_chooser, groups), CONFIG, *(CONF / source / f"{ADOPTED}.yaml" for source in SOURCES)]
    before = {path: path.read_text(encoding="utf-8") for path in written if path.exists()}
    try:
        _write_options(groups, changed)
        _write_config(groups, {key: value for key, value in changed.items() if key.split(".")[0] not in SOURCES})
        text = compose_params()
        left = [key for key in diff_leaves(flatten(target), flatten(parse_params(text))) if not _is_derived(raw, key)]
        if left:
            raise ConfigError(f"no configuration was found that composes these keys of params.yaml: {', '.join(left)}")
    except ConfigError:
        for path in written:
            path.unlink(missing_ok=True)
        for path, text in before.items():
            path.write_text(text, encoding="utf-8")
        raise
    PARAMS.write_text(text, encoding="utf-8")
    return (
        f"{CONFIG} now composes params.yaml: {', '.join([*groups.values(), *changed]) or 'there was nothing to change'}"
    )


def _raw(*overrides: str) -> DictConfig:
    """conf/ composed, interpolations unresolved and so unchecked: an option such as data=file is incomplete by itself."""
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        return compose("config", list(overrides))


def _resolved(raw: DictConfig) -> dict[str, Any]:
    return {**without_version(raw), "version": 1}


def _is_derived(raw: DictConfig, key: str) -> bool:
    """Whether composition computes the key, or a section that it is in, from others."""
    node: Any = raw
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        if OmegaConf.is_interpolation(node, part):
            return True
        node = node[part]
    return False


def _groups_of(target: dict[str, Any]) -> dict[str, str]:
    """Group → override, for each group of which another option than the configured one fits the values better."""
    configured, overrides = _resolved(_raw()), {}
    folders = [path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")]
    for group in sorted({each for each in folders if _at(target, each) is not None}):
        distances = {"": _distance(target, configured, group)}
        for option in sorted((CONF / group).glob("*.yaml")):
            override = f"{group}={option.stem}"
            distances[override] = _distance(target, _resolved(_raw(override)), group)
        best = min(distances, key=lambda override: distances[override])
        if best:
            overrides[group] = best
    return overrides


def _distance(target: dict[str, Any], values: dict[str, Any], group: str) -> int:
    """How many keys of a section differ; an option of another kind is never the one."""
    here, there = _at(target, group), _at(values, group)
    if any(here.get(tag) != there.get(tag) for tag in TAGS):
        return sys.maxsize
    return len(diff_leaves(flatten(here), flatten(there)))


def _at(values: dict[str, Any], group: str) -> dict[str, Any] | None:
    """The section of a group, such as train/method."""
    for name in group.split("/"):
        values = values.get(name)
        if not isinstance(values, dict):
            return None
    return values


def _chooser(group: str) -> Path:
    """The file whose defaults choose the option of a group: conf/config.yaml, or the chosen option of its section."""
    section, _, nested = group.partition("/")
    if not nested:
        return CONFIG
    option = next(each[section] for each in yaml_files.load_yaml(CONFIG)["defaults"] if section in each)
    return CONF / section / f"{option}.yaml"


def _write_options(groups: dict[str, str], changed: Leaves) -> None:
    """Write the options of their own, begun as the option that they differ from, and choose them in `groups`."""
    defaults = yaml_files.load_yaml(CONFIG)["defaults"]
    for source in SOURCES:
        own = {key.removeprefix(f"{source}."): value for key, value in changed.items() if key.startswith(f"{source}.")}
        if own:
            chosen = groups.get(source) or next(each[source] for each in defaults if source in each)
            option = yaml_files.load_yaml(CONF / source / f"{chosen.removeprefix(f'{source}=')}.yaml")
            _set(option, own)
            yaml_files.dump_yaml(CONF / source / f"{ADOPTED}.yaml", option)
            groups[source] = f"{source}={ADOPTED}"


def _write_config(groups: dict[str, str], changed: Leaves) -> None:
    for group, override in groups.items():
        path = _chooser(group)
        config, name = yaml_files.load_yaml(path), group.rpartition("/")[2]
        entry = next(each for each in config["defaults"] if isinstance(each, dict) and name in each)
        entry[name] = override.split("=")[1]
        yaml_files.dump_yaml(path, config)
    config = yaml_files.load_yaml(CONFIG)
    _set(config, changed)
    yaml_files.dump_yaml(CONFIG, config)


def _set(config: Any, changed: Leaves) -> None:
    """Remove the dotted keys whose value is ABSENT, then set the others: a section may take the place of a null."""
    for key, value in sorted(changed.items(), key=lambda item: item[1] != ABSENT):
        *sections, name = key.split(".")
        section = config
        for each in sections:
            section = section.setdefault(each, {})
        if value == ABSENT:
            section.pop(name, None)
        else:
            section[name] = value
