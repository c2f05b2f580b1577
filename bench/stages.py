"""The stages that prepare data, run as the processes that they are, each with its time and memory."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CODE = ("conf", "hydra_plugins", "pipeline")
STAGES = {
    "fetch": ("pipeline.fetch", "instance=data"),
    "clean": ("pipeline.clean",),
    "format": ("pipeline.format",),
    "tokenize": ("pipeline.tokenize",),
}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
LENGTH = 2048  # tokens a row


class Measured(NamedTuple):
    """One run of a stage; `inside` leaves out the start of Python and Hydra's composition.

    `cpu` is the time of all its threads together: it says more than `seconds` where others use the machine, too.
    """

    stage: str
    seconds: float
    inside: float
    cpu: float
    peak: float  # resident memory of the process at most, in bytes
    rows: int  # that came in


class StageFailed(RuntimeError):
    """A stage ended with an error; the message is the stage's own."""


def checkout(folder: Path, tokenizer: Path) -> Path:
    """A copy of the project's code in `folder`, with the tokenizer where fetch@model would bring it."""
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    base = folder / "models/base"
    base.mkdir(parents=True)
    for name in TOKENIZER:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, base / name)
    (base / "config.json").write_text(json.dumps({"max_position_embeddings": LENGTH}), encoding="utf-8")
    return folder


def run_stages(project: Path, overrides: list[str]) -> list[Measured]:
    """Compose params.yaml with Hydra's overrides and run the four stages; StageFailed with what one says on failure."""
    # model=scratch is but what composition accepts without a model's weights: no stage here reads the section.
    # Rows of any length are measured, and those that are cut say nothing against the measurement.
    lengths = (f"model.positions={LENGTH}", f"tokenize.max_length={LENGTH}", "tokenize.gates.max_unended=1")
    _run(project, ("pipeline.compose", "model=scratch", *lengths, *overrides))
    return [_measured(project, stage) for stage in STAGES]


def _measured(project: Path, stage: str) -> Measured:
    seconds, cpu, peak = _run(project, STAGES[stage])
    runtime = _json(project / "metrics/runtime" / ("fetch/data.json" if stage == "fetch" else f"{stage}.json"))
    return Measured(stage, seconds, runtime["seconds"], cpu, peak, _rows_in(project, stage))


def _rows_in(project: Path, stage: str) -> int:
    if stage == "fetch":
        return _json(project / "metrics/fetch/data.json")["rows"]
    if stage == "tokenize":
        return sum(_json(project / "metrics/tokenize.json")[split]["rows"] for split in ("train", "validation"))
    return _json(project / f"metrics/{stage}.json")["rows_in"]


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _run(project: Path, command: tuple[str, ...]) -> tuple[float, float, float]:
    """(seconds, CPU seconds, peak memory in bytes) of one process; RUSAGE_CHILDREN has the peak of all."""
    with (project / "output.txt").open("w+", encoding="utf-8") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=project, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise StageFailed(f"{command[0]} ended with {process.returncode}:\n{output.read()}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
