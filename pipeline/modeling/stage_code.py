"""The code that a stage's result depends on, for the keys of what a killed run leaves behind."""

import hashlib
from pathlib import Path

import yaml

from pipeline.core.files import sha256_of_path

PROJECT = Path(__file__).parents[2]


def stage_code_hash(name: str) -> str:
    """SHA-256 of the code that dvc.yaml lists as dependencies of a stage, as DVC hashes it: without compiled files."""
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    digest = hashlib.sha256()
    for dependency in sorted(path for path in stages[name]["deps"] if path.startswith("pipeline/")):
        path = PROJECT / dependency
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(PROJECT).as_posix()}\0{sha256_of_path(file)}\n".encode())
    return digest.hexdigest()
