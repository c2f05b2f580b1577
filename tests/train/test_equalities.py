"""Trainings that must end alike: other batches, packed rows, recomputed activations, two processes, a resume.

In float32, a sum of a few hundred terms in another order differs by about 1e-7 of its size: the largest difference measured
here is 4e-7, in losses, norms and weights, after 6 steps. A mean of the batches' means differs by more than 1e-2.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from support.equal_trainings import (
    LORA,
    PLAIN,
    EqualTraining,
    Train,
    assert_equal_trainings,
    finished,
    train_in,
    training_function,
)
from support.interruptions import interrupt_training
from support.project import SHIPPED, TINY, copy_project, python_in
from support.small_models import FAMILIES, write_inputs

from pipeline.compose.composition import compose_params, parse_params
from pipeline.core.files import write_json
from pipeline.train import logged_trainer

TOLERANCE = 5e-6
FOUR_BY_TWO = {"batch_size": 4, "gradient_accumulation": 2}
ONE_BY_EIGHT = {"batch_size": 1, "gradient_accumulation": 8}  # some of these batches have no labeled token
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "label smoothing": {"label_smoothing": 0.1},
    "lora": {"method": LORA},
    "packing": {"packing": True},
}
Options = Callable[..., Any]


@pytest.fixture(scope="module")
def train(train_options: Options, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trainings on 22 rows, 8 in a step: the last step of each epoch has 6."""
    return training_function(train_options, tmp_path_factory)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", FAMILIES)
def test_batches_of_one_row_train_like_one_batch_of_eight(kind: str, variant: str, train: Train) -> None:
    changes = VARIANTS[variant]
    assert_equal_trainings(train(kind, **changes, **ONE_BY_EIGHT), train(kind, **changes), TOLERANCE)


@pytest.mark.parametrize("kind", FAMILIES)
def test_batches_of_four_rows_train_like_one_batch_of_eight(kind: str, train: Train) -> None:
    four_by_two = train(kind, **FOUR_BY_TWO)
    assert_equal_trainings(four_by_two, train(kind), TOLERANCE)
    assert len(four_by_two.steps) == 6
    assert four_by_two.steps[-1].loss < four_by_two.steps[0].loss


@pytest.mark.parametrize("kind", FAMILIES)
def test_packed_rows_train_like_padded_ones(kind: str, train: Train) -> None:
    assert_equal_trainings(train(kind, packing=True), train(kind), TOLERANCE)


@pytest.mark.parametrize(("kind", "dropout"), [*((kind, 0.0) for kind in FAMILIES), ("gpt2", 0.1), ("gpt_neox", 0.1)])
def test_gradient_checkpointing_does_not_change_any_bit(kind: str, dropout: float, train: Train) -> None:
    """Dropout is drawn again in the backward pass, from the same random state."""
    checkpointed = train(kind, dropout=dropout, gradient_checkpointing=True)
    assert_equal_trainings(checkpointed, train(kind, dropout=dropout), 0.0)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_two_processes_train_like_one(
    kind: str, tmp_path: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 rows, 8 in a step: the last step has 4, two batches in each process, and some batches have no labeled token.

    Where rows do not fill the last batch of every process, the first rows of the epoch are repeated, so trainings differ.
    """
    monkeypatch.setenv("PYTHON_EXEC", str(SHIPPED.parent / "torchrun_python"))
    alone, together = tmp_path / "alone", copy_project(tmp_path / "together")
    for folder in (alone, together):
        write_inputs(folder, kind, row_count=20)
    params = parse_params(compose_params(*TINY, "compute=ddp"))
    params["train"] |= {**PLAIN, "batch_size": 1, "gradient_accumulation": 4}
    write_json(together / "params.yaml", params)
    done = python_in(together, "pipeline.train")
    assert (done.returncode, done.stderr) == (0, "")
    assert "in 2 processes (DDP)" in done.stdout
    assert_equal_trainings(finished(together), train_in(alone, train_options(**PLAIN)), TOLERANCE)


def drawn_rows(training: Callable[[], Any]) -> list[list[int]]:
    """The ids of the rows of each step of a training."""
    drawn: list[list[int]] = []
    rows_hash = logged_trainer.rows_hash

    def remember_and_hash(ids: list[int]) -> str:
        drawn.append(ids)
        return rows_hash(ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logged_trainer, "rows_hash", remember_and_hash)
        training()
    return drawn


@pytest.mark.parametrize("group_by_length", [True, False])
def test_each_row_comes_once_per_epoch_also_after_a_resume(
    group_by_length: bool, tmp_path: Path, train_options: Options
) -> None:
    """3 steps in an epoch; the training is interrupted after step 5 and resumes from the checkpoint of step 4."""
    changes = {"epochs": 3.0, "eval_steps": 2, "group_by_length": group_by_length, **FOUR_BY_TWO}
    options = train_options(**{**PLAIN, **changes})
    trained: list[EqualTraining] = []
    for name in ("undisturbed", "resumed"):
        write_inputs(tmp_path / name, "llama")
    undisturbed = drawn_rows(lambda: trained.append(train_in(tmp_path / "undisturbed", options)))
    with contextlib.chdir(tmp_path / "resumed"):
        before = drawn_rows(lambda: interrupt_training(options, 5))[:4]
    after = drawn_rows(lambda: trained.append(train_in(tmp_path / "resumed", options)))
    assert before + after == undisturbed
    epochs = [[*chain(*undisturbed[start : start + 3])] for start in (0, 3, 6)]
    assert [Counter(epoch) for epoch in epochs] == [Counter(range(100, 122))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    assert_equal_trainings(trained[1], trained[0], 0.0)
