"""Prints the mean and standard deviation of the metrics over the folds of a cross-validation.

    python -m pipeline.folds

Reads the current commit's experiments that set `format.folds` (`dvc exp show`), and their metrics from DVC's cache or remote.
Experiments whose parameters differ only in `format.fold` are the folds of one cross-validation and give one table. The
standard deviation is the sample's (n - 1).
"""

import json
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import pipeline.core.interruption  # noqa: F401
from pipeline.compose.leaves import diff_leaves, flatten
from pipeline.core.console import printable
from pipeline.core.entrypoint import report_errors
from pipeline.core.paths import METRICS, PARAMS
from pipeline.errors import ConfigError
from pipeline.leaderboard.revisions import Revision, open_repository
from pipeline.leaderboard.runs import read_evaluation_metrics

MODELS = ("base", "finetuned")
ReadMetrics = Callable[[str, str, str], dict[str, Any]]
QUEUE_COMMAND = "dvc exp run --queue -S format.folds=5 -S 'format.fold=range(0,5)', then: dvc queue start"


class Fold(NamedTuple):
    experiment: str
    number: int
    params: dict[str, Any]  # without format.fold
    metrics: dict[str, dict[str, float]]  # model → metric → value


def list_experiments() -> list[dict[str, Any]]:
    """The current commit's experiments as `dvc exp show` reports them. Raises ConfigError with its message if it fails."""
    done = subprocess.run(["dvc", "exp", "show", "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"dvc exp show failed: {done.stderr.strip()}")
    commits = json.loads(done.stdout)
    return [revision for commit in commits for entry in commit["experiments"] or [] for revision in entry["revs"][:1]]


def fold_of(experiment: dict[str, Any], read_metrics: ReadMetrics) -> Fold | None:
    """The fold that an experiment ran; None if it sets no format.folds or has not finished.

    read_metrics: name of the experiment, its commit, model → everything that evaluate measured.
    """
    data = experiment["data"] or {}
    params = data.get("params", {}).get(str(PARAMS), {}).get("data")
    headlines = [data.get("metrics", {}).get(f"{METRICS}/evaluate/{model}.json", {}).get("data") for model in MODELS]
    if not params or not params.get("format", {}).get("folds") or not all(headlines):
        return None
    number, name = params["format"].pop("fold"), experiment["name"] or experiment["rev"][:7]
    files = {model: read_metrics(name, experiment["rev"], model) for model in MODELS}
    metrics = {model: {key: v for key, v in values.items() if isinstance(v, float)} for model, values in files.items()}
    return Fold(name, number, params, metrics)


def list_folds() -> list[Fold]:
    """The folds that experiments of the current commit have run. Raises ConfigError or DataError."""
    experiments = list_experiments()
    with open_repository() as repo:

        def read_metrics(name: str, commit: str, model: str) -> dict[str, Any]:
            with closing(Revision(repo, name, commit)) as revision:
                return read_evaluation_metrics(revision, model)

        return [fold for experiment in experiments if (fold := fold_of(experiment, read_metrics))]


def cross_validations(folds: list[Fold]) -> list[list[Fold]]:
    """The folds grouped by their parameters, in order of their numbers. Of a repeated fold, the first counts."""
    groups: dict[str, dict[int, Fold]] = defaultdict(dict)
    for fold in folds:
        groups[json.dumps(fold.params, sort_keys=True)].setdefault(fold.number, fold)
    return [[group[number] for number in sorted(group)] for group in groups.values()]


def format_mean_std(values: list[float]) -> str:
    """
    >>> format_mean_std([0.25, 0.75]), format_mean_std([0.5])
    ('0.5 ± 0.3536', '0.5')
    """
    mean = f"{statistics.fmean(values):.4g}"
    return f"{mean} ± {statistics.stdev(values):.4g}" if len(values) > 1 else mean


def fold_table(folds: list[Fold]) -> list[str]:
    """Lines with each metric's mean ± standard deviation for both models, and of its change within each fold."""
    expected = folds[0].params["format"]["folds"]
    numbers = ", ".join(str(fold.number) for fold in folds)
    lines = [f"{len(folds)} of {expected} folds ({numbers}): {', '.join(fold.experiment for fold in folds)}"]
    if len(folds) < expected:
        lines.append("Not all folds have run: these numbers leave rows out.")
    lines.append(f"{'':<14}{'base':>22}{'finetuned':>22}{'change':>22}")
    for name in (name for name in folds[0].metrics["base"] if name in folds[0].metrics["finetuned"]):
        base, finetuned = ([fold.metrics[model][name] for fold in folds] for model in MODELS)
        change = [after - before for before, after in zip(base, finetuned, strict=True)]
        cells = (format_mean_std(values) for values in (base, finetuned, change))
        lines.append(f"{name:<14}{''.join(f'{cell:>22}' for cell in cells)}")
    return lines


def main() -> None:
    with report_errors("folds"):
        groups = cross_validations(list_folds())
        if not groups:
            raise ConfigError(f"no experiment of this commit has run with format.folds; run: {QUEUE_COMMAND}")
        for group in groups:
            differences = diff_leaves(flatten(groups[0][0].params), flatten(group[0].params))
            changes = ", ".join(f"{key}={value}" for key, (_, value) in differences.items())
            print(printable("\n".join([f"\n{changes}" if changes else "", *fold_table(group)])))


if __name__ == "__main__":
    main()
