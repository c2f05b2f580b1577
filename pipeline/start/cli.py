"""Makes your data and model the project's default: inspects them, asks what it cannot know, and writes conf/.

    python -m pipeline.start SOURCE [--model NAME-OR-FOLDER] [--name NAME] [--columns '{question: A, answer: B}']
        [-S data.KEY=VALUE] [--yes]

SOURCE is a file, folder, glob or address, or OWNER/NAME of a dataset on the Hugging Face Hub. From then on `dvc repro` and every
`dvc exp run` use it. Without a terminal, or with --yes, nothing is asked.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipeline.compose.experiments import BREAKS_DVC
from pipeline.compose.quoting import override_error, parse_value
from pipeline.compose.yaml_files import chosen_option
from pipeline.config.addresses import display_address
from pipeline.config.params import Clean, Format
from pipeline.config.sources import Model
from pipeline.config.validation import format_errors, param_errors
from pipeline.core.console import printable
from pipeline.core.entrypoint import report_errors
from pipeline.errors import ConfigError, DataError
from pipeline.records.columns import ColumnMapping, resolve_columns
from pipeline.start.columns import choose_columns, parse_columns
from pipeline.start.conf_edits import START, write_configuration
from pipeline.start.hub_splits import choose_split
from pipeline.start.machine import inspect_machine
from pipeline.start.model_facts import model_facts
from pipeline.start.options import Target, data_target, model_target
from pipeline.start.preview import describe_rows, describe_sample, preview_rows
from pipeline.start.questions import Questions
from pipeline.start.recommend import Setting, describe_memory, recommend
from pipeline.start.sample import Rows, read_rows, render_sample
from pipeline.start.source import (
    composed_with,
    data_source,
    model_source,
    require_no_interpolation,
    require_project_root,
)

Values = dict[str, Any]


def start(arguments: argparse.Namespace, questions: Questions) -> None:
    """Look at the source and the model, show what was found, and write conf/ and params.yaml.

    Raises PipelineError if something is wrong with them or conf/ would not compose; nothing is written then.
    """
    require_project_root()
    require_name_that_dvc_takes(Path.cwd())
    own = parse_settings(arguments.settings)
    given = parse_columns(arguments.columns) if arguments.columns else own.pop("columns", None)
    source = data_source(arguments.source)
    data = data_target(source, arguments.name, is_changed=bool(own or given), questions=questions)
    model = model_target(None if arguments.model is None else model_source(arguments.model))
    changes = data.changes | own
    if source.kind == "hub" and data.source and "split" not in own:
        changes = choose_split(source.value, own.get("revision", "main"), questions) | changes
    require_no_interpolation(changes)
    values = composed_values(data, model, changes)
    facts = model_facts(TypeAdapter[Any](Model).validate_python(values["model"]))
    rows = read_rows(values["data"])
    mapping = choose_mapping(rows, given, values["data"]["columns"], questions)
    say(describe_rows(rows, mapping, display_address(arguments.source)))
    clean, options = Clean.model_validate(values["clean"]), Format.model_validate(values["format"])
    sample = render_sample(rows, mapping, clean, options, values["tokenize"]["loss"], facts)
    say([*describe_sample(sample), *preview_rows(sample.rows)])

    machine = inspect_machine(values["compute"])
    kept = round(rows.table.num_rows * len(sample.rows) / sample.read) if rows.is_complete else None
    advice = recommend(facts, machine, sample.rendered.lengths, kept, has_own_test=rows.test_rows is not None)
    settings = changed_settings(advice.settings, data, model)
    say(["", describe_memory(facts, machine), "Settings:", *map(describe_setting, settings)])
    say([f"Warning: {warning}" for warning in advice.warnings], stream=sys.stderr)
    if not questions.confirm("Write this to conf/ and params.yaml?", default=True):
        raise ConfigError("nothing was written")
    if data.source:
        changes["columns"] = dict(mapping.columns)
        require_no_interpolation(changes)
    written = write_configuration([(data, changes), (model, model.changes)], settings, command_of(arguments))
    say(
        [
            f"{key} stays {own}, which conf/ sets; the recommended value is {value}"
            for key, own, value in written.overridden
        ]
    )
    say(["", f"Wrote {', '.join(map(str, written.paths))}.", "Next: dvc repro, then open metrics/report.html"])


def say(lines: list[str], stream: Any = None) -> None:
    for line in lines:
        print(printable(line), file=stream)


def require_name_that_dvc_takes(folder: Path) -> None:
    """Raise ConfigError if DVC cannot run at all in a folder of this name."""
    if wrong := [character for character in str(folder) if character in BREAKS_DVC]:
        raise ConfigError(
            f"DVC cannot run in a folder whose path contains {wrong[0]}: {folder}. Rename it, or move the project"
        )


def parse_settings(settings: list[str]) -> Values:
    """The keys of the data section that -S sets. Raises ConfigError about other keys, and about Hydra's grammar."""
    values = {}
    for setting in settings:
        if error := override_error(setting):
            raise ConfigError(error)
        key, _, _ = setting.partition("=")
        if not key.startswith("data."):
            raise ConfigError(f"-S {setting}: start sets keys of the data section only; set {key} in conf/config.yaml")
        values[key.removeprefix("data.")] = parse_value(setting)
    return values


def composed_values(data: Target, model: Target, changes: Values) -> Values:
    """What conf/ composes for the source and the model, without the settings of an earlier start.

    Raises ConfigError about what the schema rejects in the two sections, such as an address with a password.
    """
    overrides = [f"data={data.base}", f"model={model.base}"]
    if chosen_option(START) is not None:
        overrides.append(f"~{START}")
    keys = {f"data.{key}": value for key, value in changes.items()}
    keys |= {f"model.{key}": value for key, value in model.changes.items()}
    values = composed_with(overrides, keys)
    if errors := [error for error in param_errors(values) if error.startswith(("data.", "data:", "model.", "model:"))]:
        raise ConfigError(format_errors(errors))
    return values


def choose_mapping(
    rows: Rows, given: dict[str, str] | None, configured: Values | None, questions: Questions
) -> ColumnMapping:
    """The mapping of --columns, or that of the option that is there already, or a new one."""
    if given is None and configured:
        try:
            return resolve_columns(rows.table.column_names, configured)
        except DataError:  # the file has other columns now
            pass
    return choose_columns(rows.table, given, questions)


def changed_settings(settings: list[Setting], data: Target, model: Target) -> list[Setting]:
    """The settings without a method that conf/ chooses anyway."""
    values = composed_with([f"~{START}"] if chosen_option(START) is not None else [], {})
    method = values["train"]["method"]["kind"]
    return [setting for setting in settings if (setting.key, setting.value) != ("train/method", method)]


def describe_setting(setting: Setting) -> str:
    value = str(setting.value).lower() if isinstance(setting.value, bool) else setting.value
    return f"  {setting.key} = {value}: {setting.why}"


def command_of(arguments: argparse.Namespace) -> str:
    words = ["python", "-m", "pipeline.start", display_address(arguments.source)]
    for flag in ("model", "name", "columns"):
        if value := getattr(arguments, flag):
            words += [f"--{flag}", value]
    words += [word for setting in arguments.settings for word in ("-S", setting)]
    return printable(shlex.join(words)).replace("\n", " ")


def parse_command_line(words: list[str]) -> argparse.Namespace:
    """The arguments of the command line. Raises ConfigError about more than one source."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.start", description="Make your data and model the project's default."
    )
    parser.add_argument("source", nargs="+", help="file, folder, glob, address, or OWNER/NAME of a dataset on the Hub")
    parser.add_argument("--model", help="model folder, option of conf/model, or OWNER/NAME on the Hub")
    parser.add_argument("--name", help="name of the option in conf/data; default: from the source's name")
    parser.add_argument("--columns", help="column mapping, such as '{question: Title, answer: Reply}'")
    parser.add_argument(
        "-S", dest="settings", metavar="data.KEY=VALUE", action="append", default=[], help="key of the data section"
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing; take the defaults")
    arguments = parser.parse_args(words)
    if len(arguments.source) > 1:
        raise ConfigError(
            "more than one source: the shell has expanded a pattern. Put the pattern in quotes: "
            "python -m pipeline.start 'data/*.csv'"
        )
    arguments.source = arguments.source[0]
    return arguments


def main() -> None:
    with report_errors("start"):
        arguments = parse_command_line(sys.argv[1:])
        start(arguments, Questions(is_interactive=sys.stdin.isatty() and sys.stdout.isatty() and not arguments.yes))
