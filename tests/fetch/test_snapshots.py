"""pipeline/fetch/hub.py: the hub's cache, and listings that cannot be trusted, with the real client."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from support.hub import COMMIT, Failure, Hub
from support.snapshots import FILES, LISTING, fetch_error, fetch_files

from pipeline.config.sources import HubRows
from pipeline.errors import DataError
from pipeline.fetch import downloads
from pipeline.fetch.stage import fetch_data


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize(
    "damage", [lambda content: content[:-9], lambda content: content[:-1] + b"?"], ids=["cut", "bit"]
)
def test_a_damaged_file_in_the_cache_is_detected(
    hub: Hub,
    path: str,
    damage: Callable[[bytes], bytes],
    log_lines: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert fetch_files() == FILES
    file = Path(constants.HF_HUB_CACHE, "datasets--owner--rows/snapshots", COMMIT, path)
    file.write_bytes(damage(FILES[path]))
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        assert fetch_error() == (
            f"data.name: owner/rows: {file} is damaged: its content does not have the hash that it is named after. "
            "Run it again when the Hub can be reached, to download the file again"
        )
    hub.requests.clear()
    assert fetch_files() == FILES
    assert log_lines()[-2] == f"{path} is damaged in the cache; downloading it again"
    assert hub.downloads() == [f"GET /datasets/owner/rows/resolve/{COMMIT}/{path}"]


@pytest.mark.parametrize("damaged", [False, True])
def test_without_symbolic_links_nothing_is_downloaded_twice(hub: Hub, cache: Path, damaged: bool) -> None:
    assert fetch_files() == FILES
    for link in [file for file in (cache / "snapshots").rglob("*") if file.is_symlink()]:
        link.resolve().replace(link)
    if damaged:
        (cache / "snapshots" / COMMIT / "README.md").write_bytes(b"?")
    hub.requests.clear()
    assert fetch_files() == FILES
    assert len(hub.downloads()) == damaged


def test_a_listing_cannot_write_or_remove_files_outside_of_the_cache(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    path = "../" * 5 + "mine"
    hub.failures = [Failure(LISTING, body=lambda listing: listing.replace(b"README.md", path.encode()))]
    assert fetch_files() == FILES
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_failed_fetch_leaves_no_data(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(downloads, "RETRY_DELAYS", ())
    rows = [{"question": f"What is case {i}?", "answer": f"Case {i} is one of many."} for i in range(20)]
    (hub.root / "datasets/owner/qa").mkdir()
    (hub.root / "datasets/owner/qa/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = HubRows(
        source="hub", name="owner/qa", revision="main", config=None, split="train", limit=None, columns=None
    )
    for failure in (Failure("train.jsonl", 404), Failure("GET /datasets", drop=100, times=99)):
        hub.failures = [failure]
        with pytest.raises(DataError, match=r"^data\.name: owner/qa at main is not in the cache"):
            fetch_data(source)
        assert not Path("data/raw").exists()
    hub.failures = []
    assert fetch_data(source)["rows"] == 20
    assert Path("data/raw").exists()
    assert hub.ranges == ["bytes=100-"]
