"""What befalls downloads: the hub's real client and ours against a stand-in hub that fails as it is told."""

import json
import logging
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from support.hub import COMMIT, Fault, Hub, etag, serving
from support.project import environment, python_in, run_in

from pipeline.errors import DataError, PipelineError
from pipeline.fetch import downloads
from pipeline.fetch.hub import fetch_snapshot

ROWS, CARD = random.Random(0).randbytes(300_000), b"---\nlicense: mit\n---\n"  # one in LFS, one in git
FILES = {"README.md": CARD, "data/train.parquet": ROWS}
NAME = "owner/rows"
BLOB = etag("train.parquet", ROWS)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one dataset, to which this process's client is turned, with a cache and a login of its own."""
    for name, content in FILES.items():
        (tmp_path / "hub/datasets" / NAME / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub/datasets" / NAME / name).write_bytes(content)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf/hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf/token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(tmp_path / "hub") as served:
        turn_to(served.address, monkeypatch)
        yield served
    close_session()


def turn_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    path = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + path)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were to be waited, by us and by the library; no one waits."""
    seconds: list[float] = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Our own lines."""
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("pipeline")]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hf/hub/datasets--owner--rows"


def brought(revision: str = "main") -> dict[str, bytes]:
    folder = fetch_snapshot(NAME, revision, "dataset")
    assert folder.name == COMMIT
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(revision: str = "main") -> str:
    with pytest.raises(PipelineError) as error:
        fetch_snapshot(NAME, revision, "dataset")
    return str(error.value)


LISTING, HEAD, BODY = "GET /api/datasets/owner/rows/revision", "HEAD /datasets/owner/rows", "GET /datasets/owner/rows"
ROWS_BODY = f"{BODY}/resolve/{COMMIT}/data"
WHERE = {"listing": LISTING, "metadata": HEAD, "body": BODY}
PASSING = {
    "429": Fault("", 429),
    "429 with Retry-After": Fault("", 429, {"Retry-After": "7"}),
    "429 with a rate limit": Fault("", 429, {"RateLimit": '"api";r=0;t=55'}),
    "500": Fault("", 500),
    "503": Fault("", 503),
    "504": Fault("", 504),
    "no answer": Fault("", drop=-1),
    "closed in the middle": Fault("", drop=10),
    "reset in the middle": Fault("", drop=10, reset=True),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("on", WHERE.values(), ids=WHERE)
def test_what_passes_is_waited_out(hub: Hub, slept: list[float], on: str, fault: Fault) -> None:
    hub.faults = [fault._replace(on=on)]
    assert brought() == FILES
    assert hub.faults == []
    if on != HEAD:  # which the library asks a second time at once
        assert slept == [{"429 with Retry-After": 7, "429 with a rate limit": 55}.get(name_of(fault), 1)]


def name_of(fault: Fault) -> str:
    return next(name for name, each in PASSING.items() if each == fault)


def test_each_wait_is_told_in_a_line(hub: Hub, slept: list[float], told: Callable[[], list[str]]) -> None:
    hub.faults = [Fault(LISTING, 503), Fault(ROWS_BODY, 429, {"Retry-After": "7"}), Fault(BODY, 502, times=2)]
    assert brought() == FILES
    assert told() == [
        "owner/rows: the hub answers 503; trying again in 1 s",
        "Downloading 300,021 bytes in README.md, data/train.parquet",
        "README.md: the hub answers 502; trying again in 1 s",
        "README.md: the hub answers 502; trying again in 2 s",
        "data/train.parquet: the hub answers 429; trying again in 7 s",
    ]


@pytest.mark.parametrize("reset", [False, True])
def test_a_download_resumes_where_the_connection_was_dropped(hub: Hub, slept: list[float], reset: bool) -> None:
    hub.faults = [Fault(ROWS_BODY, drop=200_000, reset=reset)]
    assert brought() == FILES
    (part,) = hub.ranges
    if not reset:  # what was on its way is lost with a reset
        assert part == "bytes=200000-"
    assert slept == [1]


def test_a_hub_that_knows_no_ranges_sends_all_of_it_anew(hub: Hub, slept: list[float]) -> None:
    hub.knows_ranges = False
    hub.faults = [Fault(ROWS_BODY, drop=200_000)]
    assert brought() == FILES
    assert hub.ranges == ["bytes=200000-"]
    assert len(hub.downloads()) == 3  # the card, a part of the rows, the rows


def test_patience_begins_again_as_long_as_a_download_grows(
    hub: Hub, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "PROGRESS", 10_000)
    hub.faults = [Fault(ROWS_BODY, drop=30_000, times=9)]
    assert brought() == FILES
    assert slept == [1] * 9
    assert len(hub.ranges) == 9


@pytest.mark.parametrize("fault", [Fault("", 503, times=99), Fault("", drop=-1, times=99)], ids=["503", "no answer"])
@pytest.mark.parametrize("on", [LISTING, BODY], ids=["listing", "body"])
def test_patience_has_an_end_and_the_next_run_is_as_if_nothing_had_been(
    hub: Hub, slept: list[float], on: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults = [fault._replace(on=on)]
    why = "it says 503 Service Unavailable" if fault.status else "RemoteProtocolError"
    assert refused() == (
        f"data.name: owner/rows at main is not in the cache and the hub does not send it ({why}). Check the connection "
        "and HF_ENDPOINT, and HF_HUB_OFFLINE if it is set; a download goes on where it broke off"
    )
    assert slept == [1, 2, 4, 8, 16]
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "owner/rows at main is not in the cache" in refused()
    hub.faults = []
    assert brought() == FILES


def test_a_hub_that_asks_to_wait_for_an_hour_is_not_waited_for(hub: Hub, slept: list[float]) -> None:
    hub.faults = [Fault(BODY, 429, {"Retry-After": "3600"})]
    assert "the hub does not send it (it says 429 Too Many Requests; it asks to wait 3,600 s)" in refused()
    assert slept == []


def test_a_file_that_comes_short_is_completed(hub: Hub, slept: list[float]) -> None:
    hub.faults = [Fault(ROWS_BODY, body=lambda content: content[:-100])]
    assert brought() == FILES
    assert hub.ranges == ["bytes=299900-"]


DAMAGED = {
    "truncated": (lambda content: content[:-100], "299,900 bytes came in the place of 300,000"),
    "too long": (lambda content: content + b"more", "300,004 bytes came in the place of 300,000"),
    "another content": (lambda content: content[:-1] + b"?", f"its hash is not {BLOB[:12]}…"),
}


@pytest.mark.parametrize(("body", "why"), DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_is_not_what_the_hub_lists_is_one_error_and_is_not_kept(
    hub: Hub, slept: list[float], cache: Path, body: Callable[[bytes], bytes], why: str
) -> None:
    hub.faults = [Fault(ROWS_BODY, body=body, times=99)]
    assert refused() == (
        f"data.name: owner/rows: data/train.parquet came twice, and is not what the hub lists: {why}. "
        "Try again later, or tell whoever keeps it"
    )
    assert not any(cache.rglob(f"{BLOB}*"))
    assert not (cache / "snapshots").exists()
    hub.faults = []
    assert brought() == FILES


def test_a_file_that_comes_damaged_once_is_fetched_again(
    hub: Hub, slept: list[float], told: Callable[[], list[str]]
) -> None:
    hub.faults = [Fault(f"{BODY}/resolve/{COMMIT}/README.md", body=lambda content: content.upper())]
    assert brought() == FILES
    assert f"README.md: its hash is not {etag('', CARD)[:12]}…; fetching it again" in told()


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize(
    "damage", [lambda content: content[:-9], lambda content: content[:-1] + b"?"], ids=["cut", "bit"]
)
def test_a_file_damaged_in_the_cache_is_found_out(
    hub: Hub,
    path: str,
    damage: Callable[[bytes], bytes],
    told: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert brought() == FILES
    file = Path(constants.HF_HUB_CACHE, "datasets--owner--rows/snapshots", COMMIT, path)
    file.write_bytes(damage(FILES[path]))
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        assert refused() == (
            f"data.name: owner/rows: {file} is damaged: its content has not the hash that it is named after. "
            "Run this again when the hub can be reached, and it is fetched anew"
        )
    hub.asked.clear()
    assert brought() == FILES
    assert told()[-2] == f"{path} is damaged in the cache; fetching it anew"
    assert hub.downloads() == [f"GET /datasets/owner/rows/resolve/{COMMIT}/{path}"]


@pytest.mark.parametrize("damaged", [False, True])
def test_where_the_system_knows_no_links_nothing_is_fetched_twice(hub: Hub, cache: Path, damaged: bool) -> None:
    assert brought() == FILES
    for link in [file for file in (cache / "snapshots").rglob("*") if file.is_symlink()]:
        link.resolve().replace(link)
    if damaged:
        (cache / "snapshots" / COMMIT / "README.md").write_bytes(b"?")
    hub.asked.clear()
    assert brought() == FILES
    assert len(hub.downloads()) == damaged


GONE = "data.name: owner/rows at main is not in the cache and the hub does not send it ({}). Check the connection and "
ELSEWHERE = {
    "refused": ("http://127.0.0.1:9", "ConnectError"),
    "no such host": ("http://hub.invalid", "ConnectError"),
    "no protocol": ("huggingface.co", "UnsupportedProtocol"),
    "no address": ("http://[::1", "InvalidURL"),
}


@pytest.mark.parametrize(("address", "why"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_hub_that_is_gone_is_one_error_at_once_unless_the_cache_has_it(
    hub: Hub, slept: list[float], address: str, why: str, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with monkeypatch.context() as away:
        turn_to(address, away)
        if "invalid" in address:
            away.setattr(socket, "getaddrinfo", unknown)
        assert refused().startswith(GONE.format(why))
    assert brought() == FILES
    turn_to(address, monkeypatch)
    if "invalid" in address:
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert brought() == FILES
    assert told()[-1] == f"The hub does not send it ({why}): taking owner/rows at {COMMIT} from the cache"
    assert slept == []


def test_what_answers_but_is_no_hub_is_one_error(hub: Hub, slept: list[float]) -> None:
    for page in (b"<html>Log in to the network</html>", b"{}", b"[]"):
        hub.faults = [Fault(LISTING, body=lambda _, page=page: page)]
        assert refused().startswith(GONE.format("what answers is no hub"))


def test_a_listing_that_points_out_of_the_cache_writes_and_removes_nothing_there(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    path = "../" * 5 + "mine"
    hub.faults = [Fault(LISTING, body=lambda listing: listing.replace(b"README.md", path.encode()))]
    assert brought() == FILES
    assert (tmp_path / "mine").read_text() == "mine"


NOBODY = "access to owner/rows is gated, and there is no token. Ask for it on the hub's page of owner/rows, then log in"
STRANGER = "access to owner/rows is gated, and the token of HF_TOKEN does not open it. Ask for access on the hub's page"
INVALID = "the hub answers 401 to {} for owner/rows. Log in anew (hf auth login), or set HF_TOKEN"


@pytest.mark.parametrize(
    ("variable", "login", "message"),
    [
        ("", "", NOBODY),
        ("hf_stranger", "", STRANGER),
        ("", "hf_stranger", STRANGER.replace("HF_TOKEN", "hf auth login ({path})")),
        ("hf_wrong", "hf_secret", INVALID.format("the token of HF_TOKEN")),
        ("", "hf_wrong", INVALID.format("the token of hf auth login ({path})")),
        ("hf_wröng", "", "the token of HF_TOKEN cannot be sent: it has signs that no token has. Set it anew"),
        ("", "hf_wrong\x00", "the token of hf auth login ({path}) cannot be sent: it has signs that no token has"),
    ],
)
def test_access_that_is_refused_names_the_token_and_never_prints_it(
    hub: Hub,
    variable: str,
    login: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.gated = (NAME,)
    path = tmp_path / "hf/token"
    path.parent.mkdir()
    if variable:
        monkeypatch.setenv("HF_TOKEN", variable)
    if login:
        path.write_text(login)
    found = refused()
    assert message.format(path=path) in found
    assert "hf_" not in found + caplog.text
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert brought() == FILES


def test_a_repository_and_a_revision_that_are_not_there_are_told_at_once(hub: Hub, slept: list[float]) -> None:
    assert refused("v9") == "data.revision: owner/rows has no branch, tag or commit v9"
    with pytest.raises(DataError, match=r"data.name: no dataset owner/none on the hub, or it is private: then log in"):
        fetch_snapshot("owner/none", "main", "dataset")
    assert slept == []


KILLED = """
import os, signal
from tqdm import tqdm
from pipeline.fetch import downloads
from pipeline.fetch import hub

class Fatal(tqdm):
    def update(self, n=1):
        os.kill(os.getpid(), signal.SIGKILL)

downloads.tqdm = Fatal
hub.snapshot("owner/rows", "main", "dataset")
"""


def test_a_download_that_is_killed_is_resumed_by_the_next_run(hub: Hub, cache: Path) -> None:
    """A real process, really killed, as soon as it has something of the file."""
    (hub.root / "datasets" / NAME / "README.md").unlink()
    there = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache.parents[1])}
    done = subprocess.run([sys.executable, "-c", KILLED], env=environment(**there), check=False, timeout=600)
    assert done.returncode == -signal.SIGKILL
    part = (cache / f"blobs/{BLOB}.incomplete").read_bytes()
    assert 0 < len(part) < len(ROWS)
    assert ROWS.startswith(part)
    assert brought() == {"data/train.parquet": ROWS}
    assert hub.ranges == [f"bytes={len(part)}-"]
    assert [path.name for path in (cache / "blobs").iterdir()] == [BLOB]


def test_a_part_that_was_damaged_on_the_disk_is_thrown_away(hub: Hub, cache: Path) -> None:
    (cache / "blobs").mkdir(parents=True)
    for part in (b"?" * 1000, b"?" * len(ROWS), b"?" * (len(ROWS) + 1)):
        (cache / f"blobs/{BLOB}.incomplete").write_bytes(part)
        assert brought() == FILES
        (cache / "blobs" / BLOB).unlink()


def test_a_failed_fetch_is_one_message_and_leaves_no_data(project: Path, hub: Hub) -> None:
    rows = [{"question": f"What is case {i}?", "answer": f"Case {i} is one of many."} for i in range(20)]
    (hub.root / "datasets/owner/qa").mkdir()
    (hub.root / "datasets/owner/qa/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    there = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(project.parent / "home")}
    assert python_in(project, "pipeline.compose", "data=hub", "data.name=owner/qa").returncode == 0
    impatient = (
        "from pipeline.fetch import downloads; downloads.WAITS = (); from pipeline.fetch.stage import main; main()"
    )
    for fault in (Fault("train.jsonl", 404), Fault("GET /datasets", drop=100, times=99), None):
        hub.faults = [fault] if fault else []
        done = run_in(project, sys.executable, "-c", impatient, "instance=data", **there)
        assert "Traceback" not in done.stderr
        assert (project / "data/raw").exists() == (fault is None)
        if fault:
            assert done.returncode == 1
            assert "fetch stopped: data.name: owner/qa at main is not in the cache" in done.stderr
    assert done.returncode == 0, done.stderr
    assert hub.ranges == ["bytes=100-"]
    assert json.loads((project / "metrics/fetch/data.json").read_text())["rows"] == 20
