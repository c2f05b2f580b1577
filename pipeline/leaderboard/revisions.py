"""Git revisions, DVC experiments and the workspace: what dvc.lock records there, and the files, through DVC.

DVC reads files from the cache, or else from the remotes configured now, which may be newer than the revision. Each is compared
with its hash in dvc.lock.
"""

import difflib
import hashlib
from typing import Any

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.scm import NoSCMError, RevError, resolve_rev
from scmrepo.exceptions import SCMError

from pipeline.core.recorded_outputs import cached_object, is_damaged_object, parse_lock
from pipeline.errors import ConfigError, DataError

WORKSPACE = "workspace"


def open_repository() -> Repo:
    """The DVC repository of the working directory. Raises ConfigError if it is not one, or has no commit."""
    try:
        repo = Repo(".")
    except NotDvcRepoError:
        raise ConfigError("no DVC project here; run this command in the project's root") from None
    except DvcException as error:
        raise ConfigError(f"DVC cannot open the project: {error}") from None
    try:
        repo.scm.get_rev()
    except (NoSCMError, SCMError) as error:
        repo.close()
        raise ConfigError(f"this command needs a git repository with at least one commit: {error}") from None
    return repo


class Revision:
    """A branch, a tag, HEAD~3, a commit, the name of an experiment, or `workspace` for the current files.

    `commit` spares the search for the name. Raises ConfigError if there is none of this name, DataError if the pipeline was
    never run there.
    """

    def __init__(self, repo: Repo, name: str, commit: str | None = None) -> None:
        self.repo, self.name = repo, name
        self.commit = commit or ("" if name == WORKSPACE else resolve_commit(repo, name))
        # The current remotes: those of the commit may be outdated and lack credentials.
        current = {section: dict(repo.config[section]) for section in ("core", "remote", "cache")}
        self.files = DVCFileSystem(repo.root_dir, rev=self.commit or None, config=current)
        lock = self._read("dvc.lock", f"{name}: no dvc.lock, so the pipeline was never run there; {rerun_hint(name)}")
        self.stages = parse_lock(lock.decode("utf-8", errors="replace"), f"{name}: dvc.lock")

    def close(self) -> None:
        self.files.close()

    @property
    def label(self) -> str:
        return f"{self.name} ({self.commit[:7]})" if self.commit and self.commit != self.name else self.name

    def recorded_output(self, path: str) -> dict[str, Any]:
        """The entry of an output in dvc.lock; empty if no stage wrote it."""
        outs = (out for stage in self.stages.values() for out in stage.get("outs", []))
        return next((out for out in outs if out["path"] == path), {})

    def read(self, path: str) -> bytes:
        """The content of an output. Raises DataError if it cannot be read, or is not what dvc.lock records."""
        output = self.recorded_output(path)
        content = self._read(path, _unavailable_message(self.repo, self.name, path, bool(output)))
        _require_recorded_hash(content, output, self.name)
        return content

    def read_tracked(self, path: str) -> bytes:
        """The content of a file in git. Raises DataError if there is none."""
        return self._read(path, f"{self.name}: {path} is missing; {rerun_hint(self.name)}")

    def _read(self, path: str, missing: str) -> bytes:
        try:
            with self.files.open(path, "rb") as file:
                return bytes(file.read())
        except FileNotFoundError:
            raise DataError(missing) from None
        except ImportError as error:  # DVC's plugin for the remote
            raise ConfigError(
                f"DVC cannot read the remote: {error}. Install it, for example: pip install 'dvc[s3]'"
            ) from None
        except (DvcException, OSError) as error:
            raise DataError(f"{missing}\n({error})") from None


def resolve_commit(repo: Repo, name: str) -> str:
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


def rerun_hint(name: str) -> str:
    if name == WORKSPACE:
        return "run it: dvc repro"
    return f"run it: git checkout {name} (for an experiment: dvc exp apply {name}), then dvc repro"


def _unavailable_message(repo: Repo, name: str, path: str, recorded: bool) -> str:
    if not recorded:
        return f"{name}: dvc.lock does not list {path}, so it was never written there; {rerun_hint(name)}"
    remotes = repo.config["remote"]
    if not remotes:
        return (
            f"{name}: {path} is not in the local cache, and no DVC remote is configured to pull it from (dvc remote list); "
            f"{rerun_hint(name)}"
        )
    listing = ", ".join(f"{remote} ({options.get('url')})" for remote, options in remotes.items())
    return (
        f"{name}: {path} is neither in the local cache nor on the DVC remote {listing}. "
        f"Where it was run: dvc push (for an experiment: dvc exp push origin {name}). The leaderboard then downloads it, "
        f"or you can: dvc exp pull origin {name}. Or {rerun_hint(name)}"
    )
