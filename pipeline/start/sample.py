"""A sample of the rows, cleaned and rendered as the stages will do it, to measure and to show."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from pipeline.chat.row_format import TextFormat
from pipeline.clean.cleaner import Cleaner, conversational_mapping
from pipeline.config.params import Clean
from pipeline.config.sources import Data, FileRows
from pipeline.core.files import local_files
from pipeline.errors import DataError
from pipeline.fetch import sources
from pipeline.format.conversations import conversations_of
from pipeline.format.rendering import render_row
from pipeline.records.columns import ColumnMapping
from pipeline.records.tasks import unrenderable_parts

MAX_ROWS = 20_000  # to clean, render and tokenize, which takes seconds
MAX_LOCAL_BYTES = 500_000_000  # read as a whole, to count the rows
HTML = ("</p>", "<br", "</div>", "</li>", "&nbsp;", "&amp;", "</a>", "</span>")


class Rows(NamedTuple):
    """The source's rows, as far as they were read."""

    table: pa.Table
    is_complete: bool  # whether these are all rows
    test_rows: int | None  # of the user's own test set; None: there is none


class Rendered(NamedTuple):
    id: int
    prompt: str
    completion: str


class Sample(NamedTuple):
    """Some rows through clean and format."""

    rows: list[Rendered]
    read: int  # rows that were cleaned
    dropped: Counter[str]  # reason → rows
    with_html: int


def read_rows(values: dict[str, Any]) -> Rows:
    """The rows of a data section; only the first MAX_ROWS of a remote source or of large files. Raises DataError."""
    data: Data = TypeAdapter(Data).validate_python(values)
    limit = data.limit
    if isinstance(data, FileRows) and not _is_small(data):
        limit = min(MAX_ROWS + 1, limit or MAX_ROWS + 1)
    rows, test = sources.read_source(data.model_copy(update={"limit": limit}))
    table = rows.table.slice(0, limit)
    if table.num_rows == 0:
        raise DataError("the source has no rows; expected at least one")
    is_complete = limit in (None, data.limit) or table.num_rows < limit
    return Rows(table, is_complete, None if test is None else test.table.num_rows)


def _is_small(data: FileRows) -> bool:
    if "://" in data.path:
        return False
    return sum(file.stat().st_size for file in local_files(data.path)[1]) <= MAX_LOCAL_BYTES


def without_token_limits(clean: Clean) -> Clean:
    """The options without limits in tokens, which need the tokenizer in models/base: fetch may not have run."""
    limits = {"min_tokens": None, "max_tokens": None}
    question, answer = (section.model_copy(update=limits) for section in (clean.question, clean.answer))
    return clean.model_copy(update={"question": question, "answer": answer})


def render_sample(rows: Rows, mapping: ColumnMapping, clean: Clean, row_format: TextFormat) -> Sample:
    """Clean and render the rows, evenly spaced ones if there are many.

    Raises DataError if a mapped cell is not text or no row is kept.
    """
    table = rows.table.select(mapping.source_columns())
    if table.num_rows > MAX_ROWS:
        table = table.take(np.linspace(0, table.num_rows - 1, MAX_ROWS).astype(np.int64))
    mapping = conversational_mapping(mapping, table)
    batch = Cleaner(mapping, without_token_limits(clean)).clean_batch(table)
    dropped = Counter(row["reason"] for row in batch.dropped)
    renderable = []
    for record in batch.records:
        if {"tool_calls", "tool_results"} & set(unrenderable_parts(mapping.task, record)):
            dropped["needs_chat_template"] += 1
        else:
            renderable.append(record)
    rendered = [
        Rendered(row["id"], row["prompt"], row["completion"])
        for row in (render_row(conversation, row_format) for conversation in conversations_of(renderable, mapping.task))
    ]
    if not rendered:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
        raise DataError(
            f"none of the {table.num_rows:,} rows can be learned from ({reasons}). Choose other columns: --columns"
        )
    with_html = sum(any(tag in (row.prompt + row.completion) for tag in HTML) for row in rendered)
    return Sample(rendered, table.num_rows, dropped, with_html)
