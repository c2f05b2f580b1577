"""The stages of dvc.yaml, and folders in which one of them runs apart from the checkout."""

from pathlib import Path
from typing import NamedTuple

from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo

from pipeline.core.files import read_json, sha256_of_path
from pipeline.core.paths import CHECKPOINTS, RUNTIME
from pipeline.core.recorded_outputs import LOCK, parse_lock
from pipeline.errors import ConfigError, DataError

# The project's own folders that no stage reads, and DVC's and git's, which a stage does not need.
NOT_LINKED = {CHECKPOINTS, ".dvc", ".git", ".venv", "__pycache__"}


class ProvableStage(NamedTuple):
    """A stage of dvc.yaml."""

    name: str  # with its instance, such as evaluate@base
    command: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]


def load_stages() -> list[ProvableStage]:
    """All stages, each after those whose outputs it reads. Raises ConfigError if this is not a DVC project.

    Raises DataError if dvc.lock is damaged.
    """
    if LOCK.exists():
        parse_lock(LOCK.read_text(encoding="utf-8", errors="replace"), str(LOCK))
    try:
        with Repo(".") as repo:
            stages = [
                ProvableStage(
                    stage.addressing.rpartition(":")[2],
                    stage.cmd,
                    tuple(dep.def_path for dep in stage.deps),
                    tuple(out.def_path for out in stage.outs),
                )
                for stage in repo.index.stages
            ]
    except NotDvcRepoError:
        raise ConfigError("no DVC project here; run prove in the project's root") from None
    except DvcException as error:
        raise ConfigError(f"DVC cannot read dvc.yaml: {error}") from None
    return _in_order(stages)


def _in_order(stages: list[ProvableStage]) -> list[ProvableStage]:
    ordered: list[ProvableStage] = []
    waiting = list(stages)
    while waiting:
        unwritten = [out for stage in waiting for out in stage.outs]
        ready = [stage for stage in waiting if not any(reads(stage, out) for out in unwritten)]
        ordered += ready
        waiting = [stage for stage in waiting if stage not in ready]
        assert ready, "DVC refuses cycles"
    return ordered


def reads(stage: ProvableStage, out: str) -> bool:
    """Whether an output, or a file in it, is a dependency of a stage."""
    return any(Path(dep).is_relative_to(out) for dep in stage.deps)


def select_stages(stages: list[ProvableStage], names: list[str]) -> list[ProvableStage]:
    """The stages with these names, in the graph's order. `evaluate` means all its instances, `all` every stage.

    Raises ConfigError if a name is unknown, DataError if a stage's inputs are missing.
    """
    known = {stage.name for stage in stages} | {stage.name.partition("@")[0] for stage in stages} | {"all"}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"--stages: unknown: {', '.join(unknown)}; the stages are {', '.join(sorted(known))}")
    chosen = [stage for stage in stages if {"all", stage.name, stage.name.partition("@")[0]} & set(names)]
    for stage in chosen:
        if missing := [dep for dep in stage.deps if not Path(dep).exists()]:
            raise DataError(
                f"{stage.name} reads {', '.join(missing)}, which does not exist; run the pipeline first: dvc repro"
            )
    return chosen


def link_inputs(stage: ProvableStage, stages: list[ProvableStage], folder: Path) -> None:
    """Make `folder` a place to run a stage in: links to the checkout's files, without any stage's outputs but its inputs."""
    outs = {out for each in stages for out in each.outs}
    _link_children(Path(), folder, {out: reads(stage, out) for out in outs})


def _link_children(source: Path, folder: Path, is_input: dict[str, bool]) -> None:
    """Link what `source`, a folder of the checkout, contains; folders that contain outputs become folders of their own."""
    (folder / source).mkdir(parents=True)
    for path in sorted(source.iterdir()):
        name = path.as_posix()
        if name in NOT_LINKED or is_input.get(name) is False:
            continue
        if any(Path(out).is_relative_to(path) and out != name for out in is_input):
            _link_children(path, folder, is_input)
        else:
            (folder / path).symlink_to(path.absolute())


def is_up_to_date(stage: ProvableStage) -> bool:
    """Whether the workspace has the outputs that dvc.lock records for the stage's present inputs."""
    with Repo(".") as repo:
        return not repo.status(targets=[stage.name])


def measured_seconds(stage: ProvableStage) -> float:
    """The seconds that the stage last took; 0 if it never ran."""
    path = RUNTIME / f"{stage.name.replace('@', '/')}.json"
    return float(read_json(path)["seconds"][stage.name.partition("@")[0]]) if path.exists() else 0.0


def hash_outputs(stage: ProvableStage) -> dict[str, str]:
    """Path → SHA-256 of each output file in the workspace, timings apart."""
    outs = [Path(out) for out in stage.outs if not Path(out).is_relative_to(RUNTIME)]
    files = [file for out in outs for file in (out.rglob("*") if out.is_dir() else [out]) if file.is_file()]
    return {file.as_posix(): sha256_of_path(file) for file in files}


def hash_written_files(folder: Path) -> dict[str, str]:
    """Relative path → SHA-256 of each file that a stage wrote in its folder, timings apart.

    These are its outputs, and whatever it has left behind, such as temporary files and checkpoints.
    """
    hashes = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not path.is_symlink() and not name.is_relative_to(RUNTIME):
            hashes[name.as_posix()] = sha256_of_path(path)
    return hashes
