"""Kills a stage at random instants, lets it resume, and compares all that it writes with an undisturbed run."""

import math
import os
import shlex
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple

from pipeline.core.paths import CHECKPOINTS
from pipeline.errors import PipelineError
from pipeline.prove.faults import FAULTS, Ending, Fault, kill_all_in, run_process
from pipeline.prove.stages import (
    ProvableStage,
    hash_outputs,
    hash_written_files,
    is_up_to_date,
    link_inputs,
    measured_seconds,
)

CHAIN = 3  # faults before a run may finish
LONG = 10.0  # seconds; the outputs of a longer stage in the workspace are the undisturbed run, if they are up to date
LINES_SHOWN = 15  # of the output of a run that failed

Report = Callable[[str], None]


class Proof(NamedTuple):
    """What became of a stage that was killed."""

    stage: str
    seconds: float  # of an undisturbed run
    faults: list[Fault]
    files: int
    differing: list[str]  # files that differ from the undisturbed run's, are missing, or were left over
    failure: str  # the error of a run that did not recover; empty if all did

    @property
    def is_equal(self) -> bool:
        return not self.differing and not self.failure


class Undisturbed(NamedTuple):
    """A run without faults."""

    seconds: float
    work: float  # the seconds without imports
    hashes: dict[str, str]  # file → SHA-256
    is_workspace: bool  # its files are the project's outputs

    def differing(self, hashes: dict[str, str]) -> set[str]:
        return {path for path in {*self.hashes, *hashes} if self.hashes.get(path) != hashes.get(path)}


class Runner:
    """Runs one stage in folders of its own, with the same overrides."""

    def __init__(self, stage: ProvableStage, stages: list[ProvableStage], root: Path, overrides: list[str]) -> None:
        self.stage, self.stages, self.root, self.overrides = stage, stages, root, overrides

    def make_folder(self, name: str) -> Path:
        folder = self.root / self.stage.name / name
        link_inputs(self.stage, self.stages, folder)
        (folder / CHECKPOINTS).mkdir()
        return folder

    def run(self, folder: Path, fault: Fault | None = None) -> Ending:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
        places = {"DVC_ROOT": str(Path.cwd()), "CHECKPOINT_ROOT": str(folder / CHECKPOINTS)}
        return run_process(f"{self.stage.command} {shlex.join(self.overrides)}", folder, {**inherited, **places}, fault)

    def run_undisturbed(self) -> Undisturbed:
        """Raises PipelineError if the stage fails."""
        folder = self.make_folder("undisturbed")
        ending = self.run(folder)
        if ending.code:
            raise PipelineError(f"{self.stage.name} fails without any kill:\n{last_lines(ending.output)}")
        return Undisturbed(ending.seconds, ending.work, hash_written_files(folder), is_workspace=False)

    def find_undisturbed(self) -> Undisturbed:
        """The project's own outputs if the stage is long and they are up to date, else a new run."""
        seconds = measured_seconds(self.stage)
        if not self.overrides and seconds >= LONG and is_up_to_date(self.stage):
            return Undisturbed(seconds, seconds, hash_outputs(self.stage), is_workspace=True)
        return self.run_undisturbed()


def draw_faults(count: int, undisturbed: Undisturbed, random: Random, kinds: Iterator[str]) -> list[Fault]:
    """Faults at any instant of an undisturbed run.

    In a long stage, the killed runs together do not take longer than an undisturbed one, imports apart.
    """
    if undisturbed.seconds < LONG:
        return [Fault(next(kinds), random.uniform(0, undisturbed.seconds)) for _ in range(count)]
    ends = sorted(random.uniform(0, undisturbed.work) for _ in range(count))
    return [Fault(next(kinds), end - start, after_first_line=True) for start, end in pairwise([0.0, *ends])]


def prove_stage(runner: Runner, kills: int, random: Random, report: Report) -> Proof:
    """Let `kills` faults hit a stage. `report` gets a line for each run. Raises PipelineError if it fails undisturbed."""
    undisturbed, kinds = runner.find_undisturbed(), iter_kinds(random)
    report(f"{undisturbed.seconds:.1f} s without a kill, {len(undisturbed.hashes)} files")
    faults: list[Fault] = []
    for number in range(1, 2 * kills + 1):  # a run may end before its fault
        # A long stage is not run once more for a single missed fault.
        is_enough = undisturbed.seconds >= LONG and bool(faults) and number > math.ceil(kills / CHAIN)
        if len(faults) >= kills or is_enough:
            break
        folder = runner.make_folder(f"killed-{number}")
        planned = draw_faults(min(CHAIN, kills - len(faults)), undisturbed, random, kinds)
        ending = None
        for fault, ending in run_chain(runner, folder, planned):
            if fault and ending.was_hit:
                faults.append(fault)
                report(describe_fault(fault))
        assert ending is not None
        hashes = hash_written_files(folder)
        if undisturbed.is_workspace and undisturbed.differing(hashes):
            report("differs from the outputs of the last dvc repro; compared with a new run instead")
            undisturbed = runner.run_undisturbed()
        differing = undisturbed.differing(hashes)
        if ending.code or differing:
            failure = last_lines(ending.output) if ending.code else ""
            return _proof(runner, undisturbed, faults, differing if not failure else set(), failure)
        report("equal")
    return _proof(runner, undisturbed, faults, set(), "")


def _proof(runner: Runner, undisturbed: Undisturbed, faults: list[Fault], differing: set[str], failure: str) -> Proof:
    name, files = runner.stage.name, len(undisturbed.hashes)
    return Proof(name, undisturbed.seconds, faults, files, sorted(differing), failure)


def describe_fault(fault: Fault) -> str:
    return f"{fault.kind} after {fault.seconds:.1f} s" + (" of work" if fault.after_first_line else "")


def iter_kinds(random: Random) -> Iterator[str]:
    """All kinds of faults equally often, from a random one on."""
    start = random.randrange(len(FAULTS))
    while True:
        yield FAULTS[start % len(FAULTS)]
        start += 1


def run_chain(runner: Runner, folder: Path, faults: list[Fault]) -> Iterator[tuple[Fault | None, Ending]]:
    """Run a stage until it ends by itself; the faults hit the first runs."""
    for fault in [*faults, None]:
        ending = runner.run(folder, fault)
        yield fault, ending
        if ending.code == 0 or not ending.was_hit:
            break
    kill_all_in(folder)


def last_lines(output: str) -> str:
    return "\n".join(output.rstrip().splitlines()[-LINES_SHOWN:])
