"""SIGTERM to a training of two processes, as a scheduler sends it: a checkpoint, one message, and the same bytes afterwards."""

import re
import signal
from pathlib import Path

import pytest
from support.interruptions import start_stage, wait_for_line
from support.project import TINY, python_in

from pipeline.compose.composition import compose_params

OPTIONS = ("compute=ddp", "train.batch_size=4", "train.max_steps=40", "train.eval_steps=20", "train.logging_steps=1")


@pytest.fixture
def two_processes(in_built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose training takes two processes, in new interpreters: forked ones would be done before the signal."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    (in_built / "params.yaml").write_text(compose_params(*TINY, *OPTIONS))
    return in_built


def files_in(folder: Path) -> dict[str, bytes]:
    paths = [*(folder / "models/finetuned").rglob("*"), *(folder / "metrics/train").iterdir()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def test_sigterm_writes_a_checkpoint_of_all_processes_to_resume_from(two_processes: Path) -> None:
    assert python_in(two_processes, "pipeline.train").returncode == 0
    undisturbed = files_in(two_processes)
    process = start_stage(two_processes, "pipeline.train", "hydra.verbose=true")
    wait_for_line(process, "step 5/40")
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate()
    assert process.returncode == 1
    message = re.search(r"train stopped: terminated by SIGTERM; checkpoint-(\d+) is written. Run it again", error)
    assert message, error
    assert error.count("stopped") == 1
    step = int(message[1])
    assert 5 <= step < 40
    done = python_in(two_processes, "pipeline.train")
    assert f"Resuming from checkpoint-{step}" in done.stdout
    assert files_in(two_processes) == undisturbed
