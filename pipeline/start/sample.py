"""A sample of the rows, cleaned and rendered as the stages will do it, to measure and to show."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from pipeline.chat.row_format import ChatFormat, TextFormat
from pipeline.clean.cleaner import Cleaner, conversational_mapping
from pipeline.config.params import Clean, Format
from pipeline.config.sources import Data, FileRows
from pipeline.core.files import local_files
from pipeline.errors import DataError
from pipeline.fetch import sources
from pipeline.format.conversations import conversations_of
from pipeline.format.rendering import render_row
from pipeline.records.columns import ColumnMapping
from pipeline.records.tasks import Task, has_context, unrenderable_parts
from pipeline.start.chats import render_chats
from pipeline.start.lengths import measure_lengths
from pipeline.start.model_facts import ModelFacts
from pipeline.start.renderer import (
    NEEDS_CHAT_TEMPLATE,
    Rendered,
    RenderedRows,
    Renderer,
    choose_renderer,
    describe_refused,
)

MAX_ROWS = 20_000  # to clean, render and tokenize, which takes seconds
MAX_CHATS = 4_000  # the same of rows that a chat template renders
MAX_LOCAL_BYTES = 500_000_000  # read as a whole, to count the rows
HTML = ("</p>", "<br", "</div>", "</li>", "&nbsp;", "&amp;", "</a>", "</span>")


class Rows(NamedTuple):
    """The source's rows, as far as they were read."""

    table: pa.Table
    is_complete: bool  # whether these are all rows
    test_rows: int | None  # of the user's own test set; None: there is none


class Cleaned(NamedTuple):
    """Some rows through clean."""

    task: Task
    records: list[dict[str, Any]]
    read: int  # rows that were cleaned
    dropped: Counter[str]  # reason → rows


class Sample(NamedTuple):
    """Some rows through clean and format."""

    renderer: Renderer
    rendered: RenderedRows
    read: int  # rows that were cleaned
    dropped: Counter[str]  # reason → rows, by clean and by format
    with_html: int

    @property
    def rows(self) -> list[Rendered]:
        return self.rendered.rows


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


def render_sample(
    rows: Rows, mapping: ColumnMapping, clean: Clean, options: Format, loss: str, facts: ModelFacts
) -> Sample:
    """Clean and render the rows, evenly spaced ones if there are many. loss: tokenize.loss.

    Raises DataError if a mapped cell is not text or no row is kept; ConfigError or DataError if the chat template that is to
    render the rows is missing or unusable.
    """
    cleaned = clean_rows(rows, mapping, clean, MAX_ROWS)
    with_context = any(has_context(cleaned.task, record) for record in cleaned.records)
    renderer = choose_renderer(options, cleaned.task, with_context, facts)
    if isinstance(renderer.row_format, ChatFormat):
        if len(cleaned.records) > MAX_CHATS:
            cleaned = clean_rows(rows, mapping, clean, MAX_CHATS)
        rendered = render_chats(cleaned.records, cleaned.task, renderer.row_format, facts, options.system, loss)
    else:
        rendered = render_texts(cleaned.records, cleaned.task, renderer.row_format, facts, options.system)
    dropped = cleaned.dropped + rendered.refused
    with_html = sum(any(tag in (row.prompt + row.completion) for tag in HTML) for row in rendered.rows)
    sample = Sample(renderer, rendered, cleaned.read, dropped, with_html)
    if not rendered.rows:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
        advice = "\n".join(describe_refused(rendered, renderer)) or "Choose other columns: --columns"
        raise DataError(f"none of the {cleaned.read:,} rows can be learned from ({reasons}). {advice}")
    return sample


def clean_rows(rows: Rows, mapping: ColumnMapping, clean: Clean, limit: int) -> Cleaned:
    """Clean the rows, `limit` evenly spaced ones if there are more. Raises DataError if a mapped cell is not text."""
    table = rows.table.select(mapping.source_columns())
    if table.num_rows > limit:
        table = table.take(np.linspace(0, table.num_rows - 1, limit).astype(np.int64))
    mapping = conversational_mapping(mapping, table)
    batch = Cleaner(mapping, without_token_limits(clean)).clean_batch(table)
    return Cleaned(mapping.task, batch.records, table.num_rows, Counter(row["reason"] for row in batch.dropped))


def render_texts(
    records: list[dict[str, Any]], task: Task, row_format: TextFormat, facts: ModelFacts, system: str | None
) -> RenderedRows:
    """Render cleaned records by a prompt template. system: format.system."""
    renderable = records
    if row_format.prompt is not None:
        renderable = [
            record for record in records if not {"tool_calls", "tool_results"} & set(unrenderable_parts(task, record))
        ]
    rendered = [
        Rendered(row["id"], row["prompt"], row["completion"])
        for row in (render_row(chat, row_format) for chat in conversations_of(renderable, task, system))
    ]
    refused = Counter({NEEDS_CHAT_TEMPLATE: len(records) - len(renderable)})
    lengths = measure_lengths([(row.prompt, row.completion) for row in rendered], facts.encoder)
    return RenderedRows(rendered, lengths, +refused)
