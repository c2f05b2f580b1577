"""Downloads snapshots from the Hugging Face Hub; HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE work as usual.

Snapshots are stored in the Hub's cache in huggingface_hub's own layout, in which each blob is named after its hash.
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
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # the library re-exports them without __all__
    disable_progress_bars,
    filter_repo_objects,
    get_token_to_send,
)
from huggingface_hub.utils import logging as hub_logging

from pipeline.core.files import atomic_write
from pipeline.errors import DataError, ModelError, PipelineError
from pipeline.fetch.downloads import DIGEST, DamagedFileError, RemoteFile, download, matches_digest, retry
from pipeline.fetch.hub_errors import explain_hub_error, summarize_error
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)

PICKLE_PATTERNS = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib"]
# Never downloaded: pickles, which are unsafe to open, code, which is never run, and weights in other formats.
IGNORE_PATTERNS = {
    "model": [*PICKLE_PATTERNS, "*.h5", "*.msgpack", "*.onnx", "*.py", "*.gguf", "consolidated*", "*/*"],
    "dataset": [*PICKLE_PATTERNS, "*.py"],
}
# What huggingface_hub and its client raise if the Hub cannot be reached or does not send a file.
UNAVAILABLE_ERRORS = (httpx2.HTTPError, httpx2.InvalidURL, LocalEntryNotFoundError, OfflineModeIsEnabled)
NOT_A_HUB = "the server that answers is not a hub"


def fetch_snapshot(name: str, revision: str, kind: str) -> Path:
    """The folder of a repository's snapshot, named after the resolved commit; taken from the cache if it is there.

    Every file has the hash that the Hub lists for it. `kind` is "dataset" or "model". Raises DataError or ModelError, by
    kind, with a message for the user.
    """
    disable_progress_bars()  # downloads.py shows its own
    hub_logging.disable_propagation()  # the library already writes its log lines itself
    error_type: type[PipelineError] = DataError if kind == "dataset" else ModelError
    section = "data" if kind == "dataset" else "model"
    try:
        try:
            return _download_snapshot(name, revision, kind)
        except (RevisionNotFoundError, HFValidationError):
            raise
        except UNAVAILABLE_ERRORS as error:
            return _cached_snapshot(name, revision, kind, error)
    except DamagedFileError as error:
        raise error_type(f"{section}.name: {name}: {error}") from None
    except (HFValidationError, *UNAVAILABLE_ERRORS) as error:
        raise error_type(f"{section}.{explain_hub_error(error, name, revision, kind)}") from None


def _download_snapshot(name: str, revision: str, kind: str) -> Path:
    """Download the files that the cache lacks or holds damaged; the library then lays out the snapshot."""
    commit, files = retry(name, lambda: _list_files(name, revision, kind), retry_connect=False)
    _require_safe_weights(name, [file.path for file in files], kind)
    cache = _cache_folder(name, kind)
    missing = [file for file in files if _is_wanted(file.path, kind) and not _is_cached(cache, commit, file)]
    if missing:
        size = sum(file.size for file in missing)
        log.info(f"Downloading {size:,} bytes in {format_names([file.path for file in missing])}")
    for file in missing:
        lock = cache.parent / ".locks" / cache.name / f"{file.digest}.lock"
        url = hf_hub_url(name, file.path, repo_type=kind, revision=commit)
        download(file, url, cache / "blobs" / file.digest, lock)
    folder = retry(
        name, lambda: snapshot_download(name, repo_type=kind, revision=commit, ignore_patterns=IGNORE_PATTERNS[kind])
    )
    if revision != commit:
        _write_ref(cache / "refs" / revision, commit)
    return Path(folder)


def _write_ref(ref: Path, commit: str) -> None:
    """Record the commit that a branch or tag refers to, for offline runs."""
    if not ref.exists() or ref.read_text(encoding="utf-8") != commit:  # a read-only cache needs no write
        with atomic_write(ref) as temporary:
            temporary.write_text(commit, encoding="utf-8")


def _list_files(name: str, revision: str, kind: str) -> tuple[str, list[RemoteFile]]:
    """The commit of a revision, and its files for which the Hub lists size and hash."""
    token = get_token_to_send(None) or ""
    if not (token.isascii() and token.isprintable()):  # the client would log it in its error
        raise httpx2.LocalProtocolError("no token")
    api = HfApi()
    repo_info = api.dataset_info if kind == "dataset" else api.model_info
    try:
        info = repo_info(name, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (json.JSONDecodeError, KeyError, TypeError) as error:  # such as a network's login page
        raise httpx2.DecodingError(NOT_A_HUB) from error
    commit = info.sha or ""
    if not DIGEST.fullmatch(commit):
        raise httpx2.DecodingError(NOT_A_HUB)
    files = []
    for file in info.siblings or []:
        size, digest = (file.lfs.size, file.lfs.sha256) if file.lfs else (file.size, file.blob_id)
        # Path and digest become file names here, so a listing must not point out of the cache.
        is_inside = not file.rfilename.startswith("/") and ".." not in file.rfilename.split("/")
        if is_inside and size is not None and digest and DIGEST.fullmatch(digest):
            files.append(RemoteFile(file.rfilename, size, digest))
    return commit, files


def _cache_folder(name: str, kind: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)


def _is_wanted(path: str, kind: str) -> bool:
    return any(filter_repo_objects([path], ignore_patterns=IGNORE_PATTERNS[kind]))


def _is_cached(cache: Path, commit: str, file: RemoteFile) -> bool:
    """Whether the cache has an undamaged copy of the file; a damaged copy is removed."""
    for copy in (cache / "snapshots" / commit / file.path, cache / "blobs" / file.digest):
        if copy.exists():
            if matches_digest(copy, file.digest):
                return True
            log.info(f"{file.path} is damaged in the cache; downloading it again")
            copy.resolve().unlink()
            copy.unlink(missing_ok=True)
    return False


def _cached_snapshot(name: str, revision: str, kind: str, hub_error: Exception) -> Path:
    """The snapshot that an earlier run downloaded completely. Raises `hub_error` if there is none."""
    try:
        folder = Path(
            snapshot_download(
                name, repo_type=kind, revision=revision, ignore_patterns=IGNORE_PATTERNS[kind], local_files_only=True
            )
        )
    except LocalEntryNotFoundError:
        raise hub_error from None
    for file in sorted(folder.rglob("*")):
        # On systems without symbolic links, the files are not named after their hashes and cannot be checked.
        is_checked = file.is_symlink() and _is_wanted(file.relative_to(folder).as_posix(), kind)
        if is_checked and not matches_digest(file, os.readlink(file).rpartition("/")[2]):
            raise DamagedFileError(
                f"{file} is damaged: its content does not have the hash that it is named after. "
                "Run it again when the Hub can be reached, to download the file again"
            )
    if not isinstance(hub_error, OfflineModeIsEnabled):
        log.info(
            f"Using {name} at {folder.name} from the cache: the Hub is not available ({summarize_error(hub_error)})"
        )
    return folder


def skipped_files(name: str, commit: str, kind: str) -> list[str]:
    """The pickles and code in the repository of a cached snapshot, which were not downloaded."""
    try:
        tree = get_cached_repo_tree(name, repo_type=kind, revision=commit)
    except CachedRepoTreeNotFoundError:
        return []
    return list(filter_repo_objects((file.path for file in tree), allow_patterns=[*PICKLE_PATTERNS, "*.py"]))


def _require_safe_weights(name: str, paths: list[str], kind: str) -> None:
    pickles = list(filter_repo_objects(paths, allow_patterns=PICKLE_PATTERNS, ignore_patterns=["*/*"]))
    safetensors = filter_repo_objects(paths, allow_patterns="*.safetensors", ignore_patterns="*/*")
    if kind == "model" and pickles and not any(safetensors):
        raise ModelError(
            f"model.name: {name} has only pickled weights ({format_names(pickles)}), which can run code when loaded. "
            "Convert them if you trust them: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…) writes "
            "safetensors; then use model=folder"
        )
