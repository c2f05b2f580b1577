"""Training speed: the same rows, model and machine with this project's stage, the tutorial's code, and TRL.

    python -m bench.train --model FOLDER --data rows.jsonl --columns '{question: Description, answer: Doctor}'
    python -m bench.train --model pythia-70m --tokenizer FOLDER --data …     that configuration, random weights

Each trainer runs in its own process (bench/trainers.py), at each learning rate in turn; the rate with the lowest held-out loss
counts. TRL is not a dependency of the project and takes part if it is installed (pip install trl). Utilization is 6 × parameters
without the input embedding × tokens per second over the rate of a plain matrix product, which is measured here, in bfloat16 if
the machine supports it.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from bench.pythia import PYTHIA, write_pythia
from bench.stages import ROOT, checkout, run_stages

TRAINERS = ("pipeline", "tutorial", "trl", "trl_tuned")
HEADER = f"{'':16}{'rate':>9}{'seconds':>10}{'tokens/s':>10}{'utilized':>10}{'held-out loss':>15}{'pipeline is':>13}"


class TrainingRun(NamedTuple):
    """One training with one trainer at one learning rate."""

    name: str
    rate: float
    seconds: float
    tokens: int
    loss: float  # on the completions of the test rows, nats per token
    parameters: int  # without the input embedding

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


def prepare(options: argparse.Namespace, folder: Path) -> Path:
    """Copy the project to `folder`, with the model as its base model, and run the data stages on the rows; return the copy."""
    is_pythia = options.model in PYTHIA
    project = checkout(folder / "project", options.tokenizer if is_pythia else Path(options.model))
    base = project / "models/base"
    if is_pythia:
        write_pythia(options.model, options.tokenizer, base)
    else:
        shutil.copytree(options.model, base, dirs_exist_ok=True)
    lengths = (f"tokenize.max_length={options.length}", f"model.positions={options.length}")
    source = ("data=file", f"data.path='{options.data.resolve()}'", f"data.columns={options.columns}")
    run_stages(project, [*source, *lengths, "clean/preset=medical"])
    for name in ("formatted/train.jsonl", "tokenized/train.parquet"):
        _keep_first_rows(project / "data" / name, options.rows)
    return project


def _keep_first_rows(path: Path, rows: int | None) -> None:
    """Cut a file of training rows down to the first ones. All such files have the rows in the same order."""
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        pq.write_table(pq.read_table(path).slice(0, rows), path)
    else:
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:rows]), encoding="utf-8")


def run_trainer(name: str, rate: float, project: Path, options: argparse.Namespace) -> TrainingRun | str:
    """The run of a trainer at a learning rate, or the last line of its error output."""
    folders = {"model": "models/base", "formatted": "data/formatted", "tokenized": "data/tokenized"}
    command = [sys.executable, "-m", "bench.trainers", name, f"--rate={rate}", f"--epochs={options.epochs}"]
    command.append(f"--length={options.length}")
    command += [f"--{key}={project / path}" for key, path in folders.items()]
    command += ["--overrides", *options.overrides] if name == "pipeline" else []
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        return result.stderr.strip().rpartition("\n")[2]
    return TrainingRun(name, rate, **json.loads(result.stdout.splitlines()[-1]))


def best(runs: list[TrainingRun]) -> list[TrainingRun]:
    """The run with the lowest loss of each trainer, in the order of their first runs."""
    names = dict.fromkeys(run.name for run in runs)
    return [min((run for run in runs if run.name == name), key=lambda run: run.loss) for name in names]


def format_run(run: TrainingRun, pipeline: TrainingRun | None, peak: float) -> str:
    """One line of the table. peak: floating-point operations per second of a matrix product."""
    ratio = f"{pipeline.speed / run.speed:.2f} x" if pipeline else ""
    utilization = 6 * run.parameters * run.speed / peak
    return f"{run.name:16}{run.rate:9.1e}{run.seconds:10.1f}{run.speed:10,.0f}{utilization:10.0%}{run.loss:15.3f}{ratio:>13}"


def matrix_rate(size: int = 2048, repeats: int = 8) -> float:
    """Floating-point operations per second of a square matrix product, the best of `repeats`."""
    import torch

    from pipeline.modeling.devices import supports_bf16

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if supports_bf16(device) else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for the GPU
        rates.append(2 * size**3 / (time.perf_counter() - started))
    return max(rates)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.train", description="Training speed beside other trainers.")
    parser.add_argument("--model", required=True, help=f"a model folder, or one of {', '.join(PYTHIA)}")
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json, for a pythia")
    parser.add_argument("--data", type=Path, required=True, help="a data file")
    parser.add_argument("--columns", default="{question: Description, answer: Doctor}", help="data.columns")
    parser.add_argument("--rows", type=int, help="training rows, from the first; default: all")
    parser.add_argument("--length", type=int, default=1024, help="greatest number of tokens in a row")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3], help="learning rates to try")
    parser.add_argument("--trainers", nargs="+", default=TRAINERS, choices=TRAINERS)
    parser.add_argument("--overrides", nargs="*", default=[], help="Hydra overrides of the pipeline's parameters")
    options = parser.parse_args(arguments)
    if options.model in PYTHIA and not options.tokenizer:
        parser.error(f"{options.model} has no tokenizer of its own here: give --tokenizer FOLDER")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    names = [name for name in options.trainers if not name.startswith("trl") or find_spec("trl")]
    if len(names) < len(options.trainers):
        print("Skipping TRL, which is not installed: pip install trl")
    runs: list[TrainingRun] = []
    with tempfile.TemporaryDirectory() as temporary:
        project = prepare(options, Path(temporary))
        peak = matrix_rate()
        print(f"a matrix product: {peak / 1e9:,.0f} GFLOP/s\n{HEADER}", flush=True)
        for rate in options.rates:
            for name in names:
                run = run_trainer(name, rate, project, options)
                if isinstance(run, str):
                    print(f"{name} at {rate}: {run}", flush=True)
                else:
                    print(format_run(run, None, peak), flush=True)
                    runs.append(run)
    pipeline = next((run for run in best(runs) if run.name == "pipeline"), None)
    print("\neach at its best rate", *(format_run(run, pipeline, peak) for run in best(runs)), sep="\n")


if __name__ == "__main__":
    main()
