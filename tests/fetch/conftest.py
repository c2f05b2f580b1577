"""Fixtures of the tests of downloads: a stand-in hub, no waiting, our log lines, the hub's cache."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub.utils import close_session
from support.hub import Hub, serve_hub
from support.snapshots import isolate_client, point_client_to, write_dataset


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one dataset, which this process's client uses, with a cache and a login of its own."""
    write_dataset(tmp_path / "hub")
    isolate_client(tmp_path / "hf", monkeypatch)
    with serve_hub(tmp_path / "hub") as hub:
        point_client_to(hub.address, monkeypatch)
        yield hub
    close_session()


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that we and the library would have waited."""
    seconds: list[float] = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The pipeline's own log lines."""
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("pipeline")]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where the hub's cache keeps the dataset."""
    return tmp_path / "hf/hub/datasets--owner--rows"
