"""pipeline/folds.py: which experiments are one cross-validation, and their means and deviations, on literals and through DVC."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.project import python_in, run_in

from pipeline.folds import Fold, cross_validations, fold_of, fold_table


def fold(number: int, f1: float, rate: float = 0.1, name: str = "") -> Fold:
    params = {"format": {"folds": 3}, "train": {"learning_rate": rate}}
    return Fold(name or f"exp{number}", number, params, {"base": {"f1": 0.25}, "finetuned": {"f1": f1}})


def test_folds_of_one_cross_validation_differ_only_in_format_fold() -> None:
    first, second, other = fold(1, 0.5), fold(0, 0.75), fold(0, 0.5, rate=0.2)
    again = fold(1, 0.9, name="older")
    assert cross_validations([first, other, second, again]) == [[second, first], [other]]


def test_table_has_mean_and_deviation_of_both_models_and_the_change() -> None:
    assert fold_table([fold(0, 0.5), fold(1, 0.75), fold(2, 1.0)]) == [
        "3 of 3 folds (0, 1, 2): exp0, exp1, exp2",
        "                                base             finetuned                change",
        "f1                          0.25 ± 0           0.75 ± 0.25            0.5 ± 0.25",
    ]


def test_table_names_missing_folds() -> None:
    assert fold_table([fold(0, 0.5), fold(2, 1.0)])[:2] == [
        "2 of 3 folds (0, 2): exp0, exp2",
        "Not all folds have run: these numbers leave rows out.",
    ]


def test_failed_experiments_and_those_without_folds_are_skipped() -> None:
    def experiment(folds: int | None, f1: float | None) -> dict[str, Any]:
        metrics = {f"metrics/evaluate/{name}.json": {"data": {"f1": {name: f1}}} for name in ("base", "finetuned")}
        params = {"params.yaml": {"data": {"format": {"folds": folds, "fold": 1}}}}
        return {"rev": "a" * 40, "name": "x", "data": {"params": params, "metrics": metrics if f1 is not None else {}}}

    def read(name: str, commit: str, model: str) -> dict[str, Any]:
        return {"f1": 0.5, "rows": 3, "signature": {"bleu": "v1"}}

    assert fold_of(experiment(None, 0.5), read) is None
    assert fold_of(experiment(3, None), read) is None
    assert fold_of({"rev": "a" * 40, "name": None, "data": None}, read) is None
    assert fold_of(experiment(3, 0.5), read) == Fold(
        "x", 1, {"format": {"folds": 3}}, {"base": {"f1": 0.5}, "finetuned": {"f1": 0.5}}
    )


@pytest.fixture(scope="module")
def clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(repository, tmp_path_factory.mktemp("folds") / "project", symlinks=True))


def test_folds_are_read_from_dvc_experiments(clone: Path) -> None:
    without = python_in(clone, "pipeline.folds")
    assert without.returncode == 1
    assert "no experiment of this commit has run with format.folds; run: dvc exp run --queue" in without.stderr
    folds = ("format.folds=2", "format.fold=0", "train.max_steps=2")
    done = run_in(clone, "dvc", "exp", "run", "-n", "fold-0", *(word for fold in folds for word in ("-S", fold)))
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = clone / "metrics/details/evaluate/finetuned.json"
    loss = json.loads(metrics.read_text())["loss"]
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "loss": loss + 0.5}))
    assert python_in(clone, "pipeline.compose", *folds, "format.fold=1").returncode == 0
    assert run_in(clone, "dvc", "exp", "save", "-n", "fold-1").returncode == 0
    done = python_in(clone, "pipeline.folds")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 folds (0, 1): fold-0, fold-1\n" in done.stdout
    assert re.search(rf"^loss +\S+ ± 0 +{loss + 0.25:.4g} ± 0.3536 ", done.stdout, re.MULTILINE), done.stdout
