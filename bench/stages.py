"""Runs the data stages as processes in a copy of the project and measures time and memory."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CODE = ("conf", "hydra_plugins", "pipeline")
STAGES = {
    "fetch": ("pipeline.fetch", "instance=data"),
    "clean": ("pipeline.clean",),
    "format": ("pipeline.format",),
    "tokenize": ("pipeline.tokenize",),
}
END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")  # of GPT-NeoX and GPT-2, Llama 3, Llama 2, Gemma
MAX_LENGTH = 2048  # tokens in a row


class StageRun(NamedTuple):
    """One run of a stage.

    `cpu` is the CPU time of all threads together, which is more reliable than `seconds` on a machine that others use too.
    """

    stage: str
    seconds: float
    inside: float  # seconds without the start of Python and Hydra's composition
    cpu: float
    peak: float  # greatest resident memory of the process, in bytes
    rows: int  # read


class StageFailed(RuntimeError):
    """A stage ended with an error. The message includes the output of the stage."""


def checkout(folder: Path, tokenizer: Path) -> Path:
    """Copy the project's code to `folder`, and the tokenizer to where fetch would write it; return `folder`."""
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    base = copy_tokenizer(tokenizer, folder / "models/base")
    (base / "config.json").write_text(json.dumps({"max_position_embeddings": MAX_LENGTH}), encoding="utf-8")
    return folder


def copy_tokenizer(source: Path, target: Path) -> Path:
    """Copy the tokenizer of a model folder to the folder `target`; return `target`.

    A `source` that holds tokenizer.json alone gets a tokenizer_config.json that names the end-of-text token, if the tokenizer
    has a common one (END_OF_TEXT).
    """
    target.mkdir(parents=True)
    shutil.copy(source / "tokenizer.json", target)
    config = source / "tokenizer_config.json"
    if config.exists():
        shutil.copy(config, target)
        return target
    added = {token["content"] for token in _read_json(source / "tokenizer.json").get("added_tokens", [])}
    if eos_token := next((token for token in END_OF_TEXT if token in added), None):
        values = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos_token}
        (target / config.name).write_text(json.dumps(values), encoding="utf-8")
    return target


def run_stages(project: Path, overrides: list[str]) -> list[StageRun]:
    """Compose params.yaml with Hydra overrides and run the four stages.

    Raises StageFailed if composition or a stage fails.
    """
    # model=scratch lets composition pass without model weights; no stage here reads that section. Rows of any length are
    # measured, so truncated rows must not stop the run.
    lengths = (f"model.positions={MAX_LENGTH}", f"tokenize.max_length={MAX_LENGTH}", "tokenize.gates.max_unended=1")
    _run(project, ("pipeline.compose", "model=scratch", *lengths, *overrides))
    return [_run_stage(project, stage) for stage in STAGES]


def _run_stage(project: Path, stage: str) -> StageRun:
    seconds, cpu, peak = _run(project, STAGES[stage])
    runtime = _read_json(project / "metrics/runtime" / ("fetch/data.json" if stage == "fetch" else f"{stage}.json"))
    return StageRun(stage, seconds, runtime["seconds"][stage], cpu, peak, _rows_read(project, stage))


def _rows_read(project: Path, stage: str) -> int:
    if stage == "fetch":
        rows = _read_json(project / "metrics/details/fetch/data.json")["rows"]
    elif stage == "tokenize":
        metrics = _read_json(project / "metrics/details/tokenize.json")
        rows = sum(metrics[split]["rows"] for split in ("train", "validation"))
    else:
        rows = _read_json(project / f"metrics/details/{stage}.json")["rows_in"]
    return int(rows)


def _read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _run(project: Path, command: tuple[str, ...]) -> tuple[float, float, float]:
    """(seconds, CPU seconds, peak memory in bytes) of one process. RUSAGE_CHILDREN would give the peak of all of them."""
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
