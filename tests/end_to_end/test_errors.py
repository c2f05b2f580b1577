"""Every bad configuration, file, model, state and machine of the table, through the command that a user would give.

Each ends in an exit code, in one message that names what is wrong and what to do, in no traceback and in nothing half
written; and what is run next, with that put right, runs as if nothing had been.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.error_cases import CASES
from support.project import changed, ran, run_in

TEMPORARY = re.compile(r"\..+\.\d+(-old)?")  # see pipeline.files.whole
Tree = dict[str, bytes]


@pytest.fixture(scope="module")
def clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of these tests' own."""
    return Path(shutil.copytree(repository, tmp_path_factory.mktemp("errors") / "project", symlinks=True))


@pytest.fixture(scope="module")
def good(clone: Path) -> Tree:
    return tree(clone)


@pytest.fixture
def project(clone: Path, good: Tree) -> Iterator[Path]:
    """The repository; what a test did to its inputs is undone, and the next run has to bring all else back."""
    yield clone
    subprocess.run(["git", "clean", "-fdq"], cwd=clone, check=True)
    subprocess.run(["git", "restore", "conf", "data"], cwd=clone, check=True)
    if tree(clone) != good:
        for command in (["python", "-m", "pipeline.compose"], ["dvc", "repro"]):
            done = run_in(clone, *command)
            assert done.returncode == 0, done.stdout + done.stderr
    assert {name for name, content in tree(clone).items() if good.get(name) != content} == set()
    assert changed(clone) == []


def tree(folder: Path) -> Tree:
    """What the commands read and write: parameters, lock, all outputs, what is queued; caches and timings aside."""
    roots = ("conf", "data", "models", "metrics", "params.yaml", "dvc.lock", ".git/refs/exps/stash")
    found = (file for root in roots for file in [folder / root, *(folder / root).rglob("*")] if file.is_file())
    names = {str(file.relative_to(folder)): file.read_bytes() for file in found}
    return {name: content for name, content in names.items() if not name.startswith("metrics/runtime/")}


def outputs(folder: Path, stages: list[str]) -> tuple[str, ...]:
    lock = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return tuple(out["path"] for stage in stages for out in lock[stage]["outs"])


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_told_and_harms_nothing(name: str, project: Path) -> None:
    case = CASES[name]
    case.prepare(project)
    before = tree(project)
    done = run_in(project, *case.command)
    output = done.stdout + done.stderr

    assert done.returncode == 1 or (done.returncode and case.command[0] == "dvc"), output
    assert [part for part in case.told if part not in output] == [], output
    assert "Traceback" not in output, output
    assert [path for path in project.rglob(".*") if TEMPORARY.fullmatch(path.name)] == []
    after = tree(project)
    touched = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    if stages := ran(output):  # those before the failed one are done; its own outputs DVC has removed
        whole = ("params.yaml", "dvc.lock", *outputs(project, stages[:-1]))
        assert [path for path in touched if path in after and not path.startswith(whole)] == []
        assert [path for path in whole if not (project / path).exists()] == []
    else:
        assert touched == set()


def test_after_all_of_that_there_is_nothing_to_run(clone: Path) -> None:
    done = run_in(clone, "dvc", "repro")
    assert done.returncode == 0
    assert ran(done.stdout) == []
