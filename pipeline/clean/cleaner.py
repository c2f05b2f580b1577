"""Cleans the rows of a source: brings each into the task's form, changes its texts, and decides whether it is kept."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.clean.chats import LEARNED_KEYS, ChatCleaner
from pipeline.clean.filters import Filters
from pipeline.clean.transforms import Changes, Transforms, TransformStep, apply_steps
from pipeline.config.params import Clean
from pipeline.records.columns import ColumnMapping, column_values, require_text
from pipeline.records.detection import is_template, referenced_columns
from pipeline.records.json_cells import dump_json_bytes
from pipeline.records.messages import NotAChatError, is_chat, read_earlier_turns
from pipeline.records.tasks import CHAT, Task
from pipeline.records.text import is_blank

UNUSABLE = ("malformed", "invalid_unicode", "empty", "no_answer")  # reasons that drop rows of a test set, too
Record = dict[str, Any]


class ChangeExample(NamedTuple):
    """A text before and after a change, for the log."""

    row: int
    before: str
    after: str


class CleanedBatch(NamedTuple):
    """The result of cleaning some rows."""

    records: list[Record]  # id and the task's columns
    dropped: list[Record]  # id, reason, same_as (of a duplicate: the id of the first such row), the source's texts
    changed: Counter[str]  # rows, kept or dropped, with each kind of change
    examples: dict[str, ChangeExample]  # of each kind of change, its first
    test_ids: set[int]  # of the rows that are the user's own test set


class Cleaner:
    """Cleans the rows of a source batch by batch, and remembers them to detect duplicates."""

    def __init__(self, mapping: ColumnMapping, options: Clean) -> None:
        self.mapping, self.task, self.options = mapping, mapping.task, options
        self.transforms, self.filters = Transforms(options, mapping.task), Filters(options)
        self.chats = ChatCleaner(self.transforms)
        self.steps = {name: self._steps_of(name, self.task) for name in self.task.columns}
        # In messages, a column has the user's name for it.
        self.names = {
            name: referenced_columns(value)[0] if not is_template(value) else value
            for name, value in mapping.columns.items()
        }
        self.first_row_of: dict[bytes, int] = {}  # row hash → id of the first such row

    def _steps_of(self, name: str, task: Task) -> list[TransformStep]:
        if name == task.question:
            return self.transforms.question
        if name == task.answer:
            return self.transforms.answer
        return self.transforms.context if name == "system" else self.transforms.text

    def clean_batch(self, table: pa.Table, first_row: int = 0) -> CleanedBatch:
        """Clean the rows of a table that begins with the source's row `first_row`.

        Raises DataError if a cell is not text.
        """
        cells = {name: column_values(table, value, first_row) for name, value in self.mapping.columns.items()}
        names = [name for name in (*self.task.columns, *cells) if name in cells]  # in the task's order
        names = list(dict.fromkeys(names))
        batch = CleanedBatch([], [], Counter(), {}, set())
        first_test_row = self.mapping.first_test_row
        for row, values in enumerate(zip(*(cells[name] for name in names), strict=True), start=first_row):
            source, changes = dict(zip(names, values, strict=True)), Changes()
            is_test = first_test_row is not None and row >= first_test_row
            try:
                record = self._clean_row(source, row, changes)
                drop = self._drop_of(record, row, changes, is_test)
            except NotAChatError as error:
                record, drop = {}, {"reason": "malformed", "detail": str(error)}
            for kind, texts in changes.items():
                batch.changed[kind] += 1
                if kind not in batch.examples:
                    batch.examples[kind] = ChangeExample(row, *texts)
            if is_test:
                batch.test_ids.add(row)
            if drop:
                batch.dropped.append({"id": row, **drop, **source})
            else:
                batch.records.append({"id": row, **record})
        return batch

    def _clean_row(self, source: Record, row: int, changes: Changes) -> Record:
        if self.task.name == "chat":
            return self.chats.clean(self._with_texts(source, row), changes)
        if source.get("tools"):
            changes["dropped_parts"] = ("tools", "")  # they belong to messages, which these texts are not
        return {name: self._clean_cell(name, value, row, changes) for name, value in source.items() if name != "tools"}

    def _with_texts(self, source: Record, row: int) -> Record:
        """The cells, those of `system` as texts."""
        if "system" not in source:
            return source
        return source | {"system": require_text(source["system"], row, self.names["system"])}

    def _clean_cell(self, name: str, value: Any, row: int, changes: Changes) -> Any:
        if name == "history":
            return self.chats.clean_turns(read_earlier_turns(value), changes)
        text = value if type(value) is str else require_text(value, row, self.names[name])
        text = apply_steps(text, self.steps[name], changes)
        return "" if name in self.task.optional and is_blank(text) else text

    def _drop_of(self, record: Record, row: int, changes: Changes, is_test: bool) -> Record | None:
        """Why the row is dropped, as keys of `CleanedBatch.dropped`; None if it is kept."""
        if not all(map(_is_valid, record.values())):
            return {"reason": "invalid_unicode"}
        question, answer, reason = self._question_and_answer(record)
        if reason == "empty" and "stripped" in changes and not is_test and self._lost_only_the_answer(record):
            reason = "boilerplate"
        if reason or is_test:
            return {"reason": reason} if reason else None
        if reason := self.filters.drop_reason(question, answer):
            return {"reason": reason}
        if self.options.deduplicate and (first := self.first_row_of.setdefault(_row_hash(record), row)) != row:
            return {"reason": "duplicate", "same_as": first}
        return None

    def _question_and_answer(self, record: Record) -> tuple[str, str, str | None]:
        """(the question, the answer, the reason if one of them is missing)."""
        if self.task.name == "chat":
            return self.chats.question_and_answer(record["messages"])
        for name in self.task.required:
            if is_blank(record[name]):
                return "", "", "empty"
        return record.get(self.task.question or "", ""), record[self.task.answer or ""], None

    def _lost_only_the_answer(self, record: Record) -> bool:
        if self.task.name == "chat":
            return self.chats.has_question(record["messages"])
        return not any(is_blank(record[name]) for name in self.task.required if name != self.task.answer)


def _is_valid(value: Any) -> bool:
    """Whether UTF-8 can hold the value's texts: no surrogate stands alone."""
    if type(value) is str and value.isascii():
        return True
    try:
        value.encode() if isinstance(value, str) else dump_json_bytes(value)
    except UnicodeEncodeError:
        return False
    return True


def _row_hash(record: Record) -> bytes:
    """The hash that exact duplicates share: of the texts, and of what is learned in messages."""
    values = list(record.values())
    for number, name in enumerate(record):
        if name in ("messages", "history"):
            values[number] = [[message.get(key) for key in LEARNED_KEYS] for message in values[number]]
    return hashlib.blake2b(dump_json_bytes(values), digest_size=16).digest()


def clean_batches(batches: Iterable[pa.Table], mapping: ColumnMapping, options: Clean) -> Iterator[CleanedBatch]:
    """Clean the source's rows, which come in batches and in order."""
    cleaner, first_row = Cleaner(mapping, options), 0
    for table in batches:
        yield cleaner.clean_batch(table, first_row)
        first_row += table.num_rows


def conversational_mapping(mapping: ColumnMapping, table: pa.Table) -> ColumnMapping:
    """The mapping with the task chat if its questions or answers are lists of messages, in the first rows of the source."""
    task = mapping.task
    names = [
        name for name in (task.question, task.answer) if name is not None and not is_template(mapping.columns[name])
    ]
    if any(is_chat(cell) for name in names for cell in column_values(table, mapping.columns[name]) if cell is not None):
        return mapping._replace(task=CHAT)
    return mapping
