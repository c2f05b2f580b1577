"""Downloads one file of the Hub into the Hub's cache: resumed, retried, and accepted only if size and hash are right.

huggingface_hub itself resumes only within one process, gives up on a 5xx and on a reset connection, and checks no hash.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # the library re-exports them without __all__
    WeakFileLock,
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    parse_ratelimit_headers,
)
from tqdm import tqdm

from pipeline.core.console import printable
from pipeline.core.files import name_file_in_errors
from pipeline.errors import PipelineError

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_DELAYS = (1, 2, 4, 8, 16)  # seconds before each retry; they start over after MIN_PROGRESS more bytes
MAX_RETRY_AFTER = 300  # seconds; the Hub counts its rate limits over five minutes
MIN_PROGRESS = 1 << 20  # bytes
DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


class RemoteFile(NamedTuple):
    """A file as the Hub lists it. `digest` is SHA-256 for LFS files, else git's SHA-1; it names the blob in the cache."""

    path: str
    size: int
    digest: str


class DamagedFileError(PipelineError):
    """A file's content does not match the Hub's listing."""


def retry(
    label: str, attempt: Callable[[], T], *, bytes_done: Callable[[], int] = lambda: 0, retry_connect: bool = True
) -> T:
    """Return the attempt's result; retry on 429, 5xx and dropped connections, and log each wait.

    `bytes_done` reports the progress of a download. `retry_connect` also retries when no connection can be made.
    Raises the last error once all retries are used up, and any other error at once.
    """
    delays, done = iter(RETRY_DELAYS), bytes_done()
    while True:
        try:
            return attempt()
        except (httpx2.HTTPError, LocalEntryNotFoundError) as error:
            if bytes_done() - done >= MIN_PROGRESS:
                delays, done = iter(RETRY_DELAYS), bytes_done()
            reason, delay = _retry_reason(error, retry_connect), next(delays, None)
            retry_after = retry_after_seconds(error)
            if reason is None or delay is None or retry_after > MAX_RETRY_AFTER:
                raise
        seconds = max(delay, retry_after)
        log.info(f"{label}: {reason}; trying again in {seconds} s")
        time.sleep(seconds)


def _retry_reason(error: Exception, retry_connect: bool) -> str | None:
    """Why a retry may succeed; None if it cannot."""
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        return f"the Hub answers {status}" if status in (408, 429) or status >= 500 else None
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
        return "no connection to the Hub" if retry_connect else None
    dropped = isinstance(cause, httpx2.NetworkError | httpx2.TimeoutException | httpx2.RemoteProtocolError)
    return f"the connection was dropped ({type(cause).__name__})" if dropped else None


def retry_after_seconds(error: Exception) -> int:
    """The seconds that the Hub asks to wait; 0 if it asks for nothing."""
    if not isinstance(error, HfHubHTTPError):
        return 0
    headers = error.response.headers
    if (seconds := headers.get("Retry-After", "")).isdecimal():
        return int(seconds)
    limit = parse_ratelimit_headers(headers)
    return limit.reset_in_seconds if limit and limit.remaining == 0 else 0


def download(file: RemoteFile, url: str, blob: Path, lock: Path) -> None:
    """Download a file to its blob, resuming where an earlier run stopped; `lock` serializes processes that want the same.

    A partial download stays beside the blob as BLOB.incomplete. Raises DamagedFileError if two downloads do not match the
    listing, OSError if the file cannot be written.
    """
    partial = blob.with_name(f"{blob.name}.incomplete")
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock), name_file_in_errors(partial):
        for is_last in (False, True):
            if blob.exists():  # another process was faster
                return
            problem = _complete(file, url, partial)
            if problem is None:
                partial.replace(blob)
                return
            partial.unlink()
            log.info(f"{file.path}: {problem}{'' if is_last else '; downloading it again'}")
    raise DamagedFileError(
        f"{file.path} was downloaded twice and does not match the Hub's listing: {problem}. "
        "Try again later, or report it to the owner of the repository"
    )


def _complete(file: RemoteFile, url: str, partial: Path) -> str | None:
    """Download the rest of a partial file; return how it differs from the listing, or None."""

    def size() -> int:
        return partial.stat().st_size if partial.exists() else 0

    with suppress(_TruncatedResponse):
        retry(file.path, lambda: _append_rest(file, url, partial, size()), bytes_done=size)
    if size() != file.size:
        return f"{size():,} bytes instead of {file.size:,}"
    return None if matches_digest(partial, file.digest) else f"its hash is not {file.digest[:12]}…"


class _TruncatedResponse(httpx2.RemoteProtocolError):
    """A response ended properly, but too early."""


def _append_rest(file: RemoteFile, url: str, partial: Path, start: int) -> None:
    """Append the missing bytes to the partial file; rewrite it if the server does not support ranges."""
    if start >= file.size > 0:
        return
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the Hub's file ends here
        hf_raise_for_status(response)
        resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT
        name, received = printable(file.path), start * resumed
        bar = tqdm(total=file.size, initial=received, desc=name, unit="B", unit_scale=True, disable=None)
        with partial.open("ab" if resumed else "wb") as part, bar:
            for block in response.iter_bytes():
                part.write(block)
                part.flush()  # a killed process resumes from here
                bar.update(len(block))
                if part.tell() > file.size:
                    return
            if part.tell() < file.size:
                raise _TruncatedResponse(f"{part.tell()} of {file.size} bytes")


def matches_digest(file: Path, digest: str) -> bool:
    """Whether a file has the digest; True if that is neither a SHA-256 nor the SHA-1 of a git blob."""
    if not DIGEST.fullmatch(digest):
        return True
    with file.open("rb") as stream:
        blob = hashlib.sha256() if len(digest) == 64 else hashlib.sha1(b"blob %d\0" % file.stat().st_size)
        return hashlib.file_digest(stream, lambda: blob).hexdigest() == digest
