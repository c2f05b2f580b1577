"""Shared fixtures: copies of the project in three states, and the shipped train section."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.project import SHIPPED, copy_project, make_once, make_repository, run_data_stages

# The longest files come first, so that both workers (see Makefile) finish at about the same time. The first two files build
# one shared folder each, `repository` and `built`, so that neither worker waits for the other.
LONGEST = ["test_errors.py", "test_compute.py", "test_pipeline.py", "test_hub.py", "test_bench.py"]
SLOW_FIXTURES = {"project", "repository", "built", "in_built", "shared", "hub", "served"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files, and mark tests that run commands or train as slow: `make check` skips them."""
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
    """A repository after one run of the whole pipeline on the tiny configuration. Tests must not change it."""
    return make_once("pipeline", make_repository, tmp_path_factory)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project after the stages before train on the tiny configuration. Tests must not change it."""
    return make_once("built", run_data_stages, tmp_path_factory)


@pytest.fixture
def in_built(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `built` as the working directory, for tests that call a stage's functions."""
    folder = shutil.copytree(built, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return folder


@pytest.fixture(scope="session")
def train_options() -> Callable[..., Any]:
    """A function that returns the shipped train section with changes; `early_stopping` changes single keys."""
    from pipeline.compose.composition import parse_params
    from pipeline.config.params import Train

    shipped = parse_params((SHIPPED / "params.yaml").read_text(encoding="utf-8"))["train"]
    tiny = {"epochs": 1.0, "batch_size": 16, "warmup_steps": 2, "logging_steps": 2}

    def options(early_stopping: dict[str, Any] | None = None, **changes: Any) -> Train:
        stopping = {**shipped["early_stopping"], **(early_stopping or {})}
        return Train.model_validate({**shipped, **tiny, **changes, "early_stopping": stopping})

    return options
