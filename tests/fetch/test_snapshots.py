"""pipeline/fetch/hub.py: the hub's cache, and listings that cannot be trusted, with the real client."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from pydantic import ValidationError
from support.hub import COMMIT, Failure, Hub
from support.snapshots import FILES, LISTING, fetch_error, fetch_files
from support.sources import hub_rows

from pipeline.errors import DataError
from pipeline.fetch import downloads
from pipeline.fetch.stage import fetch_data
from pipeline.records.columns import read_column_mapping


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
    source = hub_rows("owner/qa")
    for failure in (Failure("train.jsonl", 404), Failure("GET /datasets", drop=100, times=99)):
        hub.failures = [failure]
        with pytest.raises(DataError, match=r"^data\.name: owner/qa at main is not in the cache"):
            fetch_data(source)
        assert not Path("data/raw").exists()
    hub.failures = []
    assert fetch_data(source)["rows"] == 20
    assert Path("data/raw").exists()
    assert hub.ranges == ["bytes=100-"]


def test_test_split_follows_the_rows_and_has_no_limit(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (hub.root / "datasets/owner/qa").mkdir()
    for split, count in {"train": 20, "test": 5}.items():
        rows = [{"question": f"What is {split} {i}?", "answer": "One of many."} for i in range(count)]
        (hub.root / f"datasets/owner/qa/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = fetch_data(hub_rows("owner/qa", test_split="test", limit=3))
    assert (metrics["rows"], metrics["test_rows"], metrics["test_revision"]) == (3, 5, COMMIT)
    assert read_column_mapping(Path("data/raw/columns.json")).first_test_row == 3
    questions = pq.read_table("data/raw/rows.parquet")["question"].to_pylist()
    assert questions[2:4] == ["What is train 2?", "What is test 0?"]
    with pytest.raises(DataError, match=r"^data\.name: owner/qa at .* has no readable split validation"):
        fetch_data(hub_rows("owner/qa", test_split="validation"))
    with pytest.raises(ValidationError, match="test_split is the same as split"):
        hub_rows("owner/qa", test_split="train")
