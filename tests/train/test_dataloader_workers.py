"""Batches that data-loader workers prepare are the main process's, and the training ends with the same bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.interruptions import interrupt_training, training_outputs

from pipeline.train import stage as train

CPU = torch.device("cpu")
Options = Callable[..., Any]
# name → changed options of training
TRAININGS: dict[str, dict[str, Any]] = {
    "dropout and noise": {"epochs": 2, "eval_steps": 5, "dropout": 0.2, "neftune_alpha": 5.0},
    "packing in random order": {"epochs": 2, "packing": True, "group_by_length": False},
    "accumulation": {"max_steps": 7, "batch_size": 4, "gradient_accumulation": 2, "eval_steps": 3},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_workers_do_not_change_the_bytes(in_built: Path, train_options: Options, name: str) -> None:
    results = []
    for workers in (0, 1, 2):
        options = train_options(**TRAININGS[name], dataloader_workers=workers)
        results.append((train.train(options, CPU), training_outputs()))
    assert results[0] == results[1] == results[2]


def test_training_resumes_with_another_number_of_workers(in_built: Path, train_options: Options) -> None:
    changes = {"epochs": 2, "eval_steps": 5, "dropout": 0.2}
    undisturbed = train.train(train_options(**changes), CPU), training_outputs()
    interrupt_training(train_options(**changes, dataloader_workers=2), 12)
    assert list(Path(".checkpoints").glob("*/checkpoint-10")) != []
    assert (train.train(train_options(**changes, dataloader_workers=1), CPU), training_outputs()) == undisturbed
    assert list(Path(".checkpoints").iterdir()) == []
