"""Finds rows of data/tokenized by their id."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.files import ParquetReader, iter_jsonl
from pipeline.core.paths import FORMATTED, TOKENIZED
from pipeline.errors import DataError

SPLITS = ("train", "validation")
BATCH_ROWS = 10_000
Row = dict[str, Any]


class FoundRow(NamedTuple):
    row: Row
    split: str
    number: int  # among the rows of its dialogue, from 1
    rows: int  # of its dialogue


def first_rows(split: str, count: int) -> list[FoundRow]:
    """The first rows of a split. Raises DataError if the rows were not tokenized."""
    reader = _reader(split)
    rows: list[Row] = next(reader.iter_tables(reader.column_names, count), pa.table({})).to_pylist()
    totals = Counter[int]()
    for table in reader.iter_tables(["id"], BATCH_ROWS):
        totals.update(table["id"].to_pylist())
    numbers = Counter[int]()
    found = []
    for row in rows:
        numbers[row["id"]] += 1
        found.append(FoundRow(row, split, numbers[row["id"]], totals[row["id"]]))
    return found


def find_rows(row_id: int, splits: tuple[str, ...]) -> list[FoundRow]:
    """All rows with an id: a dialogue may have one for each turn. Raises DataError if there is none."""
    for split in splits:
        reader = _reader(split)
        rows: list[Row] = []
        for table in reader.iter_tables(reader.column_names, BATCH_ROWS):
            rows += table.filter(pc.equal(table["id"], row_id)).to_pylist()
        if rows:
            return [FoundRow(row, split, number, len(rows)) for number, row in enumerate(rows, start=1)]
    raise DataError(f"row {row_id} is not in {' or '.join(splits)}: {_where_it_is(row_id)}")


def _reader(split: str) -> ParquetReader:
    path = TOKENIZED / f"{split}.parquet"
    if not path.exists():
        raise DataError(f"{path} does not exist; the stage tokenize writes it: dvc repro tokenize, or dvc pull")
    return ParquetReader(path)


def _where_it_is(row_id: int) -> str:
    """Where a row went that was not tokenized."""
    if reason := _value_of(FORMATTED / "dropped.jsonl", row_id, "reason"):
        return f"format left it out ({reason}; see {FORMATTED}/dropped.jsonl)"
    for split in ("test", *SPLITS):
        if _value_of(FORMATTED / f"{split}.jsonl", row_id, "id") is not None:
            is_test = split == "test"
            return "it is a test row, see data/predictions" if is_test else f"it is in {split}: --split {split}"
    return "clean left it out (data/clean/dropped.parquet), or the source has no such row"


def _value_of(path: Path, row_id: int, key: str) -> Any:
    if not path.exists():
        return None
    return next((row.get(key) for row in iter_jsonl(path) if row.get("id") == row_id), None)
