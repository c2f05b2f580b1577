"""Rows through clean's functions, with literal options that hold the patterns for ruslanmv/ai-medical-chatbot."""

from typing import Any

import pyarrow as pa

from pipeline.clean.stage import Cleaner
from pipeline.config.params import Clean
from pipeline.records.columns import resolve_columns

Rows = list[dict[str, Any]]

ANY_LENGTH = {"min_characters": None, "max_characters": None, "min_tokens": None, "max_tokens": None}
OPTIONS: dict[str, Any] = {
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


def clean_rows(
    rows: Rows | pa.Table, columns: dict[str, str] | None = None, **changes: Any
) -> tuple[Rows, list[dict[str, Any]]]:
    """(records, id and reason of each dropped row); `changes` are of the options."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    cleaner = Cleaner(resolve_columns(table.column_names, columns), clean_options(**changes))
    batch = cleaner.clean_batch(table)
    return batch.records, [{"id": row["id"], "reason": row["reason"]} for row in batch.dropped]


def chat_row(*turns: tuple[str | None, str | None]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}
