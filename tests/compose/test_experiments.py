"""What composition says about an experiment: a source that the next one will not use, and a folder that DVC cannot work in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.compose import experiments
from pipeline.compose.composition import compose_params
from pipeline.compose.experiments import require_usable_folder
from pipeline.errors import ConfigError

QUEUE = ["dvc", "exp", "run", "--queue", "-S", "train.seed=1"]


@pytest.fixture
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(project)
    (project / "help desk.csv").write_text("question,answer\nWhy?,So.\n")
    experiments._print_once.cache_clear()
    yield project
    experiments._print_once.cache_clear()


def test_another_source_of_rows_is_noted_once(in_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        compose_params("data=file", "data.path='help desk.csv'", f"train.seed={seed}")
    noted = capsys.readouterr().err
    assert noted.count("the next one uses conf/'s data (generated) again") == 1
    assert noted.endswith("To keep it: python -m pipeline.start 'help desk.csv'\n")


def test_another_model_is_noted_with_the_command_that_keeps_it(
    in_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compose_params("model=pythia-70m")
    assert "model is EleutherAI/pythia-70m in this experiment only" in capsys.readouterr().err


def test_other_keys_and_the_default_source_are_not_noted(in_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compose_params("data.rows=900", "data.limit=5", "train.epochs=2")
    config = Path("conf/config.yaml")
    Path("conf/data/mine.yaml").write_text(
        Path("conf/data/file.yaml").read_text().replace("\npath: null", "\npath: help desk.csv")
    )
    config.write_text(config.read_text().replace("- data: generated", "- data: mine"))
    compose_params("train.epochs=2")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["Übung", "run#2", "what?", "日本"])
def test_queueing_is_refused_where_dvc_would_fail_later(name: str) -> None:
    folder = Path("/home") / name
    with pytest.raises(ConfigError, match="DVC cannot run queued experiments"):
        require_usable_folder(QUEUE, folder)
    require_usable_folder(["dvc", "exp", "run"], folder)
    require_usable_folder(["python", "-m", "pipeline.compose"], folder)


def test_no_experiment_runs_in_a_folder_with_braces() -> None:
    with pytest.raises(ConfigError, match=r"path contains \{:"):
        require_usable_folder(["dvc", "exp", "run"], Path("/home/a{b"))


@pytest.mark.parametrize("name", ["my project", "50%", "a+b", "a&b", "[x]", "it's", "a=b"])
def test_other_folder_names_are_accepted(name: str) -> None:
    require_usable_folder(QUEUE, Path("/home") / name)
