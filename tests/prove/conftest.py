"""The project as the working directory, for the tests of prove."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def clone(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project after `dvc repro`, as the working directory."""
    folder = Path(shutil.copytree(repository, tmp_path / "project", symlinks=True))
    monkeypatch.chdir(folder)
    return folder
