"""Maps the source's columns onto the task's, tidies the texts, and drops what cannot be learned from.

    python -m pipeline.clean     data/raw/ → data/clean/, metrics/clean.json

data/clean/records.parquet has the rows that are kept, dropped.parquet the others' ids with the reason, and
dropped.jsonl the same with their texts as they came. A row is dropped for the first of REASONS that holds; those that
filter (all but the first four and the last) are off unless the clean section asks for them.
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
from pipeline.core.files import ParquetRows, atomic_write, json_line, write_json
from pipeline.core.paths import CLEAN, METRICS, RAW_ROWS
from pipeline.errors import DataError
from pipeline.records.columns import ColumnMapping, column_values, format_mapping, resolve_columns
from pipeline.records.tasks import ROLES
from pipeline.records.text import cell_text

log = logging.getLogger(__name__)

REASONS = (
    "malformed",  # messages of no known form
    "empty",  # a text that the task needs
    "no_answer",  # a chat in which nobody answers a user
    "boilerplate",  # an answer of nothing else
    "mostly_boilerplate",
    "contacts",
    "too_short",
    "too_long",
    "mostly_nonletters",
    "other_language",
    "duplicate",  # an earlier row is exactly the same
)
SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
MESSAGES = f"lists of {{role: {', '.join(ROLES)}; content}} or {{from: {', '.join(SHAREGPT)}; value}}"
DROPPED = pa.schema({"id": pa.int64(), "reason": pa.string()})
BATCH = 1024  # rows in memory as Python's objects
Record = dict[str, Any]


class CleanedBatch(NamedTuple):
    """What became of some rows. An id is the row's number in the source, from 0."""

    records: list[Record]  # id and the task's columns
    dropped: list[Record]  # id, reason, same_as (the first row of a duplicate's) and the source's texts
    changed: Counter[str]  # of all rows, those with one of CHANGES


class Cleaner:
    """Cleans the rows of a source batch after batch, and knows which it has seen."""

    def __init__(self, taken: ColumnMapping, options: Clean) -> None:
        self.taken, self.task, self.options = taken, taken.task, options
        self.needed = self.task.required
        self.changes, self.filters = Transforms(options), Filters(options)
        self.seen: dict[bytes, int] = {}

    def batch(self, table: pa.Table, first: int = 0) -> CleanedBatch:
        """Clean the table's rows, which begin with the source's row `first`; DataError names a cell that is no text."""
        cells = {name: column_values(table, value, first) for name, value in self.taken.columns.items()}
        names = [name for name in self.task.columns if name in cells]  # the task's order
        cleaned = CleanedBatch([], [], Counter())
        for row, values in enumerate(zip(*(cells[name] for name in names), strict=True), start=first):
            done: set[str] = set()
            given = dict(zip(names, values, strict=True))
            record = {name: self._tidied(name, value, row, done) for name, value in given.items()}
            fate = self._fate(record, row, done)
            cleaned.changed.update(done)
            if fate:
                cleaned.dropped.append({"id": row, **fate, **given})
            else:
                cleaned.records.append({"id": row, **record})
        return cleaned

    def _fate(self, record: Record, row: int, done: set[str]) -> dict[str, Any] | None:
        """Why the row is dropped, in the keys of `dropped`; None if it is kept."""
        if reason := self._reason(record, done):
            return {"reason": reason}
        if self.options.deduplicate and (earlier := self.seen.setdefault(_key(record), row)) != row:
            return {"reason": "duplicate", "same_as": earlier}
        return None

    def _tidied(self, name: str, value: Any, row: int, done: set[str]) -> Any:
        if name == "messages":
            return self._messages(value, done)
        if value is not None and not isinstance(value, (str, int, float)):
            raise DataError(f"row {row}, {name}: a {type(value).__name__}; expected text (see data.columns)")
        # What a person asks and answers is prose; in the other tasks line breaks may mean something.
        text = self.changes.text(cell_text(value), prose=self.task.name == "question/answer", done=done)
        if name == self.task.question:
            return self.changes.question(text)
        return self.changes.answer(text, done) if name == self.task.answer else text

    def _messages(self, value: Any, done: set[str]) -> list[dict[str, str]] | None:
        """Chat messages with role and content, tidied, up to the last answer; null where they are not of that form."""
        if (turns := parse_turns(value)) is None:
            return None
        texts = [(role, self.changes.text(content, prose=False, done=done)) for role, content in turns]
        said = [{"role": role, "content": text} for role, text in texts if text or role != "system"]
        while said and said[-1]["role"] != "assistant":
            said.pop()  # what nobody answered
        if said:
            said[-1]["content"] = self.changes.answer(said[-1]["content"], done)
        return said

    def _reason(self, record: Record, done: set[str]) -> str | None:
        if self.task.name == "chat":
            messages = record["messages"]
            if messages is None:
                return "malformed"
            if len(messages) < 2 or messages[-2]["role"] != "user":
                return "no_answer"
            needed = [message["content"] for message in messages]
            question, answer = "\n".join(m["content"] for m in messages if m["role"] == "user"), needed[-1]
        else:
            needed = [record[name] for name in self.needed]
            question, answer = record.get(self.task.question or "", ""), record[self.task.answer or ""]
        if not all(needed):
            nothing_else = "stripped" in done and sum(not text for text in needed) == 1 and not answer
            return "boilerplate" if nothing_else else "empty"
        return self.filters.reason(question, answer)


def parse_turns(value: Any) -> list[tuple[str, str]] | None:
    """(role, content) of a cell of chat messages, OpenAI's or ShareGPT's; null where it is neither.

    >>> parse_turns([{"from": "human", "value": "Is it flu?"}, {"role": "assistant", "content": None}])
    [('user', 'Is it flu?'), ('assistant', '')]
    """
    if not isinstance(value, list | None):
        return None
    turns = []
    for message in value or []:
        # Where some rows are OpenAI's and others ShareGPT's, each has the other's keys, too, and nothing in them.
        keys = message if isinstance(message, dict) else {}
        role, content = keys.get("role"), keys.get("content")
        if role is None:
            role, content = SHAREGPT.get(str(keys.get("from"))), keys.get("value")
        if role not in ROLES or not isinstance(content, str | None):
            return None
        turns.append((role, content or ""))
    return turns


def _key(record: Record) -> bytes:
    """What rows that are exactly the same share; no tidied text holds a NUL."""
    texts = (value if isinstance(value, str) else repr(value) for value in record.values())
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def records_schema(taken: ColumnMapping) -> pa.Schema:
    """Of records.parquet: id, then the task's columns."""
    message = pa.struct({"role": pa.string(), "content": pa.string()})
    kinds = {name: pa.list_(message) if name == "messages" else pa.string() for name in taken.task.columns}
    return pa.schema({"id": pa.int64()} | {name: kind for name, kind in kinds.items() if name in taken.columns})


def clean_batches(batches: Iterable[pa.Table], taken: ColumnMapping, options: Clean) -> Iterator[CleanedBatch]:
    """Clean the source's rows, given in batches, in their order."""
    cleaner, first = Cleaner(taken, options), 0
    for table in batches:
        yield cleaner.batch(table, first)
        first += table.num_rows


def write_cleaned(batches: Iterable[CleanedBatch], taken: ColumnMapping) -> dict[str, Any]:
    """Write data/clean; return the metrics. DataError if no row is kept."""
    rows, reasons, changed = 0, Counter[str](), Counter[str]()
    schema = records_schema(taken)
    with atomic_write(CLEAN) as folder:
        folder.mkdir()
        with (
            pq.ParquetWriter(folder / "records.parquet", schema, compression="zstd") as records,
            pq.ParquetWriter(folder / "dropped.parquet", DROPPED, compression="zstd") as dropped,
            (folder / "dropped.jsonl").open("wb") as texts,
        ):
            for each in batches:
                rows += len(each.records) + len(each.dropped)
                changed += each.changed
                reasons.update(row["reason"] for row in each.dropped)
                if each.records:
                    records.write_table(pa.Table.from_pylist(each.records, schema))
                dropped.write_table(pa.Table.from_pylist(each.dropped, DROPPED))
                texts.writelines(map(json_line, each.dropped))
        metrics = {
            "rows_in": rows,
            "rows_kept": rows - reasons.total(),
            "dropped": {reason: reasons[reason] for reason in REASONS},
            "changed": {change: changed[change] for change in TRANSFORMS},
        }
        require_rows(metrics)
    return metrics


def require_rows(metrics: dict[str, Any]) -> None:
    """Raise DataError if no row is kept, with what became of them."""
    if not metrics["rows_kept"]:
        hint = f"; messages are {MESSAGES}" if metrics["dropped"]["malformed"] else ""
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


@stage("clean")
def main(params: Params) -> None:
    raw = ParquetRows(RAW_ROWS)
    taken = resolve_columns(raw.column_names, params.data.columns)
    log.info(f"Cleaning {raw.num_rows:,} rows: {format_mapping(taken.columns)}")
    with tqdm(total=raw.num_rows, desc="clean", unit="row", disable=None, leave=False) as bar:
        metrics = write_cleaned(clean_batches(raw.tables(taken.sources(), BATCH, bar), taken, params.clean), taken)
    write_json(METRICS / "clean.json", metrics)
    log.info(
        f"{metrics['rows_kept']:,} of {metrics['rows_in']:,} rows kept; dropped: {format_counts(metrics['dropped'])}; "
        f"changed: {format_counts(metrics['changed'])} → {CLEAN}/"
    )
