"""Loads the predictions of git revisions and DVC experiments, with the parameters and inputs they were made from.

Parameters and checksums come from a revision's dvc.lock, as the stages recorded them, even if params.yaml has changed since.
"""

import math
from contextlib import closing
from typing import Any, NamedTuple

from dvc.repo import Repo

from pipeline.compose.leaves import flatten
from pipeline.core.files import parse_json_object
from pipeline.core.metrics import details_path
from pipeline.core.paths import METRICS, PREDICTIONS
from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.leaderboard.revisions import Revision, open_repository, rerun_hint
from pipeline.scoring.metrics import Prediction

# The stages between the data and the predictions of a model, and the stages whose parameters do not affect them.
PREDICTION_STAGES = {"base": ("evaluate@base",), "finetuned": ("train", "evaluate@finetuned")}
UNRELATED_STAGES = {"base": ("train", "evaluate@finetuned", "compare"), "finetuned": ("evaluate@base", "compare")}


class Run(NamedTuple):
    """The predictions of one model at one revision."""

    name: str
    commit: str  # empty for the workspace
    rows: list[Prediction]
    metrics: dict[str, Any]  # all that evaluate measured
    params: dict[str, Any]  # dotted key → value, for every stage that affects the predictions
    inputs: dict[str, str]  # path → checksum, for the data and code that train and evaluate read


def load_runs(names: list[str], instance: str) -> list[Run]:
    """The run of each revision, in this order, without duplicate names. `instance` is base or finetuned.

    Raises ConfigError or DataError; several errors are reported together.
    """
    runs: list[Run] = []
    errors: list[PipelineError] = []
    with open_repository() as repo:
        for name in dict.fromkeys(names):
            try:
                runs.append(_load_run(repo, name, instance))
            except PipelineError as error:
                errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        lines = [f"{len(errors)} revisions cannot be compared:", *(f"  {error}" for error in errors)]
        raise ConfigError("\n".join(lines))
    return runs


def _load_run(repo: Repo, name: str, instance: str) -> Run:
    path = f"{PREDICTIONS}/{instance}.jsonl"
    with closing(Revision(repo, name)) as revision:
        text, metrics = revision.read(path), read_evaluation_metrics(revision, instance)
    rows = parse_predictions(text, f"{name}: {path}")
    if metrics.get("rows", len(rows)) != len(rows):
        raise DataError(
            f"{name}: {path} has {len(rows):,} rows, but evaluate measured {metrics['rows']:,}: they are from different "
            f"runs; {rerun_hint(name)}"
        )
    return Run(name, revision.commit, rows, metrics, *_provenance(revision.stages, instance))


def read_evaluation_metrics(revision: Revision, instance: str) -> dict[str, Any]:
    """All that evaluate measured, from DVC's cache or remote, or from git: older revisions keep all metrics there.

    Raises DataError, which begins with the revision's name, if that cannot be read.
    """
    details = details_path(f"evaluate/{instance}").as_posix()
    if revision.recorded_output(details):
        path, text = details, revision.read(details)
    else:
        path = f"{METRICS}/evaluate/{instance}.json"
        text = revision.read_tracked(path)
    return parse_json_object(text, f"{revision.name}: {path}")


def _provenance(lock: dict[str, Any], instance: str) -> tuple[dict[str, Any], dict[str, str]]:
    """(parameters, inputs) of the predictions. A file that train writes and evaluate reads is not an input."""
    params = {
        key: value
        for name, stage in lock.items()
        if name not in UNRELATED_STAGES[instance]
        for section in stage.get("params", {}).values()
        for key, value in flatten(section).items()
    }
    stages = [lock[name] for name in PREDICTION_STAGES[instance] if name in lock]
    outputs = {out["path"] for stage in stages for out in stage.get("outs", [])}
    deps = [dep for stage in stages for dep in stage.get("deps", [])]
    return params, {dep["path"]: dep.get("md5", "") for dep in deps if dep["path"] not in outputs}


def parse_predictions(text: bytes, source: str) -> list[Prediction]:
    """The rows of a predictions file. Raises DataError, with `source` in the message, if they cannot be compared."""
    lines = enumerate(text.split(b"\n"), start=1)
    rows = [parse_json_object(line, f"{source}, line {number}") for number, line in lines if line.strip()]
    if not rows:
        raise DataError(f"{source} has no rows; run evaluate there again: dvc repro")
    _require_valid_rows(rows, source)
    return rows


def _require_valid_rows(rows: list[Prediction], source: str) -> None:
    """Raise DataError at the first row that cannot be identified, compared or scored."""
    has_answers = "prediction" in rows[0]
    row_numbers: dict[Any, int] = {}
    for number, row in enumerate(rows, start=1):
        location = f"{source}, row {number}"
        if not isinstance(row.get("id"), int | str):
            raise DataError(
                f"{location}: id is {row.get('id')!r}; expected a number or string that identifies the test row"
            )
        if row["id"] in row_numbers:
            raise DataError(
                f"{location}: id {row['id']!r} is already in row {row_numbers[row['id']]}; expected one row per test row"
            )
        row_numbers[row["id"]] = number
        if not isinstance(row.get("reference"), str):
            raise DataError(f"{location}: no reference; expected the text to compare the answer with")
        if isinstance(row.get("prediction"), str) != has_answers:
            raise DataError(f"{location}: {'no' if has_answers else 'a'} prediction, unlike the rows before it")
        invalid = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        if invalid:
            raise DataError(f"{location}: {invalid[0]} is {row[invalid[0]]}; expected a finite number")
