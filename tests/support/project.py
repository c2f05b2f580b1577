"""Copies of the project, commands that run in them, and the results of such runs."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from support.fork_server import ADDRESS, SHIMS, server_address

ROOT = Path(__file__).parents[2]
# conf/ and params.yaml as shipped. Tests use these copies, so that they do not depend on what a user changes in conf/.
SHIPPED = Path(__file__).parent / "shipped"
# A configuration that runs every stage in seconds.
TINY = (
    "model=scratch",
    "data.rows=240",
    "model.vocabulary=400",
    "model.positions=96",
    "model.layers=2",
    "model.hidden_size=32",
    "model.heads=2",
    "tokenize.max_length=96",
    "tokenize.gates.max_unended=0.5",
    "train.epochs=1",
    "train.warmup_steps=2",
    "train.logging_steps=2",
    "evaluate.max_new_tokens=12",
    "evaluate.limit=16",
)
Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without variables of DVC, the hub and Hydra, offline, with changes."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "HF_", "HYDRA_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**inherited, "PATH": path, "HF_HUB_OFFLINE": "1", "COLUMNS": "120", **changes}


def copy_project(target: Path) -> Path:
    """Copy the files that git tracks or would track, without results, tests and the user's configuration."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "metrics/", "dvc.lock", "conf/")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return Path(shutil.copytree(SHIPPED, target, dirs_exist_ok=True))


def forking_environment(**changes: str) -> dict[str, str]:
    """An environment in which `python -m …` and `dvc` are forks of a process with all imports done, where that is possible."""
    variables, address = environment(**changes), server_address(environment())
    return {**variables, "PATH": f"{SHIMS}{os.pathsep}{variables['PATH']}", ADDRESS: address} if address else variables


def run_in(folder: Path, *command: str, fresh: bool = False, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with changes to the environment; `fresh`: in new interpreters, not in forked ones."""
    variables = environment(**changes) if fresh else forking_environment(**changes)
    program = "python" if command[0] == sys.executable and not fresh else command[0]
    return subprocess.run(
        (program, *command[1:]), cwd=folder, env=variables, capture_output=True, text=True, timeout=600, check=False
    )


def python_in(
    folder: Path, module: str, *arguments: str, fresh: bool = False, **changes: str
) -> subprocess.CompletedProcess[str]:
    return run_in(folder, sys.executable, "-m", module, *arguments, fresh=fresh, **changes)


def commit_all(folder: Path) -> Path:
    """Make a folder a git repository, which DVC's experiments need, and commit all files."""
    git = ("git", "-c", "user.name=tests", "-c", "user.email=tests@example.org")
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "all")):
        subprocess.run([*git, *arguments], cwd=folder, check=True, capture_output=True)
    return folder


def stages_run(output: str) -> list[str]:
    """The stages that DVC reports as run, in order."""
    return re.findall(r"Running stage '([^']+)'", output)


def changed_files(folder: Path) -> list[str]:
    """The files that git reports as changed or untracked."""
    status = subprocess.run(["git", "status", "--porcelain"], cwd=folder, check=True, capture_output=True, text=True)
    return sorted(line[3:] for line in status.stdout.splitlines())


def write_tiny_config(folder: Path) -> None:
    """Write TINY into conf/. Its keys go into the files of their options: another option would reject them."""
    for override in TINY:
        key, value = override.split("=")
        *group, name = key.split(".")
        section = group[0] if group else ""
        option = {"data": "generated", "model": "scratch"}.get(section, "default")
        path, line = (f"{section}/{option}.yaml", f" *{name}: ") if section else ("config.yaml", f"  - {name}: ")
        text = (folder / "conf" / path).read_text()
        (folder / "conf" / path).write_text(re.sub(f"(?m)^({line}).*", rf"\g<1>{value}", text))


def make_once(name: str, make: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder once for all of pytest's workers: the first that needs it makes it, the others wait."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, marker = shared / name / "project", shared / name / "finished"
    with FileLock(shared / f"{name}.lock"):
        if not marker.exists():
            make(folder)
            marker.touch()
    return folder


def make_repository(folder: Path) -> Path:
    copy_project(folder)
    write_tiny_config(folder)
    assert python_in(folder, "pipeline.compose").returncode == 0
    commit_all(folder)
    done = run_in(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    return commit_all(folder)


def run_data_stages(folder: Path) -> Path:
    copy_project(folder)
    stages = [("fetch", "instance=data"), ("fetch", "instance=model"), ("clean",), ("format",), ("tokenize",)]
    for module, *arguments in [("compose", *TINY), *stages]:
        done = python_in(folder, f"pipeline.{module}", *arguments)
        assert done.returncode == 0, done.stderr
    return folder
