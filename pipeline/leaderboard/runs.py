"""Finds what git revisions and DVC experiments answered: their predictions, and what these were made of.

A revision is a branch, a tag, HEAD~3, a commit or an experiment by its name; `workspace` is what lies here. Each is read
through DVC: from the cache, else from the remote that is configured here, which may be younger than the revision. What it
was made of stands in its dvc.lock: parameters and checksums as the stages recorded them, whatever params.yaml says since.
"""

import difflib
import hashlib
import math
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import yaml
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.scm import NoSCMError, RevError, resolve_rev
from scmrepo.exceptions import SCMError

from pipeline.compose.leaves import flatten
from pipeline.core.files import parse_json_object
from pipeline.errors import ConfigError, DataError, PipelineError

WORKSPACE = "workspace"
# The stages that make a model's predictions out of the data, and those whose parameters say nothing of them.
MADE_BY = {"base": ("evaluate@base",), "finetuned": ("train", "evaluate@finetuned")}
BESIDE = {"base": ("train", "evaluate@finetuned", "compare"), "finetuned": ("evaluate@base", "compare")}
Prediction = dict[str, Any]


class Run(NamedTuple):
    """The predictions of one revision."""

    name: str
    commit: str  # empty: what lies in the workspace
    rows: list[Prediction]
    metrics: dict[str, Any]  # metrics/evaluate/INSTANCE.json
    params: dict[str, Any]  # dotted key → value, of every stage that led to the predictions
    inputs: dict[str, str]  # path → checksum, of data and code that train and evaluate read


def find_runs(names: list[str], instance: str) -> list[Run]:
    """The run of each name, in the order given; one error that tells all that cannot be had."""
    found, faults = [], []
    with _repository() as repo:
        for name in dict.fromkeys(names):
            try:
                found.append(_run(repo, name, instance))
            except PipelineError as error:
                faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise ConfigError(
            "\n".join([f"{len(faults)} revisions cannot be compared:", *(f"  {each}" for each in faults)])
        )
    return found


def _repository() -> Repo:
    try:
        repo = Repo(".")
    except NotDvcRepoError:
        raise ConfigError("no DVC project here: run the leaderboard in the project's root") from None
    except DvcException as error:
        raise ConfigError(f"DVC cannot open the project: {error}") from None
    try:
        repo.scm.get_rev()
    except (NoSCMError, SCMError) as error:
        repo.close()
        raise ConfigError(f"revisions need the project in git, with a commit: {error}") from None
    return repo


def _run(repo: Repo, name: str, instance: str) -> Run:
    commit = "" if name == WORKSPACE else _commit(repo, name)
    files = _files(repo, commit)
    with closing(files):
        lock = _lock(files, name)
        path = f"data/predictions/{instance}.jsonl"
        text = _read(files, path, lambda: _unavailable(repo, name, path, bool(_recorded(lock, path))))
        metrics = f"metrics/evaluate/{instance}.json"
        scores = _read(files, metrics, lambda: f"{name}: {metrics} is not there; {_again(name)}")
    if commit == "" and _recorded(lock, path).get("md5") != hashlib.md5(text).hexdigest():
        raise DataError(
            f"workspace: {path} is not what dvc.lock records. To have it so: dvc checkout; or run it: dvc repro"
        )
    return Run(
        name,
        commit,
        parse_predictions(text, f"{name}: {path}"),
        parse_json_object(scores, f"{name}: {metrics}"),
        *_made_of(lock, instance),
    )


def _commit(repo: Repo, name: str) -> str:
    if not name.strip():
        raise ConfigError("an empty name is no revision; to have the present commit: HEAD")
    try:
        return resolve_rev(repo.scm, name)
    except RevError as error:
        if "ambiguous" in str(error):
            raise ConfigError(
                f"{name}: more than one experiment has that name; give its commit (dvc exp list -A)"
            ) from None
    except (DvcException, ValueError):  # ValueError: what git cannot even read as a name
        pass
    if name.startswith("HEAD"):
        raise ConfigError(
            f"{name}: the history here does not go back so far (git log; in a shallow clone: git fetch --unshallow)"
        )
    close = difflib.get_close_matches(name, known_names(repo), n=3, cutoff=0.5)
    meant = f"; did you mean {' or '.join(close)}?" if close else "."
    raise ConfigError(
        f"{name}: no revision of git and no experiment here{meant} There are: git branch -a, git tag, dvc exp list -A. "
        f"An experiment of the git remote comes by: dvc exp pull origin {name}"
    )


def known_names(repo: Repo) -> list[str]:
    """Branches, those of remotes too, tags and experiments."""
    refs = [ref for base in ("refs/heads/", "refs/tags/", "refs/remotes/") for ref in repo.scm.iter_refs(base)]
    experiments = repo.experiments.ls(all_commits=True).values()
    return [*(ref.split("/", 2)[2] for ref in refs), *(name for each in experiments for name, _ in each), WORKSPACE]


def _files(repo: Repo, commit: str) -> DVCFileSystem:
    """The revision's files, with the remotes as they are configured here: its own may be older, and know no passwords."""
    here = {section: dict(repo.config[section]) for section in ("core", "remote", "cache")}
    return DVCFileSystem(repo.root_dir, rev=commit or None, config=here)


def _lock(files: DVCFileSystem, name: str) -> dict[str, Any]:
    text = _read(files, "dvc.lock", lambda: f"{name} has no dvc.lock: its pipeline was never run there; {_again(name)}")
    try:
        return yaml.safe_load(text)["stages"]
    except (yaml.YAMLError, KeyError, TypeError):
        raise DataError(f"{name}: dvc.lock is damaged; {_again(name)}") from None


def _read(files: DVCFileSystem, path: str, missing: Callable[[], str]) -> bytes:
    try:
        with files.open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise DataError(missing()) from None
    except (DvcException, OSError) as error:
        raise DataError(f"{missing()}\n({error})") from None


def _recorded(lock: dict[str, Any], path: str) -> dict[str, Any]:
    """What dvc.lock says of an output; nothing if no stage wrote it."""
    return next((out for stage in lock.values() for out in stage.get("outs", []) if out["path"] == path), {})


def _again(name: str) -> str:
    if name == WORKSPACE:
        return "run it: dvc repro"
    return f"run it again: git checkout {name} (an experiment: dvc exp apply {name}), dvc repro"


def _unavailable(repo: Repo, name: str, path: str, recorded: bool) -> str:
    if not recorded:
        return f"{name}: its dvc.lock knows no {path}: evaluate did not run there; {_again(name)}"
    remotes = repo.config["remote"]
    if not remotes:
        return (
            f"{name}: {path} is not in the cache here, and no DVC remote is configured to bring it (dvc remote list); "
            f"{_again(name)}"
        )
    there = ", ".join(f"{remote} ({options.get('url')})" for remote, options in remotes.items())
    return (
        f"{name}: {path} is neither in the cache here nor to be had from the DVC remote {there}. "
        f"Where it was run: dvc push (an experiment: dvc exp push origin {name}); then it comes by itself, or by "
        f"dvc exp pull origin {name}. Or {_again(name)}"
    )


def _made_of(lock: dict[str, Any], instance: str) -> tuple[dict[str, Any], dict[str, str]]:
    """(parameters, inputs) of the predictions; what train writes and evaluate reads is no input."""
    params = {
        key: value
        for name, stage in lock.items()
        if name not in BESIDE[instance]
        for section in stage.get("params", {}).values()
        for key, value in flatten(section).items()
    }
    stages = [lock[name] for name in MADE_BY[instance] if name in lock]
    written = {out["path"] for stage in stages for out in stage.get("outs", [])}
    deps = [dep for stage in stages for dep in stage.get("deps", [])]
    return params, {dep["path"]: dep.get("md5", "") for dep in deps if dep["path"] not in written}


def parse_predictions(text: bytes, where: str) -> list[Prediction]:
    """The rows of predictions; DataError that begins with `where` if they cannot be compared."""
    lines = enumerate(text.split(b"\n"), start=1)
    rows = [parse_json_object(line, f"{where}, line {number}") for number, line in lines if line.strip()]
    if not rows:
        raise DataError(f"{where} holds no rows; evaluate there again: dvc repro")
    _require_sound(rows, where)
    return rows


def _require_sound(rows: list[Prediction], where: str) -> None:
    """Raise DataError at the first row that cannot be told from others, compared or scored."""
    answered = "prediction" in rows[0]
    seen: dict[Any, int] = {}
    for number, row in enumerate(rows, start=1):
        at = f"{where}, row {number}"
        if not isinstance(row.get("id"), int | str):
            raise DataError(f"{at}: id is {row.get('id')!r}; expected a number or a text that names the test row")
        if row["id"] in seen:
            raise DataError(
                f"{at}: id {row['id']!r} again, as in row {seen[row['id']]}; each test row is answered once"
            )
        seen[row["id"]] = number
        if not isinstance(row.get("reference"), str):
            raise DataError(f"{at}: no reference; expected the text that the answer is held against")
        if isinstance(row.get("prediction"), str) != answered:
            raise DataError(f"{at}: {'no prediction' if answered else 'a prediction'}, unlike the rows before it")
        odd = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        if odd:
            raise DataError(f"{at}: {odd[0]} is {row[odd[0]]}, no number to compare by")
