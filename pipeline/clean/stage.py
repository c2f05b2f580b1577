"""Maps the source's columns onto the task's, cleans the texts, and drops rows that nothing can be learned from.

    python -m pipeline.clean     data/raw/ → data/clean/, metrics/clean.json

data/clean/ holds

- records.parquet: the rows that are kept; an id is the number of the row in the source, from 0
- task.json: the task whose columns the records have
- dropped.parquet: the ids of the dropped rows, each with its reason
- dropped.jsonl: the same with the texts of the source

A row is dropped for the first reason in REASONS that applies. The filters (all but the first four and the last) are off
unless the clean section turns them on.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.clean.filters import Filters
from pipeline.clean.transforms import TRANSFORMS, Transforms
from pipeline.config.params import Clean, Params
from pipeline.core.entrypoint import stage
from pipeline.core.files import ParquetReader, atomic_write, damaged_error, json_line, write_json
from pipeline.core.paths import CLEAN, METRICS, RAW_COLUMNS, RAW_ROWS, RECORDS, RECORDS_TASK
from pipeline.errors import DataError
from pipeline.records.columns import ColumnMapping, column_values, format_mapping, read_column_mapping, require_text
from pipeline.records.tasks import ROLES, format_names, write_task

log = logging.getLogger(__name__)

REASONS = (
    "malformed",  # messages in no known format
    "empty",  # a text that the task needs
    "no_answer",  # a chat in which no user gets an answer
    "boilerplate",  # the answer is nothing else
    "mostly_boilerplate",
    "contacts",
    "too_short",
    "too_long",
    "mostly_nonletters",
    "other_language",
    "duplicate",  # an earlier row is exactly the same
)
SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
MESSAGE_FORMATS = f"lists of {{role: {', '.join(ROLES)}; content}} or {{from: {', '.join(SHAREGPT_ROLES)}; value}}"
DROPPED_SCHEMA = pa.schema({"id": pa.int64(), "reason": pa.string()})
BATCH_SIZE = 1024  # rows in memory as Python objects
Record = dict[str, Any]


class CleanedBatch(NamedTuple):
    """The result of cleaning some rows."""

    records: list[Record]  # id and the task's columns
    dropped: list[Record]  # id, reason, same_as (of a duplicate: the id of the first such row), the source's texts
    changed: Counter[str]  # rows, kept or dropped, that each of TRANSFORMS changed


class Cleaner:
    """Cleans the rows of a source batch by batch, and remembers them to detect duplicates."""

    def __init__(self, mapping: ColumnMapping, options: Clean) -> None:
        self.mapping, self.task, self.options = mapping, mapping.task, options
        self.transforms, self.filters = Transforms(options), Filters(options)
        self.first_row_of: dict[bytes, int] = {}  # row hash → id of the first such row

    def clean_batch(self, table: pa.Table, first_row: int = 0) -> CleanedBatch:
        """Clean the rows of a table that begins with the source's row `first_row`.

        Raises DataError if a cell is not text.
        """
        cells = {name: column_values(table, value, first_row) for name, value in self.mapping.columns.items()}
        names = [name for name in self.task.columns if name in cells]  # in the task's order
        batch = CleanedBatch([], [], Counter())
        for row, values in enumerate(zip(*(cells[name] for name in names), strict=True), start=first_row):
            applied: set[str] = set()
            source = dict(zip(names, values, strict=True))
            record = {name: self._clean_cell(name, value, row, applied) for name, value in source.items()}
            drop = self._drop_of(record, row, applied)
            batch.changed.update(applied)
            if drop:
                batch.dropped.append({"id": row, **drop, **source})
            else:
                batch.records.append({"id": row, **record})
        return batch

    def _drop_of(self, record: Record, row: int, applied: set[str]) -> Record | None:
        """Why the row is dropped, as keys of `CleanedBatch.dropped`; None if it is kept."""
        if reason := self._drop_reason(record, applied):
            return {"reason": reason}
        if self.options.deduplicate and (first := self.first_row_of.setdefault(_row_hash(record), row)) != row:
            return {"reason": "duplicate", "same_as": first}
        return None

    def _clean_cell(self, name: str, value: Any, row: int, applied: set[str]) -> Any:
        if name == "messages":
            return self._clean_messages(value, applied)
        # Questions and answers are prose; in the other tasks, line breaks may have a meaning.
        is_prose = self.task.name == "question/answer"
        text = self.transforms.clean_text(require_text(value, row, name), is_prose, applied)
        if name == self.task.question:
            return self.transforms.strip_question(text)
        return self.transforms.strip_answer(text, applied) if name == self.task.answer else text

    def _clean_messages(self, value: Any, applied: set[str]) -> list[dict[str, str]] | None:
        """The cleaned messages, up to the last answer; None if the cell is in no known format."""
        if (turns := parse_turns(value)) is None:
            return None
        texts = [
            (role, self.transforms.clean_text(content, is_prose=False, applied=applied)) for role, content in turns
        ]
        messages = [{"role": role, "content": text} for role, text in texts if text or role != "system"]
        while messages and messages[-1]["role"] != "assistant":
            messages.pop()  # nothing answers it
        if messages:
            messages[-1]["content"] = self.transforms.strip_answer(messages[-1]["content"], applied)
        return messages

    def _drop_reason(self, record: Record, applied: set[str]) -> str | None:
        if self.task.name == "chat":
            messages = record["messages"]
            if messages is None:
                return "malformed"
            if len(messages) < 2 or messages[-2]["role"] != "user":
                return "no_answer"
            required = [message["content"] for message in messages]
            question, answer = "\n".join(m["content"] for m in messages if m["role"] == "user"), required[-1]
        else:
            required = [record[name] for name in self.task.required]
            question, answer = record.get(self.task.question or "", ""), record[self.task.answer or ""]
        if not all(required):
            only_answer_is_empty = not answer and sum(not text for text in required) == 1
            return "boilerplate" if only_answer_is_empty and "stripped" in applied else "empty"
        return self.filters.drop_reason(question, answer)


def parse_turns(value: Any) -> list[tuple[str, str]] | None:
    """(role, content) of each message in a cell, in OpenAI's or ShareGPT's format; None if it is in neither.

    >>> parse_turns([{"from": "human", "value": "Is it flu?"}, {"role": "assistant", "content": None}])
    [('user', 'Is it flu?'), ('assistant', '')]
    """
    if not isinstance(value, list | None):
        return None
    turns = []
    for message in value or []:
        # Where a column mixes both formats, each message also has the other's keys, with null in them.
        keys = message if isinstance(message, dict) else {}
        role, content = keys.get("role"), keys.get("content")
        if role is None:
            role, content = SHAREGPT_ROLES.get(str(keys.get("from"))), keys.get("value")
        if role not in ROLES or not isinstance(content, str | None):
            return None
        turns.append((role, content or ""))
    return turns


def _row_hash(record: Record) -> bytes:
    """The hash that exact duplicates share. No cleaned text holds a NUL, so NUL separates the columns."""
    texts = (value if isinstance(value, str) else repr(value) for value in record.values())
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def records_schema(mapping: ColumnMapping) -> pa.Schema:
    """The schema of records.parquet: id, then the task's columns."""
    message = pa.struct({"role": pa.string(), "content": pa.string()})
    types = {name: pa.list_(message) if name == "messages" else pa.string() for name in mapping.task.columns}
    return pa.schema({"id": pa.int64()} | {name: kind for name, kind in types.items() if name in mapping.columns})


def clean_batches(batches: Iterable[pa.Table], mapping: ColumnMapping, options: Clean) -> Iterator[CleanedBatch]:
    """Clean the source's rows, which come in batches and in order."""
    cleaner, first_row = Cleaner(mapping, options), 0
    for table in batches:
        yield cleaner.clean_batch(table, first_row)
        first_row += table.num_rows


def write_cleaned(batches: Iterable[CleanedBatch], mapping: ColumnMapping) -> dict[str, Any]:
    """Write data/clean and return the metrics. Raises DataError if no row is kept."""
    rows, reasons, changed = 0, Counter[str](), Counter[str]()
    schema = records_schema(mapping)
    with atomic_write(CLEAN) as folder:
        folder.mkdir()
        write_task(folder / RECORDS_TASK.name, mapping.task)
        with (
            pq.ParquetWriter(folder / RECORDS.name, schema, compression="zstd") as records,
            pq.ParquetWriter(folder / "dropped.parquet", DROPPED_SCHEMA, compression="zstd") as dropped,
            (folder / "dropped.jsonl").open("wb") as dropped_texts,
        ):
            for batch in batches:
                rows += len(batch.records) + len(batch.dropped)
                changed += batch.changed
                reasons.update(row["reason"] for row in batch.dropped)
                if batch.records:
                    records.write_table(pa.Table.from_pylist(batch.records, schema))
                dropped.write_table(pa.Table.from_pylist(batch.dropped, DROPPED_SCHEMA))
                dropped_texts.writelines(map(json_line, batch.dropped))
        metrics = {
            "rows_in": rows,
            "rows_kept": rows - reasons.total(),
            "dropped": {reason: reasons[reason] for reason in REASONS},
            "changed": {transform: changed[transform] for transform in TRANSFORMS},
        }
        require_kept_rows(metrics)
    return metrics


def require_kept_rows(metrics: dict[str, Any]) -> None:
    """Raise DataError with the counts by reason if no row is kept."""
    if not metrics["rows_kept"]:
        hint = f"; messages are {MESSAGE_FORMATS}" if metrics["dropped"]["malformed"] else ""
        raise DataError(
            f"no row left of {metrics['rows_in']:,}: dropped {format_counts(metrics['dropped'])}. "
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
    return format_counts({TRANSFORMS[name]: count for name, count in counts.items()})


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
    log.info(f"Cleaning {rows.num_rows:,} rows: {format_mapping(mapping.columns)}")
    with tqdm(total=rows.num_rows, desc="clean", unit="row", disable=None, leave=False) as bar:
        tables = rows.iter_tables(mapping.source_columns(), BATCH_SIZE, bar)
        metrics = write_cleaned(clean_batches(tables, mapping, params.clean), mapping)
    write_json(METRICS / "clean.json", metrics)
    log.info(
        f"{metrics['rows_kept']:,} of {metrics['rows_in']:,} rows kept; dropped: {format_counts(metrics['dropped'])}; "
        f"changed: {describe_changes(metrics['changed'])} → {CLEAN}/"
    )
