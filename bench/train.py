"""Training speed: the same rows, model and machine through this project's stage, the tutorial's code, and TRL.

    python -m bench.train --model FOLDER --data rows.jsonl --columns '{question: Description, answer: Doctor}'
    python -m bench.train --model pythia-70m --tokenizer FOLDER --data …     that configuration, random weights

Each contender trains in a process of its own (bench/contenders.py), at each learning rate in turn, and counts at the
rate that gives it the lowest held-out loss. TRL, which is no dependency of the project, takes part if it is installed
(pip install trl). Utilisation is 6 × parameters without the input embedding × tokens a second over the rate of a plain
matrix product, measured here: that in bfloat16 where the machine has it.
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
from typing import Any, NamedTuple

from bench.pythia import PYTHIA, write_pythia
from bench.stages import ROOT, checkout, run_stages

CONTENDERS = ("pipeline", "tutorial", "trl", "trl_tuned")
HEADER = f"{'':16}{'rate':>9}{'seconds':>10}{'tokens/s':>10}{'utilised':>10}{'held-out loss':>15}{'pipeline is':>13}"


class Trained(NamedTuple):
    """One training of one contender."""

    name: str
    rate: float
    seconds: float
    tokens: int
    loss: float  # on the completions of the test rows, nats a token
    parameters: int  # without the input embedding

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


def prepare(options: argparse.Namespace, folder: Path) -> Path:
    """A copy of the project in `folder`, with the model as its base and the rows cleaned, formatted and tokenized."""
    known = options.model in PYTHIA
    project = checkout(folder / "project", options.tokenizer if known else Path(options.model))
    base = project / "models/base"
    if known:
        write_pythia(options.model, options.tokenizer, base)
    else:
        shutil.copytree(options.model, base, dirs_exist_ok=True)
    lengths = (f"tokenize.max_length={options.length}", f"model.positions={options.length}")
    source = ("data=file", f"data.path='{options.data.resolve()}'", f"data.columns={options.columns}")
    run_stages(project, [*source, *lengths])
    for name in ("formatted/train.jsonl", "tokenized/train.parquet"):
        _shorten(project / "data" / name, options.rows)
    return project


def _shorten(path: Path, rows: int | None) -> None:
    """Keep the first rows of a file; both files of the training rows have them in one order."""
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        pq.write_table(pq.read_table(path).slice(0, rows), path)
    else:
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:rows]), encoding="utf-8")


def run(name: str, rate: float, project: Path, options: argparse.Namespace) -> Trained | str:
    """What came of one contender at one learning rate; what it said where it failed."""
    folders = {"model": "models/base", "formatted": "data/formatted", "tokenized": "data/tokenized"}
    command = [sys.executable, "-m", "bench.trainers", name, f"--rate={rate}", f"--epochs={options.epochs}"]
    command.append(f"--length={options.length}")
    command += [f"--{key}={project / path}" for key, path in folders.items()]
    command += ["--overrides", *options.overrides] if name == "pipeline" else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().rpartition("\n")[2]
    return Trained(name, rate, **json.loads(done.stdout.splitlines()[-1]))


def best(trained: list[Trained]) -> list[Trained]:
    """Each contender's training with the lowest loss, in the order of their first."""
    names = dict.fromkeys(each.name for each in trained)
    return [min((each for each in trained if each.name == name), key=lambda each: each.loss) for name in names]


def line(each: Trained, ours: Trained | None, peak: float) -> str:
    ratio = f"{ours.speed / each.speed:.2f} x" if ours else ""
    utilised = 6 * each.parameters * each.speed / peak
    return f"{each.name:16}{each.rate:9.1e}{each.seconds:10.1f}{each.speed:10,.0f}{utilised:10.0%}{each.loss:15.3f}{ratio:>13}"


def matrix_rate(size: int = 2048, repeats: int = 8) -> float:
    """Floating-point operations a second of a square matrix product, the best of some."""
    import torch

    from pipeline.modeling.devices import supports_bf16

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if supports_bf16(device) else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for a card
        found.append(2 * size**3 / (time.perf_counter() - started))
    return max(found)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.train", description="Training speed beside other trainers.")
    parser.add_argument("--model", required=True, help=f"a model folder, or one of {', '.join(PYTHIA)}")
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json, for a pythia")
    parser.add_argument("--data", type=Path, required=True, help="a file of rows")
    parser.add_argument("--columns", default="{question: Description, answer: Doctor}", help="data.columns")
    parser.add_argument("--rows", type=int, help="train on the first so many; by default on all")
    parser.add_argument("--length", type=int, default=1024, help="tokens a row at most")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3], help="learning rates to try")
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS, choices=CONTENDERS)
    parser.add_argument("--overrides", nargs="*", default=[], help="of the pipeline's parameters")
    options: Any = parser.parse_args(given)
    if options.model in PYTHIA and not options.tokenizer:
        parser.error(f"{options.model} has no tokenizer of its own here: give --tokenizer FOLDER")
    return options


def main(given: list[str] | None = None) -> None:
    options = arguments(given)
    names = [name for name in options.contenders if not name.startswith("trl") or find_spec("trl")]
    if len(names) < len(options.contenders):
        print("TRL is not installed, and is left out: pip install trl")
    trained: list[Trained] = []
    with tempfile.TemporaryDirectory() as temporary:
        project = prepare(options, Path(temporary))
        peak = matrix_rate()
        print(f"a matrix product: {peak / 1e9:,.0f} GFLOP/s\n{HEADER}", flush=True)
        for rate in options.rates:
            for name in names:
                found = run(name, rate, project, options)
                print(f"{name} at {rate}: {found}" if isinstance(found, str) else line(found, None, peak), flush=True)
                trained += [found] if isinstance(found, Trained) else []
    ours = next((each for each in best(trained) if each.name == "pipeline"), None)
    print("\neach at its best rate", *(line(each, ours, peak) for each in best(trained)), sep="\n")


if __name__ == "__main__":
    main()
