"""A copy of the project with a user's files, as the working directory, and `python -m pipeline.start` in this process."""

from pathlib import Path

import pytest
from support.commands import run_main
from support.tickets import CPU, Start, write_tickets

from pipeline.start import cli


@pytest.fixture
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.setattr(cli, "inspect_machine", lambda compute: CPU)  # torch takes seconds to import
    write_tickets(project / "tickets.csv")
    return project


@pytest.fixture
def start(in_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Start:
    """Runs start without a terminal: exit code, standard output and error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        return run_main(cli.main, ["start", *arguments], monkeypatch, capsys)

    return run
