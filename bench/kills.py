"""Kills trainings, all other stages, `dvc repro` and experiments at random instants, and compares all bytes.

    python -m bench.kills [--kills 10] [--seed 0] [--only lora packing …]

Each configuration is a clone of the last commit with a small run of its own. Its stages are killed by SIGKILL, SIGTERM,
Ctrl-C and a full disk, up to three times before a run may finish (pipeline/prove). `dvc repro` and experiments are killed as
a whole: by SIGKILL of dvc alone, which leaves its stage running, by SIGKILL of all processes, by SIGTERM and by Ctrl-C.
The table is in Markdown. The exit code is 1 if a byte differs.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import yaml

from bench.environments import markdown_line
from pipeline.core.files import sha256_of_path
from pipeline.prove.faults import ALL_KILLED, Fault, kill_all_in, run_process
from pipeline.prove.kills import Runner, prove_stage
from pipeline.prove.stages import load_stages, select_stages

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("data.rows=400", "train.epochs=3", "train.logging_steps=3", "evaluate.limit=48", "evaluate.max_new_tokens=24")
OTHERS = "fetch,clean,format,tokenize,evaluate,compare"
# name → (stages to kill, overrides)
CONFIGURATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "full": ("train", ()),
    "evaluations within epochs": ("train", ("train.epochs=4", "train.eval_steps=5")),
    "lora": ("train", ("train/method=lora", "train.learning_rate=4e-3", "train.method.dropout=0.1")),
    "packing": ("train", ("train.packing=true", "train.group_by_length=false")),
    "gradient accumulation 2": ("train", ("train.gradient_accumulation=2", "train.batch_size=4", "train.eval_steps=7")),
    "max_steps within an epoch": ("train", ("train.max_steps=22", "train.eval_steps=4")),
    "early stopping by loss": (
        "train",
        ("train.epochs=6", "train.eval_steps=6", "train.early_stopping.patience=2", "train.early_stopping.threshold=1"),
    ),
    "early stopping by f1": (
        "train",
        (
            *("train.eval_steps=8", "train.early_stopping.metric=f1", "train.early_stopping.patience=2"),
            *("train.early_stopping.rows=8", "train.early_stopping.max_new_tokens=16"),
        ),
    ),
    "keep_best=false": ("train", ("train.keep_best=false", "train.eval_steps=9")),
    "dropout and noise": ("train", ("train.dropout=0.1", "train.neftune_alpha=5", "train.eval_steps=6")),
    "two processes": ("train", ("compute=ddp", "train.batch_size=4", "train.eval_steps=6")),
    "other stages": (OTHERS, ()),
}
EXPERIMENT = f"--name killed --force -S train.seed=1 {' '.join(f'-S {override}' for override in SMALL)}"
# After a power cut, DVC lists the experiment as running until `dvc queue kill`.
QUEUE = f"""bash -c '
    if dvc queue status | grep -q Running; then dvc queue kill killed; fi
    dvc queue remove --all && dvc exp run --queue {EXPERIMENT} && dvc queue start || exit 1
    while dvc queue status | grep -qE "Running|Queued"; do sleep 1; done
    dvc queue status | grep Success'"""
COMMAND_FAULTS = ("SIGKILL", ALL_KILLED, "SIGTERM", "SIGINT")
# name → (command, faults)
COMMANDS = {
    "dvc repro": ("dvc repro", COMMAND_FAULTS),
    "dvc exp run --temp": (f"dvc exp run --temp {EXPERIMENT}", COMMAND_FAULTS),
    "dvc queue start": (QUEUE, (ALL_KILLED,)),
}


class Row(NamedTuple):
    """A line of the table."""

    name: str
    stage: str
    kills: int
    equal: bool
    detail: str  # what differs


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def clone_project(folder: Path, cache: Path, overrides: tuple[str, ...]) -> Path:
    """A clone of the last commit, with the parameters of SMALL and the overrides, and all outputs."""
    run(ROOT, "git", "clone", "-q", str(ROOT), str(folder))
    run(folder, "git", "config", "user.name", "bench")
    run(folder, "git", "config", "user.email", "bench@example.org")
    run(folder, "dvc", "config", "--local", "cache.dir", str(cache))
    run(folder, sys.executable, "-m", "pipeline.compose", *SMALL, *overrides)
    run(folder, "dvc", "repro", "-q")
    return folder


def kill_stages(name: str, scratch: Path, kills: int, seed: int) -> Iterator[Row]:
    """Kill the stages of a configuration `kills` times each."""
    names, overrides = CONFIGURATIONS[name]
    folder = clone_project(scratch / name.replace(" ", "-"), scratch / "cache", overrides)
    with chdir(folder):
        stages = load_stages()
        for stage in select_stages(stages, names.split(",")):
            runner = Runner(stage, stages, folder / ".checkpoints/prove", [])
            report = partial(print, f"{name}, {stage.name}:", file=sys.stderr, flush=True)
            proof = prove_stage(runner, kills, Random(f"{seed} {name} {stage.name}"), report)
            detail = proof.failure or ", ".join(proof.differing)
            yield Row(name, stage.name, len(proof.faults), proof.is_equal, detail)
            if proof.is_equal:
                shutil.rmtree(folder / ".checkpoints/prove")


def result_of(folder: Path, command: str) -> dict[str, str]:
    """Path → hash of everything that the command wrote, timings apart; of an experiment, what its dvc.lock records."""
    is_experiment = EXPERIMENT in command
    if is_experiment:
        references = run(folder, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
        (reference,) = (each for each in references if each.endswith("/killed"))
        text = run(folder, "git", "show", f"{reference}:dvc.lock")
    else:
        text = (folder / "dvc.lock").read_text(encoding="utf-8")
    outs = [out for stage in yaml.safe_load(text)["stages"].values() for out in stage["outs"]]
    recorded = {out["path"]: out["md5"] for out in outs if not out["path"].startswith("metrics/runtime")}
    if is_experiment:
        return recorded
    files = [file for name in ("data", "models", "metrics") for file in (folder / name).rglob("*") if file.is_file()]
    present = {str(file.relative_to(folder)): sha256_of_path(file) for file in files}
    return recorded | {path: sha for path, sha in present.items() if not path.startswith("metrics/runtime")}


def kill_command(name: str, scratch: Path, kills: int, seed: int) -> Iterator[Row]:
    """Kill a command of DVC that runs the stages from train on, and run it again until it ends."""
    (command, faults), random = COMMANDS[name], Random(f"{seed} {name}")
    start = clone_project(scratch / name.replace(" ", "-"), scratch / f"cache-{name}".replace(" ", "-"), ())
    run(start, "git", "commit", "-qam", "the small run")
    cache = scratch / f"cache-{name}".replace(" ", "-")
    folder = copy_with_cache(start, cache, scratch / "undisturbed")
    undisturbed = run_process(command, folder, dict(os.environ))
    kill_all_in(folder)  # the queue's worker waits for more
    if undisturbed.code:
        raise RuntimeError(f"{command} failed:\n{undisturbed.output}")
    expected, done, chain = result_of(folder, command), 0, 0
    while done < kills:
        chain += 1
        folder = copy_with_cache(start, cache, scratch / f"killed-{chain}")
        for _ in range(min(3, kills - done)):
            kind = faults[(done + seed) % len(faults)]
            ending = run_process(command, folder, dict(os.environ), Fault(kind, random.uniform(1, undisturbed.seconds)))
            if not ending.was_hit or not ending.code:
                break
            done += 1
            print(f"{name}: {kind}", file=sys.stderr, flush=True)
        ending = run_process(command, folder, dict(os.environ))
        found = result_of(folder, command) if not ending.code else {}
        differing = sorted(path for path in {*expected, *found} if expected.get(path) != found.get(path))
        kill_all_in(folder)
        if ending.code or differing:
            yield Row(name, "all", done, False, ending.output[-2000:] if ending.code else ", ".join(differing))
            return
        remove_with_cache(folder)
    remove_with_cache(scratch / "undisturbed")
    yield Row(name, "all", done, True, "")


def copy_with_cache(start: Path, cache: Path, folder: Path) -> Path:
    """A copy of a project with a DVC cache of its own; for `dvc repro`, training has another seed there."""
    shutil.copytree(start, folder, symlinks=True)
    own = folder.with_name(f"{folder.name}-cache")
    shutil.copytree(cache, own, dirs_exist_ok=True)
    run(folder, "dvc", "config", "--local", "cache.dir", str(own))
    if start.name == "dvc-repro":
        run(folder, sys.executable, "-m", "pipeline.compose", *SMALL, "train.seed=1")
    return folder


def remove_with_cache(folder: Path) -> None:
    for path in (folder, folder.with_name(f"{folder.name}-cache")):
        shutil.rmtree(path)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.kills", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10, help="number of kills for each stage (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kinds and instants of the kills (default: 0)")
    choices = [*CONFIGURATIONS, *COMMANDS]
    parser.add_argument("--only", nargs="+", choices=choices, default=choices, help="configurations (default: all)")
    arguments = parser.parse_args(words)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        print(markdown_line("configuration", "stage", "kills", "equal"), "|---|---|---:|---|", sep="\n", flush=True)
        for name in arguments.only:
            kill = kill_stages if name in CONFIGURATIONS else kill_command
            for row in kill(name, Path(scratch), arguments.kills, arguments.seed):
                rows.append(row)
                equal = "yes" if row.equal else f"no: {row.detail}"
                print(markdown_line(row.name, row.stage, row.kills, equal), flush=True)
    total, equal_ones = sum(row.kills for row in rows), sum(row.kills for row in rows if row.equal)
    print(markdown_line("all", "", total, f"{equal_ones} of {total}"))
    if not all(row.equal for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
