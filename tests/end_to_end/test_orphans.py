"""A stage whose dvc was killed, and workers whose launcher was killed, end before they write anything."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import yaml
from support.interruptions import wait_for_line
from support.project import environment, python_in, run_in, stages_run

from pipeline.core.files import read_json, sha256_of_path
from pipeline.prove.faults import processes_in


@pytest.fixture
def copied(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "project", symlinks=True))


def start_and_kill(folder: Path, *command: str) -> list[psutil.Process]:
    """Start a command that trains, kill its process alone when the training begins, and return those that it leaves."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_line(process, "Training")
    os.kill(process.pid, signal.SIGKILL)
    left = list(processes_in(folder))
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    process.wait()
    return left


def test_killed_dvc_leaves_no_stage_that_meets_the_next_run(copied: Path) -> None:
    python_in(copied, "pipeline.compose", "train.epochs=500")
    left = start_and_kill(copied, "dvc", "repro", "train")
    assert left != []
    python_in(copied, "pipeline.compose", "train.max_steps=3", "train.seed=5")
    done = run_in(copied, "dvc", "repro", "train")
    assert stages_run(done.stdout) == ["train"], done.stderr
    assert psutil.wait_procs(left, timeout=60)[1] == []
    assert read_json(copied / "metrics/details/train.json")["steps"] == 3
    outs = {out["path"]: out for out in yaml.safe_load((copied / "dvc.lock").read_text())["stages"]["train"]["outs"]}
    assert outs["models/finetuned"]["nfiles"] == len(list((copied / "models/finetuned").iterdir()))
    assert run_in(copied, "dvc", "status", "train").stdout.startswith("Data and pipelines are up to date")
    weights = sha256_of_path(copied / "models/finetuned")
    assert run_in(copied, "dvc", "repro", "--force", "--single-item", "train").returncode == 0
    assert sha256_of_path(copied / "models/finetuned") == weights


def test_killed_launcher_leaves_no_workers(copied: Path) -> None:
    python_in(copied, "pipeline.compose", "train.epochs=500", "compute=ddp")
    assert run_in(copied, "dvc", "repro", "tokenize").returncode == 0
    before = sha256_of_path(copied / "models/finetuned")
    left = start_and_kill(copied, "python", "-m", "pipeline.train")
    assert len(left) >= 2
    assert psutil.wait_procs(left, timeout=60)[1] == []
    assert sha256_of_path(copied / "models/finetuned") == before


def test_stage_that_was_started_by_hand_outlives_its_shell(copied: Path) -> None:
    done = run_in(copied, "bash", "-c", "nohup python -m pipeline.clean > clean.log 2>&1 &", fresh=True)
    assert done.returncode == 0
    assert psutil.wait_procs(list(processes_in(copied)), timeout=60)[1] == []
    assert "rows kept" in (copied / "clean.log").read_text()
