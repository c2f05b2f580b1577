"""Maps the source's columns onto the task's, cleans the texts, and drops rows that nothing can be learned from.

    python -m pipeline.clean     data/raw/ → data/clean/, metrics/clean.json

data/clean/ holds

- records.parquet: the rows that are kept; an id is the number of the row in the source, from 0
- task.json: the task whose columns the records have, and the id of the first row of a test set of your own
- dropped.parquet: the ids of the dropped rows, each with its reason
- dropped.jsonl: the same with the texts of the source

A row is dropped for the first reason in REASONS that applies. The filters (all but the first five and the last) are off
unless the clean section turns them on. Rows of a test set of your own are dropped for the first four reasons only.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.clean.chats import CHAT_CHANGES
from pipeline.clean.cleaner import (
    UNUSABLE,
    ChangeExample,
    CleanedBatch,
    Record,
    clean_batches,
    conversational_mapping,
)
from pipeline.clean.examples import describe_change
from pipeline.clean.transforms import TRANSFORMS
from pipeline.config.params import Params
from pipeline.core.entrypoint import stage
from pipeline.core.files import ParquetReader, atomic_write, damaged_error, json_line
from pipeline.core.metrics import write_metrics
from pipeline.core.paths import CLEAN, RAW_COLUMNS, RAW_ROWS, RECORDS, RECORDS_TASK
from pipeline.errors import DataError
from pipeline.records.columns import ColumnMapping, format_mapping, read_column_mapping
from pipeline.records.json_cells import dump_json
from pipeline.records.messages import MESSAGE_FORMATS
from pipeline.records.tasks import format_names, write_task

log = logging.getLogger(__name__)

REASONS = (
    *UNUSABLE,  # no chat; surrogates that UTF-8 cannot hold; no text that the task needs; no user gets an answer
    "boilerplate",  # the answer is nothing else
    "mostly_boilerplate",
    "contacts",
    "too_short",
    "too_long",
    "mostly_nonletters",
    "other_language",
    "duplicate",  # an earlier row is exactly the same
)
CHANGES = TRANSFORMS | CHAT_CHANGES
JSON_COLUMNS = ("messages", "history", "tools")
DROPPED_SCHEMA = pa.schema({"id": pa.int64(), "reason": pa.string()})
BATCH_SIZE = 1024  # rows in memory as Python objects
HEADLINE = {"rows.kept": "rows_kept"}


def records_schema(mapping: ColumnMapping) -> pa.Schema:
    """The schema of records.parquet: id, then the task's columns."""
    if mapping.task.name == "chat":
        return pa.schema({"id": pa.int64(), "messages": pa.json_(), "tools": pa.json_()})
    names = [name for name in mapping.task.columns if name in mapping.columns and name != "tools"]
    return pa.schema({"id": pa.int64()} | {name: pa.json_() if name in JSON_COLUMNS else pa.string() for name in names})


def _table_of(records: list[Record], schema: pa.Schema) -> pa.Table:
    for name in JSON_COLUMNS:
        if name in schema.names:
            texts = (dump_json(record[name]) if record[name] else None for record in records)
            records = [{**record, name: text} for record, text in zip(records, texts, strict=True)]
    return pa.Table.from_pylist(records, schema)


class Counts:
    """Counts of what happened to the rows of a source, or of a test set of the user's own."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.rows, self.dropped = 0, dict.fromkeys(reasons, 0)

    def metrics(self) -> dict[str, Any]:
        return {"rows_in": self.rows, "rows_kept": self.rows - sum(self.dropped.values()), "dropped": self.dropped}


def write_cleaned(batches: Iterable[CleanedBatch], mapping: ColumnMapping) -> dict[str, Any]:
    """Write data/clean and return the metrics. Raises DataError if no row of the source is kept."""
    counts, test_counts = Counts(REASONS), Counts(UNUSABLE)
    changed, examples, malformed = Counter[str](), dict[str, ChangeExample](), list[Record]()
    schema = records_schema(mapping)
    with atomic_write(CLEAN) as folder:
        folder.mkdir()
        write_task(folder / RECORDS_TASK.name, mapping.task, mapping.first_test_row)
        with (
            pq.ParquetWriter(folder / RECORDS.name, schema, compression="zstd") as records,
            pq.ParquetWriter(folder / "dropped.parquet", DROPPED_SCHEMA, compression="zstd") as dropped,
            (folder / "dropped.jsonl").open("wb") as dropped_texts,
        ):
            for batch in batches:
                test_counts.rows += len(batch.test_ids)
                counts.rows += len(batch.records) + len(batch.dropped) - len(batch.test_ids)
                for row in batch.dropped:
                    (test_counts if row["id"] in batch.test_ids else counts).dropped[row["reason"]] += 1
                changed += batch.changed
                examples = batch.examples | examples
                malformed += [row for row in batch.dropped if row["reason"] == "malformed"][: not malformed]
                if batch.records:
                    records.write_table(_table_of(batch.records, schema))
                dropped.write_table(pa.Table.from_pylist(batch.dropped, DROPPED_SCHEMA))
                dropped_texts.writelines(map(_dropped_line, batch.dropped))
        metrics = counts.metrics() | {"changed": {kind: changed[kind] for kind in CHANGES}}
        if mapping.first_test_row is not None:
            metrics["test_rows"] = test_counts.metrics()
        first = f"row {malformed[0]['id']}: {malformed[0]['detail']}" if malformed else ""
        require_kept_rows(metrics, first)
    log_changes(metrics["changed"], examples)
    if first:
        log.warning(f"Rows that are no chat were dropped as malformed; the first is {first}")
    return metrics


def _dropped_line(row: Record) -> bytes:
    try:
        return json_line(row)
    except TypeError:  # a surrogate that stands alone, an integer of more than 64 bits
        return json.dumps(row, default=str).encode() + b"\n"


def log_changes(counts: dict[str, int], examples: dict[str, ChangeExample]) -> None:
    """Log how many rows each kind of change affects, with its first example."""
    for kind, description in CHANGES.items():
        if kind in examples:
            row, before, after = examples[kind]
            log.info(f"  {counts[kind]:,} {description}, such as row {row}: {describe_change(before, after)}")


def require_kept_rows(metrics: dict[str, Any], first_malformed: str = "") -> None:
    """Raise DataError with the counts by reason if no row of the source, or of the user's own test set, is kept."""
    hint = f"; messages are {MESSAGE_FORMATS}. Malformed is {first_malformed}" if first_malformed else ""
    for name, counts in (("row", metrics), ("row of the test set", metrics.get("test_rows"))):
        if counts and not counts["rows_kept"]:
            raise DataError(
                f"no {name} left of {counts['rows_in']:,}: dropped {format_counts(counts['dropped'])}. "
                f"Look at data.columns and the clean section{hint}"
            )


def format_counts(counts: dict[str, int]) -> str:
    """
    >>> format_counts({"empty": 1200, "boilerplate": 0})
    '1,200 empty'
    """
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"


def describe_changes(counts: dict[str, int]) -> str:
    """
    >>> describe_changes({"mended": 0, "stripped": 1200, "masked": 1})
    '1,200 with text stripped from the end, 1 with masked contacts'
    """
    return format_counts({CHANGES[name]: count for name, count in counts.items()})


def read_mapping(rows: ParquetReader) -> ColumnMapping:
    """The column mapping of data/raw. Raises DataError if it is damaged or names a column that the rows lack."""
    mapping = read_column_mapping(RAW_COLUMNS)
    if missing := [name for name in mapping.source_columns() if name not in rows.column_names]:
        raise damaged_error(RAW_COLUMNS, f"{RAW_ROWS} has no column {format_names(missing)}")
    return mapping


@stage("clean")
def main(params: Params) -> None:
    rows = ParquetReader(RAW_ROWS)
    mapping = read_mapping(rows)
    columns = mapping.source_columns()
    for first_rows in islice(rows.iter_tables(columns, BATCH_SIZE), 1):
        mapping = conversational_mapping(mapping, first_rows)
    log.info(f"Cleaning {rows.num_rows:,} rows: {format_mapping(mapping.columns)}")
    with tqdm(total=rows.num_rows, desc="clean", unit="row", disable=None, leave=False) as bar:
        tables = rows.iter_tables(columns, BATCH_SIZE, bar)
        metrics = write_cleaned(clean_batches(tables, mapping, params.clean), mapping)
    write_metrics("clean", metrics | {"descriptions": CHANGES}, HEADLINE)
    log.info(
        f"{metrics['rows_kept']:,} of {metrics['rows_in']:,} rows kept; dropped: {format_counts(metrics['dropped'])}; "
        f"changed: {describe_changes(metrics['changed'])} → {CLEAN}/"
    )
    if test := metrics.get("test_rows"):
        log.info(
            f"{test['rows_kept']:,} of {test['rows_in']:,} rows of the test set kept; "
            f"dropped: {format_counts(test['dropped'])}"
        )
