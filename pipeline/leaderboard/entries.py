"""Turns runs into leaderboard entries: the same test rows, the same metric version, one entry per configuration.

    runs → merge_identical_runs → restrict_to_shared_rows → align_metric_versions → group_by_configuration → entries

The first three also return notes for the leaderboard on what they merged, left out or scored again.
"""

import json
from collections import Counter, defaultdict
from typing import Any, NamedTuple

from pipeline.compare.environments import describe_environments
from pipeline.compose.leaves import ABSENT
from pipeline.config.addresses import display_text
from pipeline.errors import DataError
from pipeline.leaderboard.runs import Run
from pipeline.scoring.answer_scores import score_answer

SEED_KEY = "train.seed"
MAX_RUNS_LISTED = 3  # with the same number of rows; more are summarized
FlatParams = dict[str, Any]  # dotted key → value


class Entry(NamedTuple):
    """One configuration, with one run for each of its training seeds."""

    name: str
    runs: list[Run]
    differences: FlatParams  # from the other configurations

    @property
    def seeds(self) -> list[Any]:
        return [run.params[SEED_KEY] for run in self.runs if SEED_KEY in run.params]


def merge_identical_runs(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """(runs, notes): runs with equal parameters, inputs and predictions become one run with all their names."""
    merged: dict[str, Run] = {}
    for run in runs:
        identity = json.dumps([run.params, run.inputs, run.rows], sort_keys=True)
        first = merged.get(identity)
        merged[identity] = run if first is None else first._replace(name=f"{first.name} = {run.name}")
    notes = [f"{run.name}: names of the same run." for run in merged.values() if " = " in run.name]
    return list(merged.values()), notes


def align_metric_versions(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """(runs, notes): if runs have different metric versions, all their answers are scored again with this code.

    Raises DataError for plain text of different versions: its loss cannot be computed again without the model.
    """
    versions = [_metric_version(run) for run in runs]
    if len(set(versions)) == 1:
        return runs, []
    numbers = [version.partition(",")[0] for version in versions]
    labels = versions if len(set(numbers)) == 1 else numbers  # the libraries matter only if the versions are equal
    listing = "; ".join(f"{run.name} with {label}" for run, label in zip(runs, labels, strict=True))
    if not all("prediction" in run.rows[0] for run in runs):
        raise DataError(
            f"these runs were evaluated with different versions of the metrics: {listing}. "
            "Evaluate them with the same code: dvc repro"
        )
    rescored = [
        run._replace(rows=[{**row, **score_answer(row["prediction"], row["reference"])} for row in run.rows])
        for run in runs
    ]
    return rescored, [f"Different versions of the metrics had scored these runs, so all were scored again: {listing}."]


def _metric_version(run: Run) -> str:
    """The version that evaluate wrote with the metrics, and the signatures of the libraries."""
    signature = run.metrics.get("signature")
    libraries = [f"{name} {text}" for name, text in signature.items()] if isinstance(signature, dict) else []
    return ", ".join([f"version {run.metrics.get('version', 1)}", *libraries])


def environment_notes(runs: list[Run]) -> list[str]:
    """A note if the runs were evaluated in different environments."""
    differences = describe_environments({run.name: run.metrics.get("environment") for run in runs})
    if not differences:
        return []
    return [f"The runs were evaluated in different environments, whose rounding differs: {differences}."]


def restrict_to_shared_rows(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """(runs, notes): the runs with only the test rows they all have, in the order of the first run.

    Rows are the same if they have the same id, prompt and reference. Raises DataError if the runs share none.
    """
    questions = [
        {row["id"]: (row.get("prompt"), row["reference"], "prediction" in row) for row in run.rows} for run in runs
    ]
    shared = [id for id, question in questions[0].items() if all(other.get(id) == question for other in questions)]
    if not shared:
        raise DataError(_no_shared_rows_message(runs, questions))
    rows_by_id = [{row["id"]: row for row in run.rows} for run in runs]
    restricted = [run._replace(rows=[by_id[id] for id in shared]) for run, by_id in zip(runs, rows_by_id, strict=True)]
    if all(len(shared) == len(run_questions) for run_questions in questions):
        return restricted, []
    return restricted, [
        f"The runs have different test rows: {_format_row_counts(runs)}. All values are computed on the {len(shared):,} "
        "that they share: same id, prompt and reference."
    ]


def _format_row_counts(runs: list[Run]) -> str:
    """The number of test rows of each run, with the most frequent number summarized if many runs have it."""
    counts = Counter(len(run.rows) for run in runs)
    common, frequency = counts.most_common(1)[0]
    summarize = frequency > MAX_RUNS_LISTED
    listed = [f"{len(run.rows):,} in {run.name}" for run in runs if not summarize or len(run.rows) != common]
    if summarize:
        listed.append(f"{common:,} in each of {'the' if not listed else 'the other'} {frequency} runs")
    return ", ".join(listed)


def _no_shared_rows_message(runs: list[Run], questions: list[dict[Any, Any]]) -> str:
    first, others = questions[0], list(zip(runs[1:], questions[1:], strict=True))
    disjoint = [
        run.name for run, other in others if not any(other.get(id) == question for id, question in first.items())
    ]
    reason = (
        f"{runs[0].name} shares none with {', '.join(disjoint)}"
        if disjoint
        else f"{runs[0].name} shares some with each of the others, but none with all of them"
    )
    return (
        f"no test row (same id, prompt and reference) is in all runs: {reason}. Test rows: {_format_row_counts(runs)}. "
        "Compare runs with the same data, format and evaluate.limit"
    )


def group_by_configuration(runs: list[Run]) -> list[Entry]:
    """One entry per configuration: runs that differ only in train.seed share an entry."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        configuration = {key: value for key, value in run.params.items() if key != SEED_KEY}
        groups[json.dumps([configuration, run.inputs], sort_keys=True)].append(run)
    firsts = [group[0] for group in groups.values()]
    differing = differing_keys([first.params for first in firsts])
    labels = [{key: _shown(first.params[key]) for key in differing if key in first.params} for first in firsts]
    entries = []
    for group, first, label in zip(groups.values(), firsts, labels, strict=True):
        same_label = [run for run, other in zip(firsts, labels, strict=True) if other == label]
        differences = {**label, **_differing_inputs(first, same_label)}
        entries.append(Entry(", ".join(run.name for run in group), group, differences))
    return entries


def _shown(value: Any) -> Any:
    """The value of a parameter, addresses in it without their queries, which may hold credentials."""
    return display_text(value) if isinstance(value, str) else value


def _differing_inputs(run: Run, others: list[Run]) -> FlatParams:
    """Data and code that distinguish `run` from `others` with the same parameters: the first path with its short checksum."""
    paths = sorted({path for other in others for path, _ in other.inputs.items() ^ run.inputs.items()})
    if not paths:
        return {}
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return {"input": f"{paths[0]} {run.inputs.get(paths[0], ABSENT)[:7]}{more}"}


def differing_keys(params: list[FlatParams]) -> list[str]:
    """The keys, apart from the seed, that distinguish configurations. Keys that only exist for one `kind` are left out.

    >>> differing_keys([{"train.method.kind": "full"}, {"train.method.kind": "lora", "train.method.rank": 8}])
    ['train.method.kind']
    """
    keys = list(dict.fromkeys(key for configuration in params for key in configuration if key != SEED_KEY))
    varying = {
        key
        for key in keys
        if len({json.dumps(configuration[key]) for configuration in params if key in configuration}) > 1
    }
    kinds = {key.removesuffix("kind") for key in varying if key.endswith(".kind")}
    incomplete = {key for key in keys if any(key not in configuration for configuration in params)}
    explained = {key for key in incomplete if any(key.startswith(section) for section in kinds)}
    return [key for key in keys if key in varying | (incomplete - explained)]
