"""pipeline/fetch/downloads.py: retries, resumed and damaged downloads, with the real client and a hub that fails on request."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from support.hub import COMMIT, Failure, Hub, etag
from support.project import environment
from support.snapshots import (
    BLOB,
    BODY,
    CARD,
    FILES,
    HEAD,
    LISTING,
    NAME,
    ROWS,
    ROWS_BODY,
    fetch_error,
    fetch_files,
)

from pipeline.fetch import downloads

REQUESTS = {"listing": LISTING, "metadata": HEAD, "body": BODY}
TRANSIENT = {
    "429": Failure("", 429),
    "429 with Retry-After": Failure("", 429, {"Retry-After": "7"}),
    "429 with a rate limit": Failure("", 429, {"RateLimit": '"api";r=0;t=55'}),
    "500": Failure("", 500),
    "503": Failure("", 503),
    "504": Failure("", 504),
    "no answer": Failure("", drop=-1),
    "closed in the middle": Failure("", drop=10),
    "reset in the middle": Failure("", drop=10, reset=True),
}
DELAYS = {"429 with Retry-After": 7, "429 with a rate limit": 55}


@pytest.mark.parametrize("name", TRANSIENT)
@pytest.mark.parametrize("request_prefix", REQUESTS.values(), ids=REQUESTS)
def test_transient_errors_are_retried(hub: Hub, sleeps: list[float], request_prefix: str, name: str) -> None:
    hub.failures = [TRANSIENT[name]._replace(on=request_prefix)]
    assert fetch_files() == FILES
    assert hub.failures == []
    if request_prefix != HEAD:  # the library itself repeats this request at once
        assert sleeps == [DELAYS.get(name, 1)]


def test_each_wait_is_logged(hub: Hub, sleeps: list[float], log_lines: Callable[[], list[str]]) -> None:
    hub.failures = [Failure(LISTING, 503), Failure(ROWS_BODY, 429, {"Retry-After": "7"}), Failure(BODY, 502, times=2)]
    assert fetch_files() == FILES
    assert log_lines() == [
        "owner/rows: the Hub answers 503; trying again in 1 s",
        "Downloading 300,021 bytes in README.md, data/train.parquet",
        "README.md: the Hub answers 502; trying again in 1 s",
        "README.md: the Hub answers 502; trying again in 2 s",
        "data/train.parquet: the Hub answers 429; trying again in 7 s",
    ]


@pytest.mark.parametrize("reset", [False, True])
def test_download_resumes_where_the_connection_was_dropped(hub: Hub, sleeps: list[float], reset: bool) -> None:
    hub.failures = [Failure(ROWS_BODY, drop=200_000, reset=reset)]
    assert fetch_files() == FILES
    (requested,) = hub.ranges
    if not reset:  # a reset loses the bytes in transit
        assert requested == "bytes=200000-"
    assert sleeps == [1]


def test_without_ranges_the_whole_file_is_downloaded_again(hub: Hub, sleeps: list[float]) -> None:
    hub.supports_ranges = False
    hub.failures = [Failure(ROWS_BODY, drop=200_000)]
    assert fetch_files() == FILES
    assert hub.ranges == ["bytes=200000-"]
    assert len(hub.downloads()) == 3  # the card, a part of the rows, the rows


def test_retries_start_over_while_a_download_makes_progress(
    hub: Hub, sleeps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "MIN_PROGRESS", 10_000)
    hub.failures = [Failure(ROWS_BODY, drop=30_000, times=9)]
    assert fetch_files() == FILES
    assert sleeps == [1] * 9
    assert len(hub.ranges) == 9


@pytest.mark.parametrize(
    "failure", [Failure("", 503, times=99), Failure("", drop=-1, times=99)], ids=["503", "no answer"]
)
@pytest.mark.parametrize("on", [LISTING, BODY], ids=["listing", "body"])
def test_retries_end_and_the_next_run_starts_fresh(
    hub: Hub, sleeps: list[float], on: str, failure: Failure, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.failures = [failure._replace(on=on)]
    reason = "HTTP 503 Service Unavailable" if failure.status else "RemoteProtocolError"
    assert fetch_error() == (
        f"data.name: owner/rows at main is not in the cache and cannot be downloaded ({reason}). Check the connection "
        "and HF_ENDPOINT, and HF_HUB_OFFLINE if it is set; a download resumes where it was interrupted"
    )
    assert sleeps == [1, 2, 4, 8, 16]
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "owner/rows at main is not in the cache" in fetch_error()
    hub.failures = []
    assert fetch_files() == FILES


def test_a_retry_after_of_an_hour_is_an_error_at_once(hub: Hub, sleeps: list[float]) -> None:
    hub.failures = [Failure(BODY, 429, {"Retry-After": "3600"})]
    assert "cannot be downloaded (HTTP 429 Too Many Requests, retry after 3,600 s)" in fetch_error()
    assert sleeps == []


def test_a_truncated_file_is_completed(hub: Hub, sleeps: list[float]) -> None:
    hub.failures = [Failure(ROWS_BODY, body=lambda content: content[:-100])]
    assert fetch_files() == FILES
    assert hub.ranges == ["bytes=299900-"]


DAMAGED = {
    "truncated": (lambda content: content[:-100], "299,900 bytes instead of 300,000"),
    "too long": (lambda content: content + b"more", "300,004 bytes instead of 300,000"),
    "another content": (lambda content: content[:-1] + b"?", f"its hash is not {BLOB[:12]}…"),
}


@pytest.mark.parametrize(("body", "problem"), DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_does_not_match_the_listing_is_not_kept(
    hub: Hub, sleeps: list[float], cache: Path, body: Callable[[bytes], bytes], problem: str
) -> None:
    hub.failures = [Failure(ROWS_BODY, body=body, times=99)]
    assert fetch_error() == (
        "data.name: owner/rows: data/train.parquet was downloaded twice and does not match the Hub's listing: "
        f"{problem}. Try again later, or report it to the owner of the repository"
    )
    assert not any(cache.rglob(f"{BLOB}*"))
    assert not (cache / "snapshots").exists()
    hub.failures = []
    assert fetch_files() == FILES


def test_a_file_that_is_damaged_once_is_downloaded_again(
    hub: Hub, sleeps: list[float], log_lines: Callable[[], list[str]]
) -> None:
    hub.failures = [Failure(f"{BODY}/resolve/{COMMIT}/README.md", body=lambda content: content.upper())]
    assert fetch_files() == FILES
    assert f"README.md: its hash is not {etag('', CARD)[:12]}…; downloading it again" in log_lines()


KILLED = """
import os, signal
from tqdm import tqdm
from pipeline.fetch import downloads
from pipeline.fetch import hub

class Fatal(tqdm):
    def update(self, n=1):
        os.kill(os.getpid(), signal.SIGKILL)

downloads.tqdm = Fatal
hub.fetch_snapshot("owner/rows", "main", "dataset")
"""


def test_the_next_run_resumes_a_killed_download(hub: Hub, cache: Path) -> None:
    """A real process, killed as soon as it has some of the file."""
    (hub.root / "datasets" / NAME / "README.md").unlink()
    variables = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache.parents[1])}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment(**variables), check=False, timeout=600)
    assert killed.returncode == -signal.SIGKILL
    part = (cache / f"blobs/{BLOB}.incomplete").read_bytes()
    assert 0 < len(part) < len(ROWS)
    assert ROWS.startswith(part)
    assert fetch_files() == {"data/train.parquet": ROWS}
    assert hub.ranges == [f"bytes={len(part)}-"]
    assert [path.name for path in (cache / "blobs").iterdir()] == [BLOB]


def test_a_partial_download_that_is_damaged_is_discarded(hub: Hub, cache: Path) -> None:
    (cache / "blobs").mkdir(parents=True)
    for part in (b"?" * 1000, b"?" * len(ROWS), b"?" * (len(ROWS) + 1)):
        (cache / f"blobs/{BLOB}.incomplete").write_bytes(part)
        assert fetch_files() == FILES
        (cache / "blobs" / BLOB).unlink()
