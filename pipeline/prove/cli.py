"""Proves, on the present configuration, that killed stages resume and end with the same bytes as undisturbed ones.

    python -m pipeline.prove                               kills a training and an evaluation, twice each
    python -m pipeline.prove --stages all --kills 10       every stage, ten times
    python -m pipeline.prove train.max_steps=50            overrides, to shorten long trainings
    python -m pipeline.prove --against REV                 where this run and that of a git revision differ first

Each stage runs in a folder of its own in .checkpoints/, on the inputs of the last `dvc repro`; the outputs of the project
stay as they are. It is killed by SIGKILL, SIGTERM, Ctrl-C or a full disk, and run again until it succeeds. The exit code is
1 if an output differs or a run fails.
"""

import argparse
import functools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import psutil

from pipeline.compose.composition import parse_params
from pipeline.compose.leaves import flatten
from pipeline.core.console import printable
from pipeline.core.entrypoint import report_errors, require_params
from pipeline.core.paths import PARAMS, checkpoint_root
from pipeline.errors import ConfigError
from pipeline.prove.against import compare_with
from pipeline.prove.kills import Proof, Runner, describe_fault, prove_stage
from pipeline.prove.stages import load_stages, select_stages

DEFAULT_STAGES = "train,evaluate@finetuned"
PREFIX = "prove-"  # of the names of prove's folders in .checkpoints/, which end in its process id


@contextmanager
def temporary_root() -> Iterator[Path]:
    """A folder in .checkpoints/. It stays if the block asks for it; the next call removes it."""
    root = checkpoint_root().absolute()
    for old in root.glob(f"{PREFIX}*"):
        if not psutil.pid_exists(int(old.name.removeprefix(PREFIX))):
            shutil.rmtree(old)
    folder = root / f"{PREFIX}{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder)
        raise


def prove(names: list[str], kills: int, seed: int, overrides: list[str]) -> list[Proof]:
    """Kill each stage `kills` times. Raises PipelineError if a stage is unknown, lacks its inputs, or fails undisturbed."""
    stages = load_stages()
    chosen = select_stages(stages, names)
    if any(stage.name == "train" for stage in chosen) and (minutes := time_limit(overrides)):
        print(
            f"Note: train.max_minutes={minutes} ends training by the clock, so runs can differ for this reason alone. To leave "
            "it out: python -m pipeline.prove train.max_minutes=null"
        )
    proofs = []
    with temporary_root() as root:
        for stage in chosen:
            runner = Runner(stage, stages, root, overrides)
            random = Random(f"{seed} {stage.name}")
            proofs.append(prove_stage(runner, kills, random, functools.partial(print_line, stage.name)))
        if all(proof.is_equal for proof in proofs):
            shutil.rmtree(root)
        else:
            print(f"\nThe files of all runs are in {root}, until prove runs again.")
    return proofs


def time_limit(overrides: list[str]) -> str:
    """train.max_minutes as the training will have it; empty if there is no limit."""
    given = [override.partition("=")[2] for override in overrides if override.startswith("train.max_minutes=")]
    value = given[-1] if given else str(flatten(parse_params(PARAMS.read_text(encoding="utf-8")))["train.max_minutes"])
    return "" if value in ("None", "null") else value


def print_line(stage: str, line: str) -> None:
    print(printable(f"{stage}: {line}"), flush=True)


def format_proofs(proofs: list[Proof]) -> list[str]:
    """A table with a line for each stage, and what went wrong."""
    lines = [f"{'stage':<20}{'kills':>6}{'files':>7}  result"]
    for proof in proofs:
        result = "failed" if proof.failure else f"{len(proof.differing)} differ" if proof.differing else "equal"
        lines.append(f"{proof.stage:<20}{len(proof.faults):>6}{proof.files:>7}  {result}")
    lines.append("")
    for proof in proofs:
        kills = ", ".join(map(describe_fault, proof.faults))
        if proof.failure:
            lines.append(
                f"{proof.stage} did not recover from these kills: {kills}. The last run's output:\n{proof.failure}"
            )
        elif proof.differing:
            lines.append(f"{proof.stage}, after these kills: {kills}")
            lines += [f"  {path} differs from the undisturbed run's" for path in proof.differing]
    if all(proof.is_equal for proof in proofs):
        count = sum(len(proof.faults) for proof in proofs)
        lines.append(f"After {count} kills, all files are byte-identical to those of undisturbed runs.")
    return lines


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.prove", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "overrides", nargs="*", help="Hydra overrides for the stages, such as train.max_steps=50 (default: none)"
    )
    parser.add_argument(
        "--stages",
        metavar="STAGES",
        default=DEFAULT_STAGES,
        help=f"stages of dvc.yaml, separated by commas, or `all` (default: {DEFAULT_STAGES})",
    )
    parser.add_argument("--kills", type=int, default=2, help="number of kills for each stage (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kinds and instants of the kills (default: 0)")
    parser.add_argument(
        "--against",
        metavar="REV",
        help="kill nothing; say where the workspace's run and that of a git revision or experiment part first",
    )
    return parser.parse_args()


def main() -> None:
    with report_errors("prove"):
        arguments = parse_options()
        if arguments.kills < 1:
            raise ConfigError(f"--kills: {arguments.kills}; expected a positive number")
        require_params()
        if arguments.against is not None:
            parting = compare_with(arguments.against)
            print(printable("\n".join(parting.lines)))
            raise SystemExit(0 if parting.is_equal else 1)
        proofs = prove(arguments.stages.split(","), arguments.kills, arguments.seed, arguments.overrides)
        print(printable("\n".join(["", *format_proofs(proofs)])))
        if not all(proof.is_equal for proof in proofs):
            raise SystemExit(1)
