"""Reads a split of a dataset on the Hugging Face Hub."""

import os
from pathlib import Path

import pyarrow as pa

from pipeline.config.sources import HubRows
from pipeline.errors import DataError
from pipeline.fetch import hub
from pipeline.fetch.arrow_tables import plain_table
from pipeline.records.tasks import format_names


def fetch_hub_splits(source: HubRows) -> tuple[str, pa.Table, pa.Table | None]:
    """(the commit, the rows of data.split, those of data.test_split), from one snapshot, so later runs also work offline.

    Raises DataError if the dataset cannot be fetched or lacks a split.
    """
    folder = hub.fetch_snapshot(source.name, source.revision, "dataset")
    test = None if source.test_split is None else _read_split(source, folder, source.test_split)
    return folder.name, _read_split(source, folder, source.split), test


def _read_split(source: HubRows, folder: Path, name: str) -> pa.Table:
    import datasets

    datasets.disable_progress_bars()
    try:
        split = datasets.load_dataset(os.fspath(folder), source.config, split=name)
    except (ValueError, FileNotFoundError, datasets.exceptions.DatasetsError, pa.ArrowException) as error:
        raise DataError(
            f"data.name: {source.name} at {folder.name} has no readable split {name}: {error}"
            f"{_skipped_files_hint(source, folder)}"
        ) from None
    return plain_table(split.data.table)


def _skipped_files_hint(source: HubRows, folder: Path) -> str:
    """The files that were not downloaded, if there are any: the split may be in them."""
    if not (names := hub.skipped_files(source.name, folder.name, "dataset")):
        return ""
    return (
        f"\nNot downloaded, because they can run code: {format_names(names)}. If the Hub has converted the dataset to "
        "Parquet, use that: data.revision=refs/convert/parquet. If not, convert it yourself if you trust it: data=file"
    )
