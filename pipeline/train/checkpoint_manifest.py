"""Whether a checkpoint is complete: it is if its manifest, written last, has the SHA-256 of each of its files.

A checkpoint that was cut short by a kill has no manifest. One that was damaged later differs from its manifest. Neither
is resumed from; training starts from an earlier checkpoint, or from the beginning.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.core.files import atomic_write, sha256_of_path

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STATE = "trainer_state.json"  # the Trainer's own file
DAMAGED_PREFIX = "damaged-"  # of the name of a damaged checkpoint's folder


def write_manifest(checkpoint: Path) -> None:
    """Complete a checkpoint: write all of its files to the disk, then the manifest with their hashes."""
    files = _files(checkpoint)
    for file in files:
        _sync(file)
    hashes = {file.relative_to(checkpoint).as_posix(): sha256_of_path(file) for file in files}
    with atomic_write(checkpoint / MANIFEST) as temporary:
        temporary.write_text(json.dumps(hashes, indent=2), encoding="utf-8")
        _sync(temporary)
    _sync(checkpoint)


def last_checkpoint(folder: Path) -> Path | None:
    """The latest complete checkpoint in a folder, together with the best one that it refers to; None if there is none.

    Incomplete checkpoints are removed. Damaged ones are renamed and reported.
    """
    best_of: dict[Path, str | None] = {}
    for checkpoint in _checkpoints(folder):
        if checkpoint.is_dir() and not (checkpoint / MANIFEST).exists():
            shutil.rmtree(checkpoint)
        elif damaged := damaged_files(checkpoint):
            _set_aside(checkpoint, damaged)
        else:
            best_of[checkpoint] = _read_state(checkpoint)["best_model_checkpoint"]
    names = {checkpoint.name for checkpoint in best_of}
    usable = [checkpoint for checkpoint, best in best_of.items() if best is None or Path(best).name in names]
    return max(usable, key=_step, default=None)


def last_complete_step(folder: Path) -> int | None:
    """The step of the latest complete checkpoint in a folder, whose files are not checked; None if there is none."""
    steps = [_step(checkpoint) for checkpoint in _checkpoints(folder) if (checkpoint / MANIFEST).exists()]
    return max(steps, default=None)


def _set_aside(checkpoint: Path, damaged: list[str]) -> None:
    target = checkpoint.with_name(f"{DAMAGED_PREFIX}{checkpoint.name}")
    if target.is_dir():
        shutil.rmtree(target)
    checkpoint.rename(target)
    log.warning(f"{checkpoint} is damaged ({', '.join(damaged)}) and is not used; it was renamed to {target.name}")


def damaged_files(checkpoint: Path) -> list[str]:
    """The files of a checkpoint that differ from its manifest, are missing, are not in it, or cannot be read."""
    if not checkpoint.is_dir():
        return ["a file, not a folder"]
    try:
        hashes = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except ValueError:
        return [MANIFEST]
    if not isinstance(hashes, dict):
        return [MANIFEST]
    present = {file.relative_to(checkpoint).as_posix(): file for file in _files(checkpoint)}
    differing = sorted(
        name for name in {*hashes, *present} if name not in present or hashes.get(name) != sha256_of_path(present[name])
    )
    return differing or ([] if "best_model_checkpoint" in _read_state(checkpoint) else [STATE])


def _read_state(checkpoint: Path) -> dict[str, Any]:
    """The Trainer's state; empty if it cannot be read."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def remove_checkpoints(folder: Path, keep: Iterable[Path]) -> None:
    """Remove all checkpoints of a folder but those to keep."""
    names = {checkpoint.name for checkpoint in keep}
    for checkpoint in _checkpoints(folder):
        if checkpoint.name not in names:
            (checkpoint / MANIFEST).unlink(missing_ok=True)  # first, or a kill would leave what looks damaged
            shutil.rmtree(checkpoint)


def _checkpoints(folder: Path) -> list[Path]:
    """What is named checkpoint-STEP. Other names are not the Trainer's, and stay."""
    return [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]


def _files(checkpoint: Path) -> list[Path]:
    return sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.name != MANIFEST)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
