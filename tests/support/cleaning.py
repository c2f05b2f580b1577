"""Rows through clean's functions, with literal options that hold the patterns for ruslanmv/ai-medical-chatbot."""

import json
from typing import Any

import pyarrow as pa

from pipeline.clean.cleaner import CleanedBatch, Cleaner, conversational_mapping
from pipeline.config.params import Clean
from pipeline.records.columns import resolve_columns

Rows = list[dict[str, Any]]

ANY_LENGTH = {"min_characters": None, "max_characters": None, "min_tokens": None, "max_tokens": None}
OPTIONS: dict[str, Any] = {
    "line_ends": "normalize",
    "blank_lines": "trim",
    "whitespace": "keep",
    "html": "keep",
    "quoted_replies": "keep",
    "signatures": "keep",
    "mend_encoding": False,
    "question_prefixes": ["Q."],
    "strip": [r"([^.?!:]*\bonline\b[^.?!:]*\.?\s*)?-+>"],
    "contacts": "keep",
    "boilerplate": [
        r"\b(hi there|hi|hello|dear|(and )?welcome to (the )?\w+\.com)\b",
        r"\b(thanks|thank you|regards|take care|do not worry)\b",
        r"\b(i )?hope,? (this|that|it)( helps| will help)( you)?\b",
        r"\bi (have (gone through|read|seen|noted)|just read|read|can understand|understand) your "
        r"(query|question|case|concerns?)( and (understand your )?concerns?)?( with diligence)?"
        r"( and would like you to know that i am here to help you)?",
        r"\b(for (any )?(further|more) \w+|(kindly )?revert( back)?( with| for| after)?[^.?!]*?|please)?,? ?"
        r"(consult|follow up with|to) (an?|your)( \w+){1,3} online( for further [a-z ]+)?\.?\s*-*>*",
    ],
    "max_boilerplate": None,
    "max_nonletters": None,
    "languages": None,
    "question": ANY_LENGTH,
    "answer": ANY_LENGTH,
    "deduplicate": True,
}
BOILERPLATE = "Hi. For further doubts consult a sexologist online -->"


def clean_options(**changes: Any) -> Clean:
    return Clean.model_validate(OPTIONS | changes)


def clean_batch(
    rows: Rows | pa.Table, columns: dict[str, str] | None = None, first_test_row: int | None = None, **changes: Any
) -> CleanedBatch:
    """The rows cleaned as one batch; `changes` are of the options."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    mapping = resolve_columns(table.column_names, columns)._replace(first_test_row=first_test_row)
    return Cleaner(conversational_mapping(mapping, table), clean_options(**changes)).clean_batch(table)


def clean_rows(
    rows: Rows | pa.Table, columns: dict[str, str] | None = None, **changes: Any
) -> tuple[Rows, list[dict[str, Any]]]:
    """(records, id and reason of each dropped row); `changes` are of the options. A chat without tools has no such key."""
    batch = clean_batch(rows, columns, **changes)
    records = [{key: value for key, value in record.items() if key != "tools" or value} for record in batch.records]
    return records, [{"id": row["id"], "reason": row["reason"]} for row in batch.dropped]


def json_column(*values: Any) -> pa.Array:
    """A column as fetch stores one of lists, objects or mixed types."""
    return pa.array([None if value is None else json.dumps(value) for value in values], pa.json_())


def chat_row(*turns: tuple[str | None, str | None]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}
