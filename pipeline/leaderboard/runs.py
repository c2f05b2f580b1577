"""Loads the predictions of git revisions and DVC experiments, with the parameters and inputs they were made from.

A revision is a branch, a tag, HEAD~3, a commit, the name of an experiment, or `workspace` for the current files. DVC reads
it from the cache, or else from the remotes configured now, which may be newer than the revision. Parameters and checksums
come from its dvc.lock, as the stages recorded them, even if params.yaml has changed since.
"""

import difflib
import hashlib
import math
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.scm import NoSCMError, RevError, resolve_rev
from scmrepo.exceptions import SCMError

from pipeline.compose.leaves import flatten
from pipeline.core.files import parse_json_object
from pipeline.core.metrics import details_path
from pipeline.core.paths import METRICS, PREDICTIONS
from pipeline.core.recorded_outputs import cached_object, is_damaged_object, parse_lock
from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.scoring.metrics import Prediction

WORKSPACE = "workspace"
# The stages between the data and the predictions of a model, and the stages whose parameters do not affect them.
PREDICTION_STAGES = {"base": ("evaluate@base",), "finetuned": ("train", "evaluate@finetuned")}
UNRELATED_STAGES = {"base": ("train", "evaluate@finetuned", "compare"), "finetuned": ("evaluate@base", "compare")}


class Run(NamedTuple):
    """The predictions of one model at one revision."""

    name: str
    commit: str  # empty for the workspace
    rows: list[Prediction]
    metrics: dict[str, Any]  # all that evaluate measured
    params: dict[str, Any]  # dotted key → value, for every stage that affects the predictions
    inputs: dict[str, str]  # path → checksum, for the data and code that train and evaluate read


def load_runs(names: list[str], instance: str) -> list[Run]:
    """The run of each revision, in this order, without duplicate names. `instance` is base or finetuned.

    Raises ConfigError or DataError; several errors are reported together.
    """
    runs: list[Run] = []
    errors: list[PipelineError] = []
    with open_repository() as repo:
        for name in dict.fromkeys(names):
            try:
                runs.append(_load_run(repo, name, instance))
            except PipelineError as error:
                errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        lines = [f"{len(errors)} revisions cannot be compared:", *(f"  {error}" for error in errors)]
        raise ConfigError("\n".join(lines))
    return runs


def open_repository() -> Repo:
    """The DVC repository of the working directory. Raises ConfigError if it is not one, or has no commit."""
    try:
        repo = Repo(".")
    except NotDvcRepoError:
        raise ConfigError("no DVC project here; run the leaderboard in the project's root") from None
    except DvcException as error:
        raise ConfigError(f"DVC cannot open the project: {error}") from None
    try:
        repo.scm.get_rev()
    except (NoSCMError, SCMError) as error:
        repo.close()
        raise ConfigError(f"the leaderboard needs a git repository with at least one commit: {error}") from None
    return repo


def _load_run(repo: Repo, name: str, instance: str) -> Run:
    commit = "" if name == WORKSPACE else _resolve_commit(repo, name)
    path = f"{PREDICTIONS}/{instance}.jsonl"
    with closing(_open_files(repo, commit)) as files:
        lock = _read_lock(files, name)
        output = _recorded_output(lock, path)
        text = _read_file(files, path, lambda: _unavailable_message(repo, name, path, bool(output)))
        _require_recorded_hash(text, output, name)
        metrics = _read_evaluation(repo, files, lock, name, instance)
    rows = parse_predictions(text, f"{name}: {path}")
    if metrics.get("rows", len(rows)) != len(rows):
        raise DataError(
            f"{name}: {path} has {len(rows):,} rows, but evaluate measured {metrics['rows']:,}: they are from different "
            f"runs; {_rerun_hint(name)}"
        )
    return Run(name, commit, rows, metrics, *_provenance(lock, instance))


def evaluation_metrics(repo: Repo, name: str, commit: str, instance: str) -> dict[str, Any]:
    """All that evaluate measured at a commit. Raises DataError, which begins with `name`, if that cannot be read."""
    with closing(_open_files(repo, commit)) as files:
        return _read_evaluation(repo, files, _read_lock(files, name), name, instance)


def _read_evaluation(
    repo: Repo, files: DVCFileSystem, lock: dict[str, Any], name: str, instance: str
) -> dict[str, Any]:
    """The metrics from DVC's cache or remote, or from git: older revisions keep all metrics there."""
    details = details_path(f"evaluate/{instance}").as_posix()
    if output := _recorded_output(lock, details):
        path, text = details, _read_file(files, details, lambda: _unavailable_message(repo, name, details, True))
        _require_recorded_hash(text, output, name)
    else:
        path = f"{METRICS}/evaluate/{instance}.json"
        text = _read_file(files, path, lambda: f"{name}: {path} is missing; {_rerun_hint(name)}")
    return parse_json_object(text, f"{name}: {path}")


def _require_recorded_hash(text: bytes, output: dict[str, Any], name: str) -> None:
    """Raise DataError if a file differs from its entry in dvc.lock. DVC 2 recorded other hashes, which are not compared."""
    md5, recorded = hashlib.md5(text).hexdigest(), output.get("md5")
    if output.get("hash") != "md5" or md5 == recorded:
        return
    path, cached = output["path"], cached_object(str(recorded))
    difference = f"{name}: {path} does not match dvc.lock (its MD5 is {md5}, recorded is {recorded})"
    if is_damaged_object(str(recorded)):
        revision = "" if name == WORKSPACE else f" (in {name}: git checkout {name})"
        raise DataError(
            f"{difference}: DVC's cached copy is damaged. Remove it: rm -f {cached}. Then get it from the remote: dvc pull "
            f"{path}, or run it again: dvc repro{revision}"
        )
    if name == WORKSPACE:
        raise DataError(f"{difference}. Restore it: dvc checkout {path}. Or run it again: dvc repro")
    raise DataError(
        f"{difference}: the copy on the DVC remote is damaged. Push it again from where it was run: dvc push"
    )


def _resolve_commit(repo: Repo, name: str) -> str:
    if not name.strip():
        raise ConfigError("a revision has an empty name; the current commit is HEAD")
    try:
        return str(resolve_rev(repo.scm, name))
    except RevError as error:
        if "ambiguous" in str(error):
            raise ConfigError(
                f"{name}: several experiments have this name; give the commit instead (dvc exp list -A)"
            ) from None
    except (DvcException, ValueError):  # ValueError: not a valid name for git
        pass
    if name.startswith("HEAD"):
        raise ConfigError(
            f"{name}: the git history here does not go back that far (git log; in a shallow clone: git fetch --unshallow)"
        )
    matches = difflib.get_close_matches(name, revision_names(repo), n=3, cutoff=0.5)
    suggestion = f"; did you mean {' or '.join(matches)}?" if matches else "."
    raise ConfigError(
        f"{name}: no git revision or experiment has this name{suggestion} To list them: git branch -a, git tag, "
        f"dvc exp list -A. To get an experiment from the git remote: dvc exp pull origin {name}"
    )


def revision_names(repo: Repo) -> list[str]:
    """Local and remote branches, tags, experiments, and `workspace`."""
    refs = [ref for prefix in ("refs/heads/", "refs/tags/", "refs/remotes/") for ref in repo.scm.iter_refs(prefix)]
    experiments = [name for named in repo.experiments.ls(all_commits=True).values() for name, _ in named]
    return [*(ref.split("/", 2)[2] for ref in refs), *experiments, WORKSPACE]


def _open_files(repo: Repo, commit: str) -> DVCFileSystem:
    """The files of a commit, with the current DVC remotes: those of the commit may be outdated and lack credentials."""
    current = {section: dict(repo.config[section]) for section in ("core", "remote", "cache")}
    return DVCFileSystem(repo.root_dir, rev=commit or None, config=current)


def _read_lock(files: DVCFileSystem, name: str) -> dict[str, Any]:
    """The stages of dvc.lock."""
    text = _read_file(
        files, "dvc.lock", lambda: f"{name}: no dvc.lock, so the pipeline was never run there; {_rerun_hint(name)}"
    )
    return parse_lock(text.decode("utf-8", errors="replace"), f"{name}: dvc.lock")


def _read_file(files: DVCFileSystem, path: str, missing_message: Callable[[], str]) -> bytes:
    try:
        with files.open(path, "rb") as file:
            return bytes(file.read())
    except FileNotFoundError:
        raise DataError(missing_message()) from None
    except ImportError as error:  # DVC's plugin for the remote
        raise ConfigError(
            f"DVC cannot read the remote: {error}. Install it, for example: pip install 'dvc[s3]'"
        ) from None
    except (DvcException, OSError) as error:
        raise DataError(f"{missing_message()}\n({error})") from None


def _recorded_output(lock: dict[str, Any], path: str) -> dict[str, Any]:
    """The entry of an output in dvc.lock; empty if no stage wrote it."""
    return next((out for stage in lock.values() for out in stage.get("outs", []) if out["path"] == path), {})


def _rerun_hint(name: str) -> str:
    if name == WORKSPACE:
        return "run it: dvc repro"
    return f"run it: git checkout {name} (for an experiment: dvc exp apply {name}), then dvc repro"


def _unavailable_message(repo: Repo, name: str, path: str, recorded: bool) -> str:
    if not recorded:
        return f"{name}: dvc.lock does not list {path}, so evaluate never ran there; {_rerun_hint(name)}"
    remotes = repo.config["remote"]
    if not remotes:
        return (
            f"{name}: {path} is not in the local cache, and no DVC remote is configured to pull it from (dvc remote list); "
            f"{_rerun_hint(name)}"
        )
    listing = ", ".join(f"{remote} ({options.get('url')})" for remote, options in remotes.items())
    return (
        f"{name}: {path} is neither in the local cache nor on the DVC remote {listing}. "
        f"Where it was run: dvc push (for an experiment: dvc exp push origin {name}). The leaderboard then downloads it, "
        f"or you can: dvc exp pull origin {name}. Or {_rerun_hint(name)}"
    )


def _provenance(lock: dict[str, Any], instance: str) -> tuple[dict[str, Any], dict[str, str]]:
    """(parameters, inputs) of the predictions. A file that train writes and evaluate reads is not an input."""
    params = {
        key: value
        for name, stage in lock.items()
        if name not in UNRELATED_STAGES[instance]
        for section in stage.get("params", {}).values()
        for key, value in flatten(section).items()
    }
    stages = [lock[name] for name in PREDICTION_STAGES[instance] if name in lock]
    outputs = {out["path"] for stage in stages for out in stage.get("outs", [])}
    deps = [dep for stage in stages for dep in stage.get("deps", [])]
    return params, {dep["path"]: dep.get("md5", "") for dep in deps if dep["path"] not in outputs}


def parse_predictions(text: bytes, source: str) -> list[Prediction]:
    """The rows of a predictions file. Raises DataError, with `source` in the message, if they cannot be compared."""
    lines = enumerate(text.split(b"\n"), start=1)
    rows = [parse_json_object(line, f"{source}, line {number}") for number, line in lines if line.strip()]
    if not rows:
        raise DataError(f"{source} has no rows; run evaluate there again: dvc repro")
    _require_valid_rows(rows, source)
    return rows


def _require_valid_rows(rows: list[Prediction], source: str) -> None:
    """Raise DataError at the first row that cannot be identified, compared or scored."""
    has_answers = "prediction" in rows[0]
    row_numbers: dict[Any, int] = {}
    for number, row in enumerate(rows, start=1):
        location = f"{source}, row {number}"
        if not isinstance(row.get("id"), int | str):
            raise DataError(
                f"{location}: id is {row.get('id')!r}; expected a number or string that identifies the test row"
            )
        if row["id"] in row_numbers:
            raise DataError(
                f"{location}: id {row['id']!r} is already in row {row_numbers[row['id']]}; expected one row per test row"
            )
        row_numbers[row["id"]] = number
        if not isinstance(row.get("reference"), str):
            raise DataError(f"{location}: no reference; expected the text to compare the answer with")
        if isinstance(row.get("prediction"), str) != has_answers:
            raise DataError(f"{location}: {'no' if has_answers else 'a'} prediction, unlike the rows before it")
        invalid = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        if invalid:
            raise DataError(f"{location}: {invalid[0]} is {row[invalid[0]]}; expected a finite number")
