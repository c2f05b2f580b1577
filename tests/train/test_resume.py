"""A training that was interrupted anywhere ends with the bytes of an undisturbed one."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.interruptions import interrupt_training, training_outputs

from pipeline.core.paths import FINETUNED
from pipeline.errors import PipelineError
from pipeline.train import stage as train
from pipeline.train.checkpoint_manifest import last_checkpoint, write_manifest

Options = Callable[..., Any]
CPU = torch.device("cpu")
STOPPING = {"metric": "validation_loss", "patience": 1, "threshold": 100.0}
# name → (changed options of training, steps before the interruption)
INTERRUPTIONS = {
    "second_epoch": ({"epochs": 3, "eval_steps": 5, "logging_steps": 3}, 17),
    "accumulation": ({"epochs": 2, "eval_steps": 4, "batch_size": 4, "gradient_accumulation": 2}, 22),
    "random_order": ({"epochs": 3, "eval_steps": 5, "group_by_length": False}, 17),
    "packing": ({"epochs": 3, "eval_steps": 5, "packing": True}, 17),
    "dropout_and_noise": ({"epochs": 2, "eval_steps": 5, "dropout": 0.2, "neftune_alpha": 5.0}, 12),
    "steps_within_an_epoch": ({"max_steps": 9, "eval_steps": 2, "keep_best": False}, 7),
}


def train_undisturbed(options: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    metrics, files = train.train(options, CPU), training_outputs()
    shutil.rmtree(FINETUNED)
    return metrics, files


@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_interrupted_training_ends_with_the_same_bytes(in_built: Path, train_options: Options, name: str) -> None:
    changes, steps = INTERRUPTIONS[name]
    options = train_options(**changes)
    undisturbed = train_undisturbed(options)
    interrupt_training(options, steps)
    assert (train.train(options, CPU), training_outputs()) == undisturbed


@pytest.mark.parametrize(
    "changes",
    [
        {"max_steps": 5, "eval_steps": 5},
        {"max_steps": 5, "eval_steps": 2},
        {"epochs": 1.5, "eval_steps": 3},
        {"max_steps": 16, "eval_steps": 2, "early_stopping": STOPPING},
    ],
)
def test_interruption_after_the_last_step_trains_no_further(
    in_built: Path, train_options: Options, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = train_options(**changes)
    undisturbed = train_undisturbed(options)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "export_model", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train.train(options, CPU)
    assert (train.train(options, CPU), training_outputs()) == undisturbed


def terminate_in_step(options: Any, number: int, message: str) -> None:
    """Train in this process, which gets SIGTERM in that step, and expect an error with this message."""
    step, steps = torch.optim.AdamW.step, []

    def terminating_step(*arguments: Any, **options: Any) -> Any:
        steps.append(1)
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", terminating_step)
        with pytest.raises(PipelineError, match=message):
            train.train(options, CPU)


@pytest.mark.parametrize(
    ("changes", "number", "message"),
    [
        ({"max_steps": 9, "eval_steps": 4, "logging_steps": 3}, 5, "; checkpoint-5 is written"),
        ({"max_steps": 9, "eval_steps": 4}, 9, "; checkpoint-9 is written|in an evaluation"),
        ({"epochs": 3, "eval_steps": None}, 15, "; checkpoint-15 is written"),
        ({"epochs": 3, "eval_steps": None}, 16, "in an evaluation"),  # an epoch's last step
        ({"epochs": 2, "eval_steps": None, "gradient_accumulation": 2}, 8, "in an evaluation"),  # the last step
        ({"max_steps": 7, "eval_steps": None}, 7, "in an evaluation"),
    ],
)
def test_training_ended_by_sigterm_resumes_to_the_same_bytes(
    in_built: Path, train_options: Options, changes: dict[str, Any], number: int, message: str
) -> None:
    options = train_options(**changes)
    undisturbed = train_undisturbed(options)
    terminate_in_step(options, number, f"terminated by SIGTERM ?({message})")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (train.train(options, CPU), training_outputs()) == undisturbed


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "config.json"])
def test_damaged_checkpoint_is_reported_and_not_used(
    tmp_path: Path, name: str, damage: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    for step in (4, 8):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        for file in ("model.safetensors", "optimizer.pt", "scheduler.pt", "config.json"):
            (checkpoint / file).write_text(f"{file} of step {step}, some bytes")
        (checkpoint / "trainer_state.json").write_text('{"best_model_checkpoint": null}')
        write_manifest(checkpoint)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-8"
    damage(tmp_path / "checkpoint-8" / name)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert f"checkpoint-8 is damaged ({name}) and is not used" in caplog.text
    assert (tmp_path / "damaged-checkpoint-8").exists()


@pytest.mark.parametrize("content", ["", "[]", "null", '{"trainer_state.json": 3}', "\0" * 20])
def test_checkpoint_with_a_damaged_manifest_is_not_used(tmp_path: Path, content: str) -> None:
    checkpoint = tmp_path / "checkpoint-4"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text('{"best_model_checkpoint": null}')
    (checkpoint / "manifest.json").write_text(content)
    assert last_checkpoint(tmp_path) is None
    assert (tmp_path / "damaged-checkpoint-4").exists()


@pytest.mark.parametrize("state", ["", "[]", "{}", "\0"])
def test_checkpoint_whose_state_is_unreadable_is_not_used(tmp_path: Path, state: str) -> None:
    checkpoint = tmp_path / "checkpoint-4"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text(state)
    write_manifest(checkpoint)
    assert last_checkpoint(tmp_path) is None
    assert (tmp_path / "damaged-checkpoint-4").exists()


def test_what_only_looks_like_a_checkpoint_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "checkpoint-4").write_text("a file")
    for name in ("checkpoint-final", "checkpoint-"):
        (tmp_path / name).mkdir()
    assert last_checkpoint(tmp_path) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-",
        "checkpoint-final",
        "damaged-checkpoint-4",
    ]
    assert "checkpoint-4 is damaged (a file, not a folder) and is not used" in caplog.text


def test_checkpoint_without_its_best_one_is_not_used(tmp_path: Path) -> None:
    for step, best in ((4, "null"), (8, f'"{tmp_path}/checkpoint-6"')):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "trainer_state.json").write_text(f'{{"best_model_checkpoint": {best}}}')
        write_manifest(checkpoint)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"


def test_training_with_a_damaged_checkpoint_starts_from_the_beginning(in_built: Path, train_options: Options) -> None:
    options = train_options(max_steps=6, eval_steps=2)
    undisturbed = train_undisturbed(options)
    interrupt_training(options, 3)
    (weights,) = Path(".checkpoints").glob("*/checkpoint-2/model.safetensors")
    flip_a_bit(weights)
    assert (train.train(options, CPU), training_outputs()) == undisturbed
