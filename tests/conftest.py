"""Fixtures that the tests share: copies of the project, bare, built and run, and the shipped train section."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.project import SHIPPED, copy_project, made_once, make_built, make_repository


# The longest files first: two workers run side by side (see Makefile), and neither should run alone at the end for long.
# The first two build what the others share, one `repository`, the other `built`: neither waits for the other.
LONGEST = ["test_errors.py", "test_compute.py", "test_pipeline.py", "test_hub.py", "test_bench.py"]
SLOW_FIXTURES = {"project", "repository", "built", "in_built"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files, and mark as slow what runs commands or trains: `make check` leaves that out."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    for item in items:
        if "end_to_end" in item.path.parts or SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A fresh copy of the project."""
    return copy_project(tmp_path / "project")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the whole pipeline has been run once, on the tiny configuration, and committed. Not to be changed."""
    return made_once("pipeline", make_repository, tmp_path_factory)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the stages before train have been run on the tiny configuration. Not to be changed."""
    return made_once("built", make_built, tmp_path_factory)


@pytest.fixture
def in_built(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is a copy of `built`, for tests that call a stage's functions."""
    folder = shutil.copytree(built, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return folder


@pytest.fixture(scope="session")
def train_options() -> Callable[..., Any]:
    """The shipped train section with changes; those of early stopping one by one."""
    from pipeline.compose.composition import parse_params
    from pipeline.config.params import Train

    shipped = parse_params((SHIPPED / "params.yaml").read_text(encoding="utf-8"))["train"]
    tiny = {"epochs": 1.0, "batch_size": 16, "warmup_steps": 2, "logging_steps": 2}

    def options(early_stopping: dict[str, Any] | None = None, **changes: Any) -> Train:
        stopping = {**shipped["early_stopping"], **(early_stopping or {})}
        return Train.model_validate({**shipped, **tiny, **changes, "early_stopping": stopping})

    return options
