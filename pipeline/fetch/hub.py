"""Snapshots from the Hugging Face hub, which HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE steer as usual.

They lie in the hub's cache as huggingface_hub lays them out; what a file there is named after tells what it must hold.
"""

import json
import logging
import os
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, get_cached_repo_tree, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import disable_progress_bars, filter_repo_objects, get_token_to_send
from huggingface_hub.utils import logging as hub_logging

from pipeline.core.files import atomic_write
from pipeline.errors import DataError, ModelError, PipelineError
from pipeline.fetch.downloads import HASH, DamagedError, RemoteFile, download, matches_digest, retry
from pipeline.fetch.hub_errors import explain_hub_error, summarize_error
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)

PICKLED = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib"]
# Neither pickled data or weights nor code: the one is unsafe to open, the other never run.
IGNORED = {
    "model": [*PICKLED, "*.h5", "*.msgpack", "*.onnx", "*.py", "*.gguf", "*/*"],
    "dataset": [*PICKLED, "*.py"],
}
# What huggingface_hub and its client raise where the hub sends nothing.
UNSENT = (httpx2.HTTPError, httpx2.InvalidURL, LocalEntryNotFoundError, OfflineModeIsEnabled)
NO_HUB = "what answers is no hub"


def fetch_snapshot(name: str, revision: str, kind: str) -> Path:
    """The folder of a repository's snapshot, named after the resolved commit; from the cache where it is there.

    Every file that is wanted has the hash that the hub lists for it. `kind` is "dataset" or "model". Raises DataError
    or ModelError, by kind, in words for the user.
    """
    disable_progress_bars()  # our own tell what is downloaded
    hub_logging.disable_propagation()  # it writes each line itself
    fault: type[PipelineError] = DataError if kind == "dataset" else ModelError
    section = "data" if kind == "dataset" else "model"
    try:
        try:
            return _from_hub(name, revision, kind)
        except (RevisionNotFoundError, HFValidationError):
            raise
        except UNSENT as error:
            return _from_cache(name, revision, kind, error)
    except DamagedError as error:
        raise fault(f"{section}.name: {name}: {error}") from None
    except (HFValidationError, *UNSENT) as error:
        raise fault(f"{section}.{explain_hub_error(error, name, revision, kind)}") from None


def _from_hub(name: str, revision: str, kind: str) -> Path:
    """Bring what the cache lacks or holds damaged; the library lays out the snapshot when all of it is there."""
    commit, files = retry(name, lambda: _listing(name, revision, kind), connecting=False)
    wanted = [file for file in files if _is_wanted(file.path, kind)]
    _require_safe_weights(name, [file.path for file in files], kind)
    repository = _repository(name, kind)
    lacking = [file for file in wanted if not _is_there(repository, commit, file)]
    if lacking:
        log.info(
            f"Downloading {sum(file.size for file in lacking):,} bytes in {format_names([f.path for f in lacking])}"
        )
    for file in lacking:
        lock = repository.parent / ".locks" / repository.name / f"{file.digest}.lock"
        url = hf_hub_url(name, file.path, repo_type=kind, revision=commit)
        download(file, url, repository / "blobs" / file.digest, lock)
    folder = retry(
        name, lambda: snapshot_download(name, repo_type=kind, revision=commit, ignore_patterns=IGNORED[kind])
    )
    if revision != commit:
        _refer(repository / "refs" / revision, commit)
    return Path(folder)


def _refer(branch: Path, commit: str) -> None:
    """Make a branch stand, offline, for the commit that was last brought whole."""
    if not branch.exists() or branch.read_text(encoding="utf-8") != commit:  # the cache may be one that is only read
        with atomic_write(branch) as reference:
            reference.write_text(commit, encoding="utf-8")


def _listing(name: str, revision: str, kind: str) -> tuple[str, list[RemoteFile]]:
    """The commit of a revision, and its files as far as the hub says what they hold."""
    token = get_token_to_send(None) or ""
    if not (token.isascii() and token.isprintable()):  # the client would log it as what it cannot send
        raise httpx2.LocalProtocolError("no token")
    try:
        info = HfApi().repo_info(
            name, repo_type=kind, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    except (json.JSONDecodeError, KeyError, TypeError) as error:  # a page to log in to a network, for example
        raise httpx2.DecodingError(NO_HUB) from error
    if not HASH.fullmatch(info.sha or ""):
        raise httpx2.DecodingError(NO_HUB)
    files = []
    for file in info.siblings or []:
        size, digest = (file.lfs.size, file.lfs.sha256) if file.lfs else (file.size, file.blob_id)
        # Both become names of files here, and the hub is not trusted with where.
        inside = not file.rfilename.startswith("/") and ".." not in file.rfilename.split("/")
        if inside and size is not None and digest and HASH.fullmatch(digest):
            files.append(RemoteFile(file.rfilename, size, digest))
    return info.sha, files


def _repository(name: str, kind: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)


def _is_wanted(path: str, kind: str) -> bool:
    return any(filter_repo_objects([path], ignore_patterns=IGNORED[kind]))


def _is_there(repository: Path, commit: str, file: RemoteFile) -> bool:
    """Whether the cache has the file, whole; one that is damaged is removed."""
    for place in (repository / "snapshots" / commit / file.path, repository / "blobs" / file.digest):
        if place.exists():
            if matches_digest(place, file.digest):
                return True
            log.info(f"{file.path} is damaged in the cache; fetching it anew")
            place.resolve().unlink()
            place.unlink(missing_ok=True)
    return False


def _from_cache(name: str, revision: str, kind: str, why: Exception) -> Path:
    """The snapshot that an earlier run brought whole; the error that sent us here if there is none."""
    try:
        folder = Path(
            snapshot_download(
                name, repo_type=kind, revision=revision, ignore_patterns=IGNORED[kind], local_files_only=True
            )
        )
    except LocalEntryNotFoundError:
        raise why from None
    for file in sorted(folder.rglob("*")):
        # Where the system knows no links, files do not bear the names of their hashes.
        checked = file.is_symlink() and _is_wanted(file.relative_to(folder).as_posix(), kind)
        if checked and not matches_digest(file, os.readlink(file).rpartition("/")[2]):
            raise DamagedError(
                f"{file} is damaged: its content has not the hash that it is named after. "
                "Run this again when the hub can be reached, and it is fetched anew"
            )
    if not isinstance(why, OfflineModeIsEnabled):
        log.info(f"The hub does not send it ({summarize_error(why)}): taking {name} at {folder.name} from the cache")
    return folder


def skipped_files(name: str, commit: str, kind: str) -> list[str]:
    """The files of a cached snapshot's repository that are pickled or code, and so stayed where they are."""
    try:
        tree = get_cached_repo_tree(name, repo_type=kind, revision=commit)
    except CachedRepoTreeNotFoundError:
        return []
    return list(filter_repo_objects((file.path for file in tree), allow_patterns=[*PICKLED, "*.py"]))


def _require_safe_weights(name: str, paths: list[str], kind: str) -> None:
    pickled = list(filter_repo_objects(paths, allow_patterns=PICKLED, ignore_patterns=["*/*"]))
    safe = filter_repo_objects(paths, allow_patterns="*.safetensors", ignore_patterns="*/*")
    if kind == "model" and pickled and not any(safe):
        raise ModelError(
            f"model.name: {name} has pickled weights only ({format_names(pickled)}), which can run code when opened. "
            "Convert them where you trust them: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…) writes "
            "safetensors; then model=folder"
        )
