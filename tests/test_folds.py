"""pipeline/folds.py: which experiments are one family, and their mean and spread, by hand and through DVC."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.project import python_in, run_in

from pipeline.folds import Fold, families, fold_of, table


def fold(number: int, f1: float, rate: float = 0.1, name: str = "") -> Fold:
    params = {"format": {"folds": 3}, "train": {"learning_rate": rate}}
    return Fold(name or f"exp{number}", number, params, {"base": {"f1": 0.25}, "finetuned": {"f1": f1}})


def test_a_family_differs_in_its_fold_alone() -> None:
    first, second, other = fold(1, 0.5), fold(0, 0.75), fold(0, 0.5, rate=0.2)
    again = fold(1, 0.9, name="older")
    assert families([first, other, second, again]) == [[second, first], [other]]


def test_the_table_gives_mean_and_standard_deviation_of_both_and_of_the_change() -> None:
    found = table([fold(0, 0.5), fold(1, 0.75), fold(2, 1.0)])
    assert found == [
        "3 of 3 folds (0, 1, 2): exp0, exp1, exp2",
        "                                base             finetuned                change",
        "f1                          0.25 ± 0           0.75 ± 0.25            0.5 ± 0.25",
    ]


def test_missing_folds_are_told() -> None:
    assert table([fold(0, 0.5), fold(2, 1.0)])[:2] == [
        "2 of 3 folds (0, 2): exp0, exp2",
        "Not all folds have run: these figures leave rows out.",
    ]


def test_experiments_that_failed_or_have_no_folds_are_none() -> None:
    def shown(folds: int | None, f1: float | None) -> dict[str, Any]:
        metrics = {f"metrics/evaluate/{name}.json": {"data": {"f1": f1, "rows": 3}} for name in ("base", "finetuned")}
        params = {"params.yaml": {"data": {"format": {"folds": folds, "fold": 1}}}}
        return {"rev": "a" * 40, "name": "x", "data": {"params": params, "metrics": metrics if f1 is not None else {}}}

    assert fold_of(shown(None, 0.5)) is None
    assert fold_of(shown(3, None)) is None
    assert fold_of({"rev": "a" * 40, "name": None, "data": None}) is None
    assert fold_of(shown(3, 0.5)) == Fold(
        "x", 1, {"format": {"folds": 3}}, {"base": {"f1": 0.5}, "finetuned": {"f1": 0.5}}
    )


@pytest.fixture(scope="module")
def clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(repository, tmp_path_factory.mktemp("folds") / "project", symlinks=True))


def test_the_folds_of_experiments_are_found_through_dvc(clone: Path) -> None:
    none = python_in(clone, "pipeline.folds")
    assert none.returncode == 1
    assert "no experiment of this commit has run with format.folds; run: dvc exp run --queue" in none.stderr
    folds = ("format.folds=2", "format.fold=0", "train.max_steps=2")
    done = run_in(clone, "dvc", "exp", "run", "-n", "fold-0", *(word for fold in folds for word in ("-S", fold)))
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = clone / "metrics/evaluate/finetuned.json"
    loss = json.loads(metrics.read_text())["loss"]
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "loss": loss + 0.5}))
    assert python_in(clone, "pipeline.compose", *folds, "format.fold=1").returncode == 0
    assert run_in(clone, "dvc", "exp", "save", "-n", "fold-1").returncode == 0
    done = python_in(clone, "pipeline.folds")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 folds (0, 1): fold-0, fold-1\n" in done.stdout
    assert re.search(rf"^loss +\S+ ± 0 +{loss + 0.25:.4g} ± 0.3536 ", done.stdout, re.MULTILINE), done.stdout
