"""Which files of a folder hold the rows: metadata is left out, and one split is chosen.

Folders that `datasets.save_to_disk` wrote are read as their state.json says. Everywhere else the names of files and folders
tell the splits apart, by the words that the `datasets` library uses. Splits are never mixed unless a glob asks for it.
"""

import json
import logging
import os
import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from pipeline.errors import DataError
from pipeline.fetch.streams import DataFile, format_and_compression, open_data_file
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
PREFERRED_SPLIT = {"data.path": "train", "data.test_path": "test"}
SHARD_WORDS = frozenset({"of", "part", "shard", "chunk", "data", "set", "split"})  # and numbers
METADATA_NAMES = frozenset(
    {
        *("config", "croissant", "datapackage", "dataset_dict", "dataset_info", "dataset_infos", "features"),
        *(
            "generation_config",
            "info",
            "license",
            "manifest",
            "metadata",
            "package",
            "readme",
            "schema",
            "state",
            "stats",
        ),
    }
)
DATASETS_CACHE = re.compile(r"cache-[0-9a-f]{16}(_\d{5}_of_\d{5})?\.arrow")  # of Dataset.map, beside the data
STATE = "state.json"
Files = dict[str, DataFile]  # path within the folder → file


class FolderSplit(NamedTuple):
    name: str  # such as train or train_sft; "" for files whose names tell no split
    kind: str  # train, validation, test or ""
    container: str  # the folder that holds the split, which differs between the configurations of a dataset


def select_files(files: Files, folder: str, key: str, choose_split: bool) -> Files:
    """The files that hold rows. `choose_split`: only those of one split. `key` is the parameter that names the folder.

    Raises DataError if a saved dataset is incomplete, or if only the user can know which split is meant.
    """
    saved = _saved_shards(files)
    saved_folders = {os.path.dirname(name) for name in saved}
    rest = {name: file for name, file in files.items() if os.path.dirname(name) not in saved_folders}
    selected = saved | _without_metadata(rest, bool(saved))
    if skipped := [name for name in files if name not in selected]:
        log.info(f"Not read in {folder}, because they hold no rows: {format_names(skipped)}")
    splits = {name: _split_of_saved(name) if name in saved else split_of(name) for name in selected}
    if choose_split:
        return _files_of_one_split(selected, splits, folder, key)
    if len(kinds := sorted({split.kind for split in splits.values() if split.kind})) > 1:
        log.info(f"Reading the splits {' and '.join(kinds)} together, because {key} names them all")
    return selected


def split_of(name: str) -> FolderSplit:
    """The split of a file, by the words in its name, or else in the names of its folders.

    >>> split_of("data/train-00000-of-00002.parquet")
    FolderSplit(name='train', kind='train', container='data')
    >>> split_of("dev/part-1.csv.gz"), split_of("train_sft.jsonl").name, split_of("contest.csv").name
    (FolderSplit(name='validation', kind='validation', container=''), 'train_sft', '')
    """
    path = PurePosixPath(name)
    compression = format_and_compression(path.name)[1]
    stem = PurePosixPath(path.name[: -len(compression) or None]).stem
    for depth, part in enumerate([stem, *reversed(path.parts[:-1])]):
        words = [word for word in re.split(r"[^a-z]+", part.lower()) if len(word) > 1 and word not in SHARD_WORDS]
        if kinds := [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]:
            label = "_".join(SPLIT_WORDS.get(word, word) for word in words)
            return FolderSplit(label, kinds[0], "/".join(path.parts[: -1 - depth] if depth else path.parts[:-1]))
    return FolderSplit("", "", "")


def _split_of_saved(name: str) -> FolderSplit:
    container, _, folder = os.path.dirname(name).rpartition("/")
    return FolderSplit(folder, split_of(f"{folder}/x").kind, container)


def _saved_shards(files: Files) -> Files:
    """The shards of the datasets that save_to_disk wrote into the folder or below it, in the order of their state.json."""
    shards: Files = {}
    for name in files:
        folder, file_name = os.path.split(name)
        if file_name != STATE or (state := _read_object(files[name])) is None or "_data_files" not in state:
            continue
        if state.get("_indices_data_files"):
            raise DataError(
                f"{files[name].name}: the dataset was saved with a selection of its rows beside it; save it again: "
                "dataset.flatten_indices().save_to_disk(…)"
            )
        for shard in (f"{folder}/{entry['filename']}".lstrip("/") for entry in state["_data_files"]):
            if shard not in files:
                raise DataError(f"{files[name].name} names {shard}, which is missing; copy the folder again")
            shards[shard] = files[shard]
    return shards


def _without_metadata(files: Files, has_saved: bool) -> Files:
    """The files in a known format, without the JSON objects that describe the others, and without caches."""
    known = {
        name: file
        for name, file in files.items()
        if file.format and not DATASETS_CACHE.fullmatch(os.path.basename(name))
    }
    others = {file.format for file in known.values()} - {".json"}
    candidates = {
        name
        for name, file in known.items()
        if file.format == ".json" and (others or has_saved or PurePosixPath(name).stem.lower() in METADATA_NAMES)
    }
    metadata = {name for name in candidates if _begins_with_object(known[name])}
    is_all = len(metadata) == len(known) and not has_saved  # the only file may hold rows under a key
    return known if is_all else {name: file for name, file in known.items() if name not in metadata}


def _begins_with_object(file: DataFile) -> bool:
    with open_data_file(file, read_all=False) as (stream, _):
        return bool(stream.read(1 << 12).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"))


def _read_object(file: DataFile) -> dict[str, Any] | None:
    with open_data_file(file, read_all=True) as (stream, _):
        try:
            value = json.loads(stream.read(1 << 24))
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def _files_of_one_split(files: Files, splits: dict[str, FolderSplit], folder: str, key: str) -> Files:
    names = dict.fromkeys(split.name for split in splits.values())
    preferred = {split.name for split in splits.values() if split.kind == PREFERRED_SPLIT[key]}
    if len(names) > 1 and len(preferred) != 1:
        raise DataError(
            f"{folder} has {len(names)} splits, and {key} needs one. Choose:\n{_choices(files, splits, folder, key)}"
        )
    chosen = {name: split for name, split in splits.items() if len(names) == 1 or split.name in preferred}
    if len({split.container for split in chosen.values() if split.name}) > 1:
        raise DataError(
            f"{folder} has several folders with the same split, such as the configurations of a dataset. Choose one:\n"
            f"{_choices(files, chosen, folder, key)}"
        )
    if others := {name: split for name, split in splits.items() if name not in chosen}:
        log.info(
            f"{folder} has several splits; using {preferred.pop()} for {key}. The others are not read"
            + (f"; to use one:\n{_choices(files, others, folder)}" if key == "data.path" else "")
        )
    return {name: files[name] for name in chosen}


def _choices(files: Files, splits: dict[str, FolderSplit], folder: str, key: str | None = None) -> str:
    """A line for each split in each container: the parameter that chooses it; without `key`, the one that fits its kind."""
    lines = []
    for split in dict.fromkeys(splits.values()):
        names = [name for name, other in splits.items() if other == split]
        own_key = "data.test_path" if split.kind in ("test", "validation") else "data.path"
        lines.append(f"  {key or own_key}={_address(files, names, folder)}")
    return "\n".join(lines)


def _address(files: Files, chosen: list[str], folder: str) -> str:
    """A path that names the chosen files: the file, their folder, or a glob; the first one if no simple path does."""
    parent = os.path.commonpath([os.path.dirname(name) for name in chosen])
    if len(chosen) == 1 and not _is_alone_in(files, chosen, parent):
        return f"{folder}/{chosen[0]}"
    if parent and _is_alone_in(files, chosen, parent):
        return f"{folder}/{parent}"
    pattern = _common_start(chosen) + "*"
    if [name for name in files if fnmatchcase(name, pattern)] == chosen:
        return f"{folder}/{pattern}"
    return f"{folder}/{chosen[0]}" + (f" (and {len(chosen) - 1} more)" if len(chosen) > 1 else "")


def _common_start(names: list[str]) -> str:
    first, last = min(names), max(names)
    return first[: next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _is_alone_in(files: Files, chosen: list[str], parent: str) -> bool:
    return bool(parent) and [name for name in files if name.startswith(f"{parent}/")] == chosen
