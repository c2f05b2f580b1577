"""An edit of a module reruns the stages that use it and no other: one module of every folder, as DVC sees it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.repo import Repo

FETCH = {"fetch@data", "fetch@model"}
EVALUATE = {"evaluate@base", "evaluate@finetuned"}
ALL = FETCH | EVALUATE | {"clean", "format", "tokenize", "train", "compare"}
# module → the stages that it changes
EDITS: dict[str, set[str]] = {
    "fetch/tables.py": FETCH,
    "clean/filters.py": {"clean"},
    "format/bigrams.py": {"format"},
    "tokenize/audit.py": {"tokenize"},
    "train/schedules.py": {"train"},
    "evaluate/semantic.py": EVALUATE,
    "compare/verdicts.py": {"compare"},
    "compare/pages/report.html.j2": {"compare"},
    "config/params.py": ALL,
    "core/files.py": ALL,
    "records/columns.py": FETCH | {"clean"},
    "modeling/kv_cache.py": EVALUATE | {"train"},
    "scoring/significance.py": {"compare"},
    "synthetic/letters.py": FETCH,
    "leaderboard/standings.py": set(),
    "compose/composition.py": set(),
    "nano/articles.py": set(),
    "schedule.py": set(),
}


@pytest.fixture(scope="module")
def own(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(repository, tmp_path_factory.mktemp("own") / "project", symlinks=True))


@pytest.fixture
def edited(own: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The project with a comment more in one module."""
    path = own / "pipeline" / request.param
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\n# edited\n", encoding="utf-8")
    yield own
    path.write_text(text, encoding="utf-8")


def changed_stages(project: Path) -> set[str]:
    with Repo(str(project)) as repo:
        return set(repo.status())


@pytest.mark.parametrize(("edited", "stages"), EDITS.items(), indirect=["edited"], ids=EDITS)
def test_an_edit_reruns_the_stages_that_use_the_module(edited: Path, stages: set[str]) -> None:
    assert changed_stages(edited) == stages


def test_without_an_edit_nothing_reruns(own: Path) -> None:
    assert changed_stages(own) == set()


def test_every_folder_of_the_package_is_edited(own: Path) -> None:
    folders = {path.parent.name for path in (own / "pipeline").glob("*/__init__.py")}
    assert folders == {path.split("/")[0] for path in EDITS if "/" in path}
