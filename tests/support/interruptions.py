"""Interruptions of a training: an exception before a step, as Ctrl-C raises it, and kill -9 of a real process."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fork_server import ADDRESS, SHIMS, server_address
from support.project import environment
from transformers import TrainerCallback

from pipeline.core.paths import FINETUNED, TRAIN_HISTORY, TRAIN_STEPS
from pipeline.train import stage


class InterruptBeforeStep(TrainerCallback):
    """Raises KeyboardInterrupt after `steps` steps of the training."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.steps:
            raise KeyboardInterrupt


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def training_outputs() -> dict[str, bytes]:
    """The files that a training wrote in this folder."""
    return files_in(FINETUNED) | files_in(TRAIN_HISTORY) | {"steps": TRAIN_STEPS.read_bytes()}


def interrupt_training(options: Any, steps: int) -> None:
    """Train in this process, and interrupt the training after `steps` steps."""
    build_trainer = stage.build_trainer

    def build_interrupted(*arguments: Any) -> Any:
        trainer = build_trainer(*arguments)
        trainer.add_callback(InterruptBeforeStep(steps))
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "build_trainer", build_interrupted)
        with pytest.raises(KeyboardInterrupt):
            stage.train(options, torch.device("cpu"))


def start_stage(folder: Path, module: str, *arguments: str, **changes: str) -> subprocess.Popen[str]:
    """Start `python -m module` in a folder by the fork server, with pipes for its output and its errors."""
    variables = environment(**changes)
    variables |= {"PATH": f"{SHIMS}{os.pathsep}{variables['PATH']}", ADDRESS: server_address(environment())}
    return subprocess.Popen(
        ["python", "-m", module, *arguments],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_line(process: subprocess.Popen[str], start: str) -> None:
    """Read a process's output up to a line with this start."""
    assert process.stdout is not None
    assert any(line.startswith(start) for line in process.stdout), process.communicate()


def kill_training(folder: Path, line: str, *overrides: str) -> None:
    """Run the train stage, and kill it when it logs a line with this start."""
    process = start_stage(folder, "pipeline.train", "hydra.verbose=true", *overrides)
    wait_for_line(process, line)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()  # its output ends when it is dead
    assert process.returncode == -signal.SIGKILL
