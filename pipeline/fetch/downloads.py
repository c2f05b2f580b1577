"""One file of the hub into its cache: resumed where it broke off, waited for, and taken only if size and hash are right.

huggingface_hub resumes within a process alone, gives up on a 5xx and on a reset connection, and checks no hash.
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
from huggingface_hub.utils import (
    WeakFileLock,
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    parse_ratelimit_headers,
)
from tqdm import tqdm

from pipeline.core.files import attach_path_to_os_error
from pipeline.errors import PipelineError

log = logging.getLogger(__name__)
T = TypeVar("T")

WAITS = (1, 2, 4, 8, 16)  # seconds before each further attempt; all of them again once a file has grown by PROGRESS
LONGEST = 300  # seconds that the hub may ask to wait: its rate limits are counted over five minutes
PROGRESS = 1 << 20  # bytes
HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


class RemoteFile(NamedTuple):
    """A file as the hub lists it; the digest, its blob's name in the cache, is SHA-256 (of LFS files) or git's SHA-1."""

    path: str
    size: int
    digest: str


class DamagedError(PipelineError):
    """What the hub sends is not what it lists."""


def retry(what: str, attempt: Callable[[], T], *, reached: Callable[[], int] = lambda: 0, connecting: bool = True) -> T:
    """The attempt's result; 429, 5xx and dropped connections are waited out, each wait told in a line.

    `reached`: bytes that are there so far. `connecting`: wait for a hub that cannot be connected to, too.
    The last error is raised when patience is at its end, any other at once.
    """
    waits, before = iter(WAITS), reached()
    while True:
        try:
            return attempt()
        except (httpx2.HTTPError, LocalEntryNotFoundError) as error:
            if reached() - before >= PROGRESS:
                waits, before = iter(WAITS), reached()
            why, wait = _passing(error, connecting), next(waits, None)
            asked = retry_after_seconds(error)
            if why is None or wait is None or asked > LONGEST:
                raise
        pause = max(wait, asked)
        log.info(f"{what}: {why}; trying again in {pause} s")
        time.sleep(pause)


def _passing(error: Exception, connecting: bool) -> str | None:
    """What happened, if it passes by itself."""
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        return f"the hub answers {status}" if status in (408, 429) or status >= 500 else None
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
        return "no connection to the hub" if connecting else None
    dropped = isinstance(cause, httpx2.NetworkError | httpx2.TimeoutException | httpx2.RemoteProtocolError)
    return f"the connection was dropped ({type(cause).__name__})" if dropped else None


def retry_after_seconds(error: Exception) -> int:
    """Seconds that the hub asks to wait."""
    if not isinstance(error, HfHubHTTPError):
        return 0
    after, limit = error.response.headers.get("Retry-After", ""), parse_ratelimit_headers(error.response.headers)
    if after.isdecimal():
        return int(after)
    return limit.reset_in_seconds if limit and limit.remaining == 0 else 0


def download(file: RemoteFile, url: str, blob: Path, lock: Path) -> None:
    """Download a file to its blob, resuming what an earlier run left; processes that want the same wait for each other.

    DamagedError if it comes twice with another content than listed, OSError if it cannot be written; a part that came
    stays beside it under a name of its own.
    """
    partial = blob.with_name(f"{blob.name}.incomplete")
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock), attach_path_to_os_error(partial):
        for again in (True, False):
            if blob.exists():  # another process was faster
                return
            found = _downloaded(file, url, partial)
            if found is None:
                partial.replace(blob)
                return
            partial.unlink()
            log.info(f"{file.path}: {found}{'; fetching it again' if again else ''}")
    raise DamagedError(
        f"{file.path} came twice, and is not what the hub lists: {found}. Try again later, or tell whoever keeps it"
    )


def _downloaded(file: RemoteFile, url: str, partial: Path) -> str | None:
    """Fill the partial file; what is wrong with it then, if anything."""

    def reached() -> int:
        return partial.stat().st_size if partial.exists() else 0

    with suppress(_Short):
        retry(file.path, lambda: _stream(file, url, partial, reached()), reached=reached)
    if reached() != file.size:
        return f"{reached():,} bytes came in the place of {file.size:,}"
    return None if matches_digest(partial, file.digest) else f"its hash is not {file.digest[:12]}…"


class _Short(httpx2.RemoteProtocolError):
    """An answer ended in good order, but too early."""


def _stream(file: RemoteFile, url: str, partial: Path, start: int) -> None:
    """Append what is missing to the partial file; a server that knows no ranges sends all of it anew."""
    if start >= file.size > 0:
        return
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the hub has no more of it
        hf_raise_for_status(response)
        resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT
        bar = tqdm(total=file.size, initial=start * resumed, desc=file.path, unit="B", unit_scale=True, disable=None)
        with partial.open("ab" if resumed else "wb") as part, bar:
            for block in response.iter_bytes():
                part.write(block)
                part.flush()  # what came is there to go on from, whatever happens to this process
                bar.update(len(block))
                if part.tell() > file.size:
                    return
            if part.tell() < file.size:
                raise _Short(f"{part.tell()} of {file.size} bytes")


def matches_digest(file: Path, digest: str) -> bool:
    """Whether a file's content has that digest; True if the digest is neither SHA-256 nor git's SHA-1 of a blob."""
    if not HASH.fullmatch(digest):
        return True
    with file.open("rb") as stream:
        blob = hashlib.sha256() if len(digest) == 64 else hashlib.sha1(b"blob %d\0" % file.stat().st_size)
        return hashlib.file_digest(stream, lambda: blob).hexdigest() == digest
