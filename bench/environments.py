"""Trains and evaluates in several environments: how far do weights, losses and answers differ from those of one thread?

    python -m bench.environments [--only "2 threads" "bf16" …] [train.epochs=1 data.rows=300 …]

An environment is a number of threads, a limit to the CPU's instructions (which stands for an older CPU), or a precision.
Another seed shows, for comparison, how much a training varies anyway. The overrides of parameters hold for all of them.
Limits above what the CPU has change nothing. The table is in Markdown; differences are those of the first line, which also
gives the values.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file

from pipeline.core.files import read_json, read_jsonl, sha256_of_path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ("conf", "hydra_plugins", "pipeline", "models/nano", "data/knowledge", "dvc.yaml")
PREPARATION = (
    *("pipeline.fetch instance=data", "pipeline.fetch instance=model"),
    *("pipeline.clean", "pipeline.format", "pipeline.tokenize"),
)
ONE_THREAD = "compute.threads=1"
SEED = "another seed"
METRICS = ("exact_match", "f1", "bleu", "loss")
COLUMNS = ("environment", "equal bytes", "weights", "validation loss", *METRICS, "answers", "base answers")


class Environment(NamedTuple):
    """What differs from the reference: environment variables, and overrides of train's and of evaluate's parameters."""

    variables: Mapping[str, str] = {}
    overrides: tuple[str, ...] = (ONE_THREAD,)
    train: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()


ENVIRONMENTS = {
    "1 thread": Environment(),
    "1 thread, again": Environment({"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "2"}),
    "2 threads": Environment({}, ("compute.threads=2",)),
    "3 threads": Environment({}, ("compute.threads=3",)),
    "PyTorch's kernels: AVX2": Environment({"ATEN_CPU_CAPABILITY": "avx2"}),
    "PyTorch's kernels: none": Environment({"ATEN_CPU_CAPABILITY": "default"}),
    "MKL: AVX2": Environment({"MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
    "MKL: same on all CPUs": Environment({"MKL_CBWR": "COMPATIBLE"}),
    "oneDNN: AVX2": Environment({"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    "all limits: AVX2": Environment(
        {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    ),
    "bf16": Environment(train=("train.precision=bf16",), evaluate=("evaluate.precision=bf16",)),
    "bf16, oneDNN: AVX2": Environment(
        {"ONEDNN_MAX_CPU_ISA": "AVX2"}, train=("train.precision=bf16",), evaluate=("evaluate.precision=bf16",)
    ),
    SEED: Environment(train=("train.seed=1",)),
}


class Outcome(NamedTuple):
    """What a training and the evaluations of both models wrote."""

    hashes: list[str]
    weights: dict[str, Any]  # name → tensor
    metrics: dict[str, float]
    answers: list[str]
    base_answers: list[str]


def prepare(folder: Path, overrides: list[str]) -> None:
    """A copy of the project after the stages before training."""
    for name in PROJECT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, folder / name)
    run_module(folder, "pipeline.compose", *overrides)
    for command in PREPARATION:
        run_module(folder, *command.split())


def run_module(folder: Path, *command: str, variables: Mapping[str, str] | None = None) -> None:
    """Run `python -m` with environment variables added. Raises RuntimeError with its output if it fails."""
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def run_in_environment(folder: Path, environment: Environment) -> Outcome:
    variables, overrides = environment.variables, environment.overrides
    run_module(folder, "pipeline.train", *overrides, *environment.train, variables=variables)
    for instance in ("base", "finetuned"):
        words = (f"instance={instance}", *overrides, *environment.evaluate)
        run_module(folder, "pipeline.evaluate", *words, variables=variables)
    weights, predictions = folder / "models/finetuned/model.safetensors", folder / "data/predictions"
    evaluation = read_json(folder / "metrics/details/evaluate/finetuned.json")
    trained = read_json(folder / "metrics/details/train.json")
    answers, base_answers = (
        [row["prediction"] for row in read_jsonl(predictions / f"{name}.jsonl")] for name in ("finetuned", "base")
    )
    return Outcome(
        [sha256_of_path(weights), sha256_of_path(predictions)],
        load_file(weights),
        {"validation_loss": trained["validation_loss"], **{name: evaluation[name] for name in METRICS}},
        answers,
        base_answers,
    )


def table_row(name: str, outcome: Outcome, reference: Outcome) -> list[str]:
    """The cells of an environment: values for the reference itself, differences from it for the others."""
    if outcome is reference:
        return [name, "", "", *(f"{value:.4f}" for value in outcome.metrics.values()), f"{len(outcome.answers)}", ""]
    difference = max(
        float((tensor.float() - reference.weights[key].float()).abs().max()) for key, tensor in outcome.weights.items()
    )
    changes = [value - reference.metrics[metric] for metric, value in outcome.metrics.items()]
    return [
        name,
        "yes" if outcome.hashes == reference.hashes else "no",
        f"{difference:.1g}",
        *("0" if change == 0 else f"{change:+.1g}" if abs(change) < 1e-4 else f"{change:+.4f}" for change in changes),
        str(count_different(outcome.answers, reference.answers)),
        str(count_different(outcome.base_answers, reference.base_answers)),
    ]


def count_different(answers: list[str], others: list[str]) -> int:
    """
    >>> count_different(["Rest.", "Drink water."], ["Rest.", "Drink tea."])
    1
    """
    return sum(answer != other for answer, other in zip(answers, others, strict=True))


def markdown_line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.environments", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("overrides", nargs="*", help="overrides of parameters for all environments")
    first, *others = ENVIRONMENTS
    parser.add_argument("--only", nargs="+", choices=others, default=others, help="environments (default: all)")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, arguments.overrides)
        print(markdown_line(*COLUMNS), markdown_line("---", *["---:"] * (len(COLUMNS) - 1)), sep="\n")
        reference = run_in_environment(folder, ENVIRONMENTS[first])
        print(markdown_line(*table_row(first, reference, reference)), flush=True)
        for name in arguments.only:
            outcome = run_in_environment(folder, ENVIRONMENTS[name])
            print(markdown_line(*table_row(name, outcome, reference)), flush=True)


if __name__ == "__main__":
    main()
