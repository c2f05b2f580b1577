"""Trainings of small models that must end alike, and the comparison of two of them."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support.small_models import write_inputs

from pipeline.core.files import read_json
from pipeline.core.paths import DETAILS, FINETUNED, TRAIN_STEPS
from pipeline.modeling.loading import load_model
from pipeline.train import stage
from pipeline.train.step_log import LoggedStep, read_step_log

CPU, METRICS = torch.device("cpu"), DETAILS / "train.json"
# Plain gradient descent: AdamW would turn the rounding error of a gradient near 0 into a whole step of its weight.
PLAIN = {
    "epochs": 2.0,
    "batch_size": 8,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "schedule": {"kind": "constant"},
    "warmup_steps": 0,
    "max_grad_norm": 4.0,  # clips some steps, not all
    "weight_decay": 0.0,  # changes every weight, whether it has a gradient or not
    "dropout": 0.0,  # drawn for each batch; GPT-2 has 0.1
    "eval_steps": 100,
    "keep_best": False,
}
LORA = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear"}
Options = Callable[..., Any]
Train = Callable[..., "EqualTraining"]


class EqualTraining(NamedTuple):
    """A finished training."""

    folder: Path
    validation_loss: float
    steps: list[LoggedStep]
    weights: dict[str, torch.Tensor]  # as saved
    model: Any  # as it was in memory, if it was trained in this process


def train_in(folder: Path, options: Any) -> EqualTraining:
    """Train in a folder with inputs."""
    in_memory: list[Any] = []
    export = stage.export_model

    def remember_and_export(model: Any, *arguments: Any) -> None:
        in_memory.append(model)
        export(model, *arguments)

    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.delenv("DVC_ROOT", raising=False)
        patch.setattr(stage, "export_model", remember_and_export)
        metrics = stage.train(options, CPU)
    return finished(folder)._replace(validation_loss=metrics["validation_loss"], model=in_memory[0])


def finished(folder: Path) -> EqualTraining:
    """The training that a process ended in a folder."""
    weights = load_model(folder / FINETUNED).state_dict()
    loss = read_json(folder / METRICS)["validation_loss"] if (folder / METRICS).exists() else math.nan
    return EqualTraining(folder, loss, read_step_log(folder / TRAIN_STEPS), weights, None)


def training_function(options: Options, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """A function that trains a family with changes to PLAIN; equal calls share one training."""

    trainings: dict[str, EqualTraining] = {}

    def train(kind: str, **changes: Any) -> EqualTraining:
        name = f"{kind} {sorted(({**PLAIN, **changes}).items())}"
        if name not in trainings:
            folder = tmp_path_factory.mktemp(kind)
            write_inputs(folder, kind)
            trainings[name] = train_in(folder, options(**{**PLAIN, **changes}))
        return trainings[name]

    return train


def assert_equal_trainings(one: EqualTraining, other: EqualTraining, tolerance: float) -> None:
    """The same rows in the same steps; losses, norms and weights that differ by rounding only."""
    assert [step.rows for step in one.steps] == [step.rows for step in other.steps]
    for step, expected in zip(one.steps, other.steps, strict=True):
        assert step[2:] == pytest.approx(expected[2:], rel=tolerance, abs=0)
    assert one.validation_loss == pytest.approx(other.validation_loss, rel=tolerance, abs=0)
    assert one.weights.keys() == other.weights.keys()
    for name, tensor in one.weights.items():
        difference = (tensor - other.weights[name]).abs().max()
        assert difference <= tolerance, f"{name} differs by up to {difference}"
