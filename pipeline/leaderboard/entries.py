"""From runs to the rows of the leaderboard: the same test rows, the same metrics, one row a configuration.

    runs ──distinct──▶ without second names ──on_shared_rows──▶ ──scored_alike──▶ by one version ──entries──▶ rows

Each step returns what it had to leave out or do, in words, for the table to say.
"""

import json
from collections import Counter, defaultdict
from typing import Any, NamedTuple

from pipeline.compose.leaves import ABSENT
from pipeline.errors import DataError
from pipeline.leaderboard.runs import Run
from pipeline.scoring.answer_scores import score_answer

SEED = "train.seed"
TOGETHER = 3  # runs of one number of rows that are told by name
Params = dict[str, Any]


class Entry(NamedTuple):
    """One configuration, with a run for each seed that it was trained with."""

    name: str
    runs: list[Run]
    differs: Params  # what sets it apart from the others: dotted key → value

    @property
    def seeds(self) -> list[Any]:
        return [run.params[SEED] for run in self.runs if SEED in run.params]


def merge_identical_runs(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """The runs, those of one commit or of one outcome taken together under both names."""
    kept: dict[str, Run] = {}
    for run in runs:
        made_of = json.dumps([run.params, run.inputs, run.rows], sort_keys=True)
        before = kept.get(made_of)
        kept[made_of] = run if before is None else before._replace(name=f"{before.name} = {run.name}")
    notes = [f"{run.name} are one and the same run." for run in kept.values() if " = " in run.name]
    return list(kept.values()), notes


def align_metric_versions(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """The runs with scores of one version of the metrics: where they were not, all answers are scored anew, here.

    DataError if they are of plain text, whose loss cannot be measured again without the model.
    """
    versions = [_version(run) for run in runs]
    if len(set(versions)) == 1:
        return runs, []
    numbers = [version.partition(",")[0] for version in versions]
    shown = versions if len(set(numbers)) == 1 else numbers  # one code, other libraries
    told = "; ".join(f"{run.name} by {version}" for run, version in zip(runs, shown, strict=True))
    if not all("prediction" in run.rows[0] for run in runs):
        raise DataError(
            f"other versions of the metrics measured these runs: {told}. Evaluate them with the same code: dvc repro"
        )
    again = [
        run._replace(rows=[{**row, **score_answer(row["prediction"], row["reference"])} for row in run.rows])
        for run in runs
    ]
    return again, [f"Other versions of the metrics had scored these answers, so all were scored anew: {told}."]


def _version(run: Run) -> str:
    """The version that evaluate wrote beside the metrics, and the signatures of the libraries."""
    signature = run.metrics.get("signature")
    libraries = [f"{name} {each}" for name, each in signature.items()] if isinstance(signature, dict) else []
    return ", ".join([f"version {run.metrics.get('version', 1)}", *libraries])


def restrict_to_shared_rows(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """The runs with the test rows that all have answered: the same id, prompt and reference, in the order of the first.

    DataError if there are none.
    """
    asked = [
        {row["id"]: (row.get("prompt"), row["reference"], "prediction" in row) for row in run.rows} for run in runs
    ]
    shared = [id for id, question in asked[0].items() if all(each.get(id) == question for each in asked)]
    if not shared:
        raise DataError(_nothing_shared(runs, asked))
    rows = [{row["id"]: row for row in run.rows} for run in runs]
    alike = [run._replace(rows=[by_id[id] for id in shared]) for run, by_id in zip(runs, rows, strict=True)]
    if all(len(shared) == len(each) for each in asked):
        return alike, []
    return alike, [
        f"The runs answered different test rows ({_counts(runs)}). All figures are of the {len(shared):,} that they share: "
        "those of the same id, prompt and reference."
    ]


def _counts(runs: list[Run]) -> str:
    """How many test rows each has; those of the most frequent number together, where they are many."""
    numbers = Counter(len(run.rows) for run in runs)
    usual, times = numbers.most_common(1)[0]
    many = times > TOGETHER
    alone = [f"{run.name} {len(run.rows):,}" for run in runs if not many or len(run.rows) != usual]
    return ", ".join([*alone, *([f"{times} others {usual:,}" if alone else f"all {times} {usual:,}"] if many else [])])


def _nothing_shared(runs: list[Run], asked: list[dict[Any, Any]]) -> str:
    first, others = asked[0], list(zip(runs[1:], asked[1:], strict=True))
    odd = [run.name for run, each in others if not any(each.get(id) == question for id, question in first.items())]
    who = f"{runs[0].name} shares none with {', '.join(odd)}" if odd else "each two share some, all together none"
    return (
        f"there is no test row (the same id, prompt and reference) that all runs answered: {who}. Test rows: {_counts(runs)}. "
        "Compare runs of the same data, format and evaluate.limit"
    )


def group_by_configuration(runs: list[Run]) -> list[Entry]:
    """One entry a configuration: runs that differ in train.seed alone belong together."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        others = {key: value for key, value in run.params.items() if key != SEED}
        groups[json.dumps([others, run.inputs], sort_keys=True)].append(run)
    firsts = [group[0] for group in groups.values()]
    apart = differing_keys([first.params for first in firsts])
    labels = [{key: first.params[key] for key in apart if key in first.params} for first in firsts]
    return [
        Entry(", ".join(run.name for run in group), group, {**label, **_inputs(first, _twins(label, labels, firsts))})
        for group, first, label in zip(groups.values(), firsts, labels, strict=True)
    ]


def _twins(label: Params, labels: list[Params], firsts: list[Run]) -> list[Run]:
    return [first for first, other in zip(firsts, labels, strict=True) if other == label]


def _inputs(run: Run, twins: list[Run]) -> Params:
    """What no parameter tells apart: the data and code that do, the first one with its checksum's first digits."""
    paths = sorted({path for twin in twins for path, _ in twin.inputs.items() ^ run.inputs.items()})
    if not paths:
        return {}
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return {"input": f"{paths[0]} {run.inputs.get(paths[0], ABSENT)[:7]}{more}"}


def differing_keys(params: list[Params]) -> list[str]:
    """The keys, but the seed, that set configurations apart; not those that another option just does not have.

    >>> differing_keys([{"train.method.kind": "full"}, {"train.method.kind": "lora", "train.method.rank": 8}])
    ['train.method.kind']
    """
    keys = list(dict.fromkeys(key for each in params for key in each if key != SEED))
    varying = {key for key in keys if len({json.dumps(each[key]) for each in params if key in each}) > 1}
    kinds = {key.removesuffix("kind") for key in varying if key.endswith(".kind")}
    lacking = {key for key in keys if any(key not in each for each in params)}
    explained = {key for key in lacking if any(key.startswith(section) for section in kinds)}
    return [key for key in keys if key in varying | (lacking - explained)]
