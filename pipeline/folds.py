"""Mean and standard deviation of the metrics over the folds of cross-validation.

    python -m pipeline.folds

Reads the experiments of the present commit (`dvc exp show`) that `format.folds` splits: those that differ in
`format.fold` alone are a family, and one table. The standard deviation is that of a sample (n - 1).
"""

import json
import statistics
import subprocess
from collections import defaultdict
from typing import Any, NamedTuple

from pipeline.compose.leaves import diff_leaves, flatten
from pipeline.core.entrypoint import report_errors
from pipeline.errors import ConfigError

MODELS = ("base", "finetuned")
RUN = "dvc exp run --queue -S format.folds=5 -S 'format.fold=range(0,5)', then: dvc queue start"


class Fold(NamedTuple):
    experiment: str
    number: int
    params: dict[str, Any]  # all but format.fold
    metrics: dict[str, dict[str, float]]  # model → metric → value


def experiments() -> list[dict[str, Any]]:
    """What DVC knows of the experiments of the present commit; ConfigError with its words if it does not tell."""
    done = subprocess.run(["dvc", "exp", "show", "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"dvc exp show failed: {done.stderr.strip()}")
    return [
        rev for commit in json.loads(done.stdout) for each in commit["experiments"] or [] for rev in each["revs"][:1]
    ]


def fold_of(experiment: dict[str, Any]) -> Fold | None:
    """The fold that an experiment ran; None if it is none, or did not end."""
    data = experiment["data"] or {}
    params = data.get("params", {}).get("params.yaml", {}).get("data")
    found = {name: data.get("metrics", {}).get(f"metrics/evaluate/{name}.json", {}).get("data") for name in MODELS}
    if not params or not params.get("format", {}).get("folds") or not all(found.values()):
        return None
    number = params["format"].pop("fold")
    metrics = {name: {key: v for key, v in values.items() if isinstance(v, float)} for name, values in found.items()}
    return Fold(experiment["name"] or experiment["rev"][:7], number, params, metrics)


def families(folds: list[Fold]) -> list[list[Fold]]:
    """The folds that belong together, by number; of a fold that ran twice, the one that DVC names first."""
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


def table(family: list[Fold]) -> list[str]:
    """The lines of a family's table: each metric's mean ± standard deviation for both models, and of its change."""
    folds = family[0].params["format"]["folds"]
    numbers = ", ".join(str(fold.number) for fold in family)
    lines = [f"{len(family)} of {folds} folds ({numbers}): {', '.join(fold.experiment for fold in family)}"]
    if len(family) < folds:
        lines.append("Not all folds have run: these figures leave rows out.")
    lines.append(f"{'':<14}{'base':>22}{'finetuned':>22}{'change':>22}")
    for name in (name for name in family[0].metrics["base"] if name in family[0].metrics["finetuned"]):
        base, tuned = ([fold.metrics[model][name] for fold in family] for model in MODELS)
        change = [after - before for before, after in zip(base, tuned, strict=True)]
        lines.append(f"{name:<14}{format_mean_std(base):>22}{format_mean_std(tuned):>22}{format_mean_std(change):>22}")
    return lines


def main() -> None:
    with report_errors("folds"):
        found = families([fold for each in experiments() if (fold := fold_of(each))])
        if not found:
            raise ConfigError(f"no experiment of this commit has run with format.folds; run: {RUN}")
        for family in found:
            differing = diff_leaves(flatten(found[0][0].params), flatten(family[0].params))
            told = ", ".join(f"{key}={there}" for key, (_, there) in differing.items())
            print("\n".join([f"\n{told}" if told else "", *table(family)]))


if __name__ == "__main__":
    main()
