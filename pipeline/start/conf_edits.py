"""Writes what start decided into conf/: the options of the source and the model, the settings, and the choice of them.

- conf/data/NAME.yaml and conf/model/NAME.yaml are copies of the shipped options of their kind. One that is there already keeps
  what the user changed in it.
- conf/start/NAME.yaml holds the settings, each with its reason. It is written again as a whole each time.
- conf/config.yaml chooses the three in its defaults list. Its own keys override conf/start, so the user's values stay.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ruamel.yaml.comments import CommentedMap

from pipeline.compose.composition import compose_params, parse_params
from pipeline.compose.leaves import flatten
from pipeline.compose.yaml_files import CONFIG, dump_yaml, load_yaml, restored_on_error
from pipeline.core.files import atomic_write
from pipeline.core.paths import CONF, PARAMS
from pipeline.start.options import Target
from pipeline.start.recommend import Setting, Value

START = "start"  # the group of the settings


class Written(NamedTuple):
    paths: list[Path]
    overridden: list[tuple[str, Any, Any]]  # keys that the user's conf/ sets: (key, its value, the recommended one)


def write_configuration(targets: list[tuple[Target, dict[str, Any]]], settings: list[Setting], command: str) -> Written:
    """Write everything, compose params.yaml with all checks, and write that. targets: each with the keys to change in it.

    Raises ConfigError with every error of the composition; then no file has changed.
    """
    name = next(target.name for target, _ in targets if target.group == "data")
    started = CONF / START / f"{name}.yaml"
    paths = [*(target.path for target, changes in targets if changes), started, CONFIG]
    is_new_folder = not started.parent.exists()
    with restored_on_error([*paths, PARAMS]):
        try:
            for target, changes in targets:
                if changes:
                    _write_option(target, changes, command)
            with atomic_write(started) as temporary:
                temporary.write_text(render_settings(settings, command), encoding="utf-8")
            _choose({target.group: target.name for target, _ in targets} | {START: name})
            text = compose_params()
            with atomic_write(PARAMS) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except BaseException:
            if is_new_folder:
                shutil.rmtree(started.parent, ignore_errors=True)
            raise
    return Written([*paths, PARAMS], _overridden(settings, text))


def _write_option(target: Target, changes: dict[str, Any], command: str) -> None:
    """Write the option's file. What the user changed in it stays, if it is about the same source."""
    values = load_yaml(CONF / target.group / f"{target.base}.yaml")
    for key, value in changes.items():
        values[key] = CommentedMap(value) if isinstance(value, dict) else value
    if target.base != target.name:
        values.ca.comment = None
        values.yaml_set_start_comment(f"Written by {command}; edit it as you like.")
    dump_yaml(target.path, values)


def render_settings(settings: list[Setting], command: str) -> str:
    """The text of conf/start/NAME.yaml.

    >>> settings = [Setting("train/method", "lora", "fits"), Setting("train.epochs", 3, "many rows")]
    >>> print(render_settings(settings, "COMMAND"), end="")  # doctest: +ELLIPSIS
    # @package _global_
    # Settings that COMMAND chose for the data and the model, with the reasons. It rewrites this file:
    # put your own values into conf/config.yaml, which takes precedence.
    defaults:
      - override /train/method@_global_.train.method: lora  # fits
      - _self_
    <BLANKLINE>
    train:
      epochs: 3  # many rows
    """
    lines = [
        "# @package _global_",
        f"# Settings that {command} chose for the data and the model, with the reasons. It rewrites this file:",
        "# put your own values into conf/config.yaml, which takes precedence.",
    ]
    groups = [setting for setting in settings if "/" in setting.key]
    if groups:
        lines += ["defaults:"]
        for group, option, why in groups:
            lines.append(f"  - override /{group}@_global_.{group.replace('/', '.')}: {option}  # {why}")
        lines += ["  - _self_"]
    tree: dict[str, Any] = {}
    for setting in settings:
        if "/" not in setting.key:
            *sections, name = setting.key.split(".")
            node = tree
            for section in sections:
                node = node.setdefault(section, {})
            node[name] = setting
    for section, values in tree.items():
        lines += ["", f"{section}:", *_section_lines(values, "  ")]
    return "\n".join(lines) + "\n"


def _section_lines(values: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, Setting):
            lines.append(f"{indent}{name}: {_scalar(value.value)}  # {value.why}")
        else:
            lines += [f"{indent}{name}:", *_section_lines(value, indent + "  ")]
    return lines


def _scalar(value: Value) -> str:
    """
    >>> _scalar(1e-05), _scalar(True), _scalar("bf16"), _scalar(0.15)
    ('1.0e-05', 'true', 'bf16', '0.15')
    """
    if isinstance(value, float):
        return str(yaml.safe_dump(value)).split("\n")[0]
    return value if isinstance(value, str) else json.dumps(value)


def _choose(options: dict[str, str]) -> None:
    """Choose the options in the defaults list of conf/config.yaml; a group that is not in it goes before _self_."""
    config = load_yaml(CONFIG)
    defaults = config["defaults"]
    for group, name in options.items():
        entry = next((entry for entry in defaults if isinstance(entry, dict) and group in entry), None)
        if entry is not None:
            entry[group] = name
        else:
            place = defaults.index("_self_") if "_self_" in defaults else len(defaults)
            defaults.insert(place, CommentedMap({group: name}))
    dump_yaml(CONFIG, config)


def _overridden(settings: list[Setting], params: str) -> list[tuple[str, Any, Any]]:
    """The settings with another value in params.yaml: conf/config.yaml sets them."""
    composed = flatten(parse_params(params))
    values = [
        (setting.key.replace("/", ".") + (".kind" if "/" in setting.key else ""), setting) for setting in settings
    ]
    return [(key, composed.get(key), setting.value) for key, setting in values if composed.get(key) != setting.value]
