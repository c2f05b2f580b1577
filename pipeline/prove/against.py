"""Where the workspace's run and that of a revision part first, and why, as far as both have recorded it."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.compose.leaves import diff_leaves, flatten
from pipeline.core.files import parse_json_object
from pipeline.core.metrics import details_path
from pipeline.core.recorded_outputs import CODE
from pipeline.errors import DataError
from pipeline.leaderboard.revisions import WORKSPACE, Revision, open_repository
from pipeline.prove.pair import Pair
from pipeline.prove.places import iter_places

LISTED = 5  # files or parameters in a line


class Parting(NamedTuple):
    """The comparison of two runs."""

    is_equal: bool
    lines: list[str]


def compare_with(name: str) -> Parting:
    """Compare the workspace's run, as dvc.lock records it, with that of a revision.

    Raises ConfigError if there is no such revision, DataError if one of both has no dvc.lock.
    """
    with (
        open_repository() as repo,
        closing(Revision(repo, WORKSPACE)) as ours,
        closing(Revision(repo, name)) as theirs,
        tempfile.TemporaryDirectory() as scratch,
    ):
        pair = Pair(ours, theirs, Path(scratch))
        stages = {stage: outs for stage in pair.stages if (outs := pair.differing_outs(stage))}
        if not stages:
            return Parting(True, [f"All {pair.outputs} outputs are equal to those of {theirs.label}."])
        first = next(iter(stages))
        written = ", ".join(stages[first])
        lines = [f"The workspace and {theirs.label} differ first in what {first} wrote: {written}.", ""]
        lines += _section("Why", [*_versions(pair, first), *_causes(pair, first)] or ["nothing that is recorded"])
        lines += _section("Where", list(iter_places(pair, stages)))
        equal = [stage for stage in pair.stages if stage not in stages]
        lines.append(
            f"Of two values, the first is the workspace's. Stages with equal outputs: {', '.join(equal) or 'none'}."
        )
        return Parting(False, lines)


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in lines), ""]


def _versions(pair: Pair, first: str) -> Iterator[str]:
    """Differences of the environments in which `first` and the stages after it ran. The data stages record none."""
    for stage in ("train", "evaluate@base", "evaluate@finetuned"):
        if stage not in pair.stages or pair.stages.index(stage) < pair.stages.index(first):
            continue
        try:
            mine, other = (_environment(revision, stage) for revision in (pair.ours, pair.theirs))
        except DataError:
            continue
        if mine is None or other is None:
            yield f"versions of {stage}: not recorded by {'the workspace' if mine is None else pair.theirs.label}"
        elif changes := diff_leaves(flatten(mine), flatten(other)):
            yield f"versions of {stage}: {_changes(changes)}"


def _environment(revision: Revision, stage: str) -> Any:
    path = details_path(stage.replace("@", "/")).as_posix()
    return parse_json_object(revision.read(path), path).get("environment")


def _causes(pair: Pair, first: str) -> Iterator[str]:
    """The parameters, code and data of the first stage that differ."""
    mine, other = pair.both(lambda revision: revision.stages.get(first, {}))
    if not mine or not other:
        yield f"{first} never ran in {'the workspace' if not mine else pair.theirs.label}"
        return
    if mine.get("cmd") != other.get("cmd"):
        yield f"command: {mine.get('cmd')} / {other.get('cmd')}"
    params = [
        {key: value for each in stage.get("params", {}).values() for key, value in flatten(each).items()}
        for stage in (mine, other)
    ]
    if changes := diff_leaves(*params):
        yield "parameters: " + _changes(changes)
    deps = pair.differing(first, "deps")
    if code := [dep for dep in deps if dep.startswith(CODE)]:
        yield f"code: {', '.join(_changed_files(pair.theirs.commit, code)[:LISTED] or code)}"
    if data := [dep for dep in deps if not dep.startswith(CODE)]:
        yield f"data: {', '.join(data)}"


def _changes(changes: dict[str, tuple[Any, Any]]) -> str:
    shown = [f"{key} {mine} / {other}" for key, (mine, other) in list(changes.items())[:LISTED]]
    return ", ".join(shown) + (f" and {len(changes) - LISTED} more" if len(changes) > LISTED else "")


def _changed_files(commit: str, code: list[str]) -> list[str]:
    command = ["git", "diff", "--name-only", *([commit] if commit else []), "--", *code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split()
