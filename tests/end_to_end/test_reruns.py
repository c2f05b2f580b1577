"""An edited module reruns exactly the stages that use it: one module of every folder, by `dvc status`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.repo import Repo

FETCH = {"fetch@data", "fetch@model"}
EVALUATE = {"evaluate@base", "evaluate@finetuned"}
ALL = FETCH | EVALUATE | {"clean", "format", "tokenize", "train", "compare"}
# module → stages that rerun
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
    "records/columns.py": FETCH | {"clean", "format"},
    "chat/turns.py": ALL - {"clean", "compare"},
    "chat/truncate.py": EVALUATE | {"tokenize"},
    "modeling/kv_cache.py": EVALUATE | {"train"},
    "scoring/significance.py": {"compare"},
    "synthetic/letters.py": FETCH,
    "leaderboard/standings.py": set(),
    "compose/composition.py": set(),
    "start/cli.py": set(),
    "nano/articles.py": set(),
    "document_config/page.py": set(),
    "prove/kills.py": set(),
    "inspect/cli.py": set(),
    "schedule.py": set(),
}


@pytest.fixture(scope="module")
def clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(repository, tmp_path_factory.mktemp("own") / "project", symlinks=True))


@pytest.fixture
def edited(clone: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The project with an added comment in one module."""
    path = clone / "pipeline" / request.param
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\n# edited\n", encoding="utf-8")
    yield clone
    path.write_text(text, encoding="utf-8")


def changed_stages(project: Path) -> set[str]:
    with Repo(str(project)) as repo:
        return {name.rpartition(":")[2] for name in repo.status()}  # DVC puts the path of dvc.yaml before the name


@pytest.mark.parametrize(("edited", "stages"), EDITS.items(), indirect=["edited"], ids=EDITS)
def test_an_edit_reruns_exactly_the_stages_that_use_the_module(edited: Path, stages: set[str]) -> None:
    assert changed_stages(edited) == stages


def test_without_an_edit_nothing_reruns(clone: Path) -> None:
    assert changed_stages(clone) == set()


def test_every_folder_of_the_package_has_an_edit(clone: Path) -> None:
    folders = {path.parent.name for path in (clone / "pipeline").glob("*/__init__.py")}
    assert folders == {path.split("/")[0] for path in EDITS if "/" in path}
