"""User errors of the table in support/error_cases.py: bad configurations, files, models, states and machines.

Each command exits with an error code and prints one message that names the error and what to do, without a traceback. It
leaves no half-written output, and once the error is corrected, the next run restores everything.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.error_cases import CASES
from support.project import changed_files, run_in, stages_run

TEMPORARY = re.compile(r"\..+\.\d+(-old)?")  # see pipeline.core.files.atomic_write
TIMINGS = "metrics/runtime/"
Files = dict[str, bytes]
Damage = frozenset[str]


@pytest.fixture(scope="module")
def clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository for this module."""
    return Path(shutil.copytree(repository, tmp_path_factory.mktemp("errors") / "project", symlinks=True))


@pytest.fixture(scope="module")
def good(clone: Path) -> Files:
    return read_files(clone)


@pytest.fixture(scope="module")
def repaired() -> set[Damage]:
    """Sets of damaged outputs that a run has restored."""
    return set()


@pytest.fixture
def project(clone: Path, good: Files, repaired: set[Damage]) -> Iterator[Path]:
    """The repository. After the test, the inputs are restored, and then the outputs.

    For each set of damaged outputs, the first time the user's next run restores them. Later, copies do, which is cheaper.
    """
    yield clone
    subprocess.run(["git", "clean", "-fdq"], cwd=clone, check=True)
    subprocess.run(["git", "restore", "conf", "data"], cwd=clone, check=True)
    damage = frozenset(output_of(path, good["dvc.lock"]) for path in differences(good, read_files(clone)))
    if damage in repaired:
        write_files(clone, good)
    elif damage:
        for command in (["python", "-m", "pipeline.compose"], ["dvc", "repro"]):
            done = run_in(clone, *command)
            assert done.returncode == 0, done.stdout + done.stderr
        repaired.add(damage)
    assert differences(good, read_files(clone)) == set()
    assert changed_files(clone) == []


def read_files(folder: Path) -> Files:
    """The files that commands read and write: parameters, lock, outputs and queued experiments, without caches."""
    roots = ("conf", "data", "models", "metrics", "params.yaml", "dvc.lock", ".git/refs/exps/stash")
    files = (file for root in roots for file in [folder / root, *(folder / root).rglob("*")] if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def write_files(folder: Path, files: Files) -> None:
    """Make the files of a folder these."""
    present = read_files(folder)
    for name in present.keys() - files.keys():
        (folder / name).unlink()
    for name, content in files.items():
        if present.get(name) != content:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def differences(before: Files, after: Files) -> set[str]:
    """Names of files that were added, removed or changed, except for timings."""
    names = before.keys() | after.keys()
    return {name for name in names if before.get(name) != after.get(name) and not name.startswith(TIMINGS)}


def output_of(path: str, lock: bytes) -> str:
    """The output of a stage that holds this path, or the path itself."""
    return next((output for output in outputs(lock) if f"{path}/".startswith(f"{output}/")), path)


def outputs(lock: bytes, stages: list[str] | None = None) -> tuple[str, ...]:
    """The outputs of some stages or of all, from the content of dvc.lock."""
    entries = yaml.safe_load(lock)["stages"]
    return tuple(out["path"] for stage in (entries if stages is None else stages) for out in entries[stage]["outs"])


@pytest.mark.parametrize("name", CASES)
def test_an_error_is_one_message_and_leaves_outputs_untouched(name: str, project: Path) -> None:
    case = CASES[name]
    case.prepare(project)
    before = read_files(project)
    done = run_in(project, *case.command)
    output = done.stdout + done.stderr

    assert done.returncode == 1 or (done.returncode and case.command[0] == "dvc"), output
    assert [message for message in case.messages if message not in output] == [], output
    assert "Traceback" not in output, output
    assert [path for path in project.rglob(".*") if TEMPORARY.fullmatch(path.name)] == []
    after = read_files(project)
    touched = differences(before, after)
    if stages := stages_run(output):  # the stages before the failed one are done; DVC has removed its outputs
        finished = ("params.yaml", "dvc.lock", *outputs(after["dvc.lock"], stages[:-1]))
        assert [path for path in touched if path in after and not path.startswith(finished)] == []
        assert [path for path in finished if not (project / path).exists()] == []
    else:
        assert touched == set()


def test_after_all_errors_there_is_nothing_left_to_run(clone: Path) -> None:
    done = run_in(clone, "dvc", "repro")
    assert done.returncode == 0
    assert stages_run(done.stdout) == []
