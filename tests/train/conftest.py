"""Finished trainings that several tests share."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support.project import make_once

from pipeline.core.files import read_json, write_json

Options = Callable[..., Any]
FULL = {"max_steps": 6, "eval_steps": 3}
LORA = {
    "max_steps": 4,
    "eval_steps": 2,
    "learning_rate": 0.01,
    "method": {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.1, "target_modules": "all-linear"},
}


class Training(NamedTuple):
    """A training in a copy of the project (not to be changed), with its changes to the shipped options."""

    folder: Path
    changes: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def finetuned(self) -> Path:
        return self.folder / "models/finetuned"


def finished_training(
    name: str, changes: dict[str, Any], built: Path, options: Options, tmp_path_factory: pytest.TempPathFactory
) -> Training:
    """The training with these options, which the first of pytest's workers to need it runs."""

    def train_in_copy(folder: Path) -> Path:
        from pipeline.train import stage

        shutil.copytree(built, folder, symlinks=True)
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
            patch.delenv("DVC_ROOT", raising=False)
            write_json(Path("metrics/details/train.json"), stage.train(options(**changes), torch.device("cpu")))
        return folder

    folder = make_once(name, train_in_copy, tmp_path_factory)
    return Training(folder, changes, read_json(folder / "metrics/details/train.json"))


@pytest.fixture(scope="session")
def full_training(built: Path, train_options: Options, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """All weights trained, with evaluations at steps 0, 3 and 6."""
    return finished_training("full_training", FULL, built, train_options, tmp_path_factory)


@pytest.fixture(scope="session")
def lora_training(built: Path, train_options: Options, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A LoRA adapter trained with dropout, with evaluations at steps 0, 2 and 4."""
    return finished_training("lora_training", LORA, built, train_options, tmp_path_factory)
