"""Checkpoints that killed trainings have left and that do not belong to the present one: named, with what differs."""

import fcntl
import json
from pathlib import Path
from typing import Any

from pipeline.core.files import write_json
from pipeline.core.paths import shorten_path
from pipeline.modeling.resume_key import ResumeKey
from pipeline.train.checkpoint_manifest import MANIFEST, last_complete_step

KEY_FILE = "key.json"  # beside the checkpoints of a training
LISTED = 3  # trainings in the messages


def start_checkpoints(folder: Path, key: ResumeKey) -> list[str]:
    """Write what a training depends on into the folder of its checkpoints.

    Returns a sentence for each of the latest other trainings that left a complete checkpoint and do not run now.
    """
    folder.mkdir(exist_ok=True)
    write_json(folder / KEY_FILE, key.dependencies)
    others = {path.parent.parent for path in folder.parent.glob(f"*/checkpoint-*/{MANIFEST}")}
    others = {other for other in others if other.name != key.digest and not _is_running(other)}
    latest = sorted(others, key=lambda other: other.stat().st_mtime, reverse=True)
    return [_describe(other, key) for other in latest[:LISTED]]


def _is_running(folder: Path) -> bool:
    """Whether a training holds the lock of a folder for checkpoints."""
    try:
        with folder.with_name(f"{folder.name}.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _describe(folder: Path, key: ResumeKey) -> str:
    shown = shorten_path(folder)
    return (
        f"Not resuming from {shown}/checkpoint-{last_complete_step(folder)}, which is of another training: "
        f"{key.describe_differences(_read_key(folder))}. To remove it: rm -r {shown}"
    )


def _read_key(folder: Path) -> Any:
    try:
        return json.loads((folder / KEY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
