"""Folders of data files: which files are read, which split is chosen, and what the errors advise."""

import json
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.sources import load_from

from pipeline.errors import DataError
from pipeline.fetch.data_files import local_data_files, missing_file_message
from pipeline.fetch.read_files import read_files


def write_files(folder: Path, *names: str) -> Path:
    """Write a file for each name, with one row whose text is the name; metadata gets an object."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pq.write_table(pa.table({"text": [name]}), file)
        elif name.endswith(".jsonl"):
            file.write_text(json.dumps({"text": name}) + "\n")
        elif name.endswith(".csv"):
            file.write_text(f"text\n{name}\n")
        elif name.startswith("rows"):
            file.write_text(json.dumps([{"text": name}]))
        else:
            file.write_text('{"features": {}}')
    return folder


def texts_in(path: object, key: str = "data.path") -> list[str]:
    texts: list[str] = read_files(local_data_files(str(path), key)).table.column("text").to_pylist()
    return texts


def save(folder: Path, splits: dict[str, list[str]] | list[str], shards: int = 1) -> Path:
    """Write what `datasets.save_to_disk` writes, without its progress bars."""
    datasets.disable_progress_bars()
    if isinstance(splits, dict):
        made = {name: datasets.Dataset.from_dict({"text": texts}) for name, texts in splits.items()}
        datasets.DatasetDict(made).save_to_disk(str(folder))
    else:
        datasets.Dataset.from_dict({"text": splits}).save_to_disk(str(folder), num_shards=shards)
    return folder


def test_saved_dataset_is_read_in_the_order_of_its_state(tmp_path: Path) -> None:
    folder = save(tmp_path / "saved", [str(row) for row in range(4)], shards=4)
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"].reverse()
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "cache-0123456789abcdef.arrow").write_bytes((folder / "data-00000-of-00004.arrow").read_bytes())
    assert texts_in(folder) == ["3", "2", "1", "0"]


def test_saved_splits_are_chosen_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder = save(tmp_path / "saved", {"train": ["t"], "test": ["x"]})
    assert texts_in(folder) == ["t"]
    assert (
        f"using train for data.path. The others are not read; to use one:\n  data.test_path={folder}/test"
        in caplog.text
    )
    assert texts_in(folder, "data.test_path") == ["x"]
    assert texts_in(folder / "test") == ["x"]


def test_saved_splits_without_train_are_an_error_that_names_them(tmp_path: Path) -> None:
    folder = save(tmp_path / "saved", {"fold1": ["a"], "fold2": ["b"]})
    with pytest.raises(DataError) as error:
        texts_in(folder)
    assert str(error.value) == (
        f"{folder} has 2 splits, and data.path needs one. Choose:\n  data.path={folder}/fold1\n  data.path={folder}/fold2"
    )


def test_saved_dataset_that_lacks_a_shard_is_an_error(tmp_path: Path) -> None:
    folder = save(tmp_path / "saved", ["a", "b"], shards=2)
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"names data-00001-of-00002\.arrow, which is missing; copy the folder again"):
        texts_in(folder)


CHOSEN = {
    "snapshot of the hub": (
        [
            *("README.md", "dataset_infos.json", "LICENSE", ".gitattributes", "data/test-00000-of-00001.parquet"),
            *("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
        ],
        ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
    ),
    "files named after splits": (["train.jsonl", "test.jsonl", "dev.jsonl"], ["train.jsonl"]),
    "folders named after splits": (["train/a.csv", "train/b.csv", "test/a.csv"], ["train/a.csv", "train/b.csv"]),
    "one split": (["questions_test.jsonl"], ["questions_test.jsonl"]),
    "numbered files": (["train_1.csv", "train_2.csv", "val.csv"], ["train_1.csv", "train_2.csv"]),
    "shards without splits": (["part-0-of-2.jsonl", "part-1-of-2.jsonl"], ["part-0-of-2.jsonl", "part-1-of-2.jsonl"]),
    "splits and more": (["train.jsonl", "unsupervised.jsonl"], ["train.jsonl"]),
    "splits in other formats": (["train.csv", "test.jsonl"], ["train.csv"]),
    "metadata beside the rows": (["a.parquet", "config.json", "columns.json"], ["a.parquet"]),
    "metadata beside a list": (["config.json", "rows.json"], ["rows.json"]),
    "words that only begin like a split": (["contest.jsonl", "trains.jsonl"], ["contest.jsonl", "trains.jsonl"]),
}


@pytest.mark.parametrize(("names", "chosen"), CHOSEN.values(), ids=CHOSEN)
def test_folder_gives_the_rows_of_one_split(tmp_path: Path, names: list[str], chosen: list[str]) -> None:
    assert texts_in(write_files(tmp_path, *names)) == chosen


AMBIGUOUS = {
    "two splits": (["dev.jsonl", "test.jsonl"], ["dev.jsonl", "test.jsonl"]),
    "a split and others": (["rows.jsonl", "test.jsonl"], ["rows.jsonl", "test.jsonl"]),
    "two training splits": (["train_en.jsonl", "train_de.jsonl"], ["train_de.jsonl", "train_en.jsonl"]),
    "shards": (
        [f"data/{kind}-0000{number}-of-00002.parquet" for kind in ("train_sft", "train_gen") for number in (0, 1)],
        ["data/train_gen-0000*", "data/train_sft-0000*"],
    ),
    "configurations": (["de/train.jsonl", "en/train.jsonl"], ["de", "en"]),
}


@pytest.mark.parametrize(("names", "choices"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_ambiguous_folder_is_an_error_whose_choices_work(tmp_path: Path, names: list[str], choices: list[str]) -> None:
    write_files(tmp_path, *names)
    with pytest.raises(DataError) as error:
        texts_in(tmp_path)
    proposed = [line.removeprefix("  data.path=") for line in str(error.value).splitlines()[1:]]
    assert proposed == [f"{tmp_path}/{choice}" for choice in choices]
    assert sorted(text for path in proposed for text in texts_in(path)) == sorted(names)


def test_glob_may_mix_splits_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write_files(tmp_path, "train.jsonl", "test.jsonl")
    assert texts_in(tmp_path / "*.jsonl") == ["test.jsonl", "train.jsonl"]
    assert "Reading the splits test and train together, because data.path names them all" in caplog.text


def test_symbolic_links_of_the_hub_cache_are_read(tmp_path: Path) -> None:
    write_files(tmp_path, "data.parquet")
    snapshot = tmp_path / "snapshots/abc/data"
    (tmp_path / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    (tmp_path / "data.parquet").rename(tmp_path / "blobs/1f")
    (snapshot / "train-00000-of-00001.parquet").symlink_to("../../../blobs/1f")
    assert texts_in(snapshot.parent) == ["data.parquet"]
    assert len(load_from(snapshot.parent).revision) == 64


def test_two_lists_of_rows_in_different_formats_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has files in 2 formats \(\.json, \.parquet\); expected one"):
        texts_in(write_files(tmp_path, "rows.json", "more.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("rows.pdf", b"%PDF-1.7", "A document has no rows: write the rows into a file"),
        ("rows.docx", b"PK\x03\x04", "A document has no rows"),
        ("rows.zip", b"PK\x03\x04", "Unpack the archive"),
        ("rows.pkl", b"\x80\x04", "never read: save the rows as .parquet"),
        ("rows.txt", b"question;answer\nWhy?;So.\n", "Its content looks like CSV: name it {folder}/rows.csv"),
        ("rows", b'{"text": "a"}\n', "Its content looks like JSON Lines: name it {folder}/rows.jsonl"),
        ("rows.dat", b"PAR1....", "Its content looks like Parquet: name it {folder}/rows.parquet"),
        ("notes.txt", b"Some text.\nMore.\n", "Its content is text without columns; write the rows into a file"),
        ("junk", bytes(range(256)), "Its content is binary data of no known format"),
        ("empty", b"", "Its content is empty"),
    ],
)
def test_unknown_extension_gets_advice_that_works(tmp_path: Path, name: str, content: bytes, advice: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        local_data_files(str(tmp_path / name))
    assert f"unknown extension {os.path.splitext(name)[1] or '(none)'}; expected one of .jsonl" in str(error.value)
    assert advice.format(folder=tmp_path) in str(error.value)


def test_missing_file_suggests_close_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(Path("Data"), "helpdesk.csv", "other.jsonl")
    assert missing_file_message("Data/HelpDesk.csv").endswith("did you mean Data/helpdesk.csv?")
    assert missing_file_message("data/helpdesk.csv") == (
        "no such file: data/helpdesk.csv (data does not exist); did you mean Data/helpdesk.csv?"
    )
    assert missing_file_message("nowhere/rows.csv") == "no such file: nowhere/rows.csv (nowhere does not exist)"
