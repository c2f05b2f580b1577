"""A sample of the rows, cleaned and rendered as the stages will do it, to measure and to show."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from pipeline.chat.dialogue import learned_turns
from pipeline.chat.row_format import PLAIN_TEXT, ChatFormat, TextFormat
from pipeline.chat.turns import render_turn
from pipeline.clean.cleaner import Cleaner, conversational_mapping
from pipeline.config.params import Clean, Format
from pipeline.config.sources import Data, FileRows
from pipeline.config.templates import ChatTemplateOption
from pipeline.core.files import local_files
from pipeline.errors import DataError
from pipeline.fetch import sources
from pipeline.format.chat_notes import describe_row_format
from pipeline.format.chat_rows import ChatReader
from pipeline.format.conversations import conversations_of
from pipeline.format.rendering import chat_reader_of, choose_row_format, render_row
from pipeline.records.columns import ColumnMapping
from pipeline.records.tasks import Task, has_context, unrenderable_parts

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
    rendering: str  # what renders the rows
    is_chat: bool  # whether that is a chat template


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


def render_sample(rows: Rows, mapping: ColumnMapping, clean: Clean, options: Format, folder: Path | None) -> Sample:
    """Clean and render the rows, evenly spaced ones if there are many.

    folder: of the model's tokenizer and chat template; None if they are not known. Raises DataError if a mapped cell is not text
    or no row is kept.
    """
    table = rows.table.select(mapping.source_columns())
    if table.num_rows > MAX_ROWS:
        table = table.take(np.linspace(0, table.num_rows - 1, MAX_ROWS).astype(np.int64))
    mapping = conversational_mapping(mapping, table)
    batch = Cleaner(mapping, without_token_limits(clean)).clean_batch(table)
    dropped = Counter(row["reason"] for row in batch.dropped)
    row_format = row_format_of(options, mapping.task, batch.records, folder)
    if is_chat := isinstance(row_format, ChatFormat) and folder is not None:
        rendered, refused = render_chats(
            batch.records, mapping.task, chat_reader_of(row_format, options.system, folder)
        )
    else:
        rendered, refused = render_texts(batch.records, mapping.task, row_format, options.system)
    dropped.update(refused)
    if not rendered:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
        raise DataError(
            f"none of the {table.num_rows:,} rows can be learned from ({reasons}). Choose other columns: --columns"
        )
    with_html = sum(any(tag in (row.prompt + row.completion) for tag in HTML) for row in rendered)
    return Sample(rendered, table.num_rows, dropped, with_html, describe_row_format(row_format, mapping.task), is_chat)


def row_format_of(
    options: Format, task: Task, records: list[dict[str, Any]], folder: Path | None
) -> TextFormat | ChatFormat:
    """The format in which the stages will render the records, as far as the model is known."""
    if folder is not None:
        return choose_row_format(options, task, any(has_context(task, record) for record in records), folder)
    template = options.template
    if isinstance(template, ChatTemplateOption):
        return PLAIN_TEXT
    return TextFormat(prompt=template.prompt, completion=template.completion)


def render_texts(
    records: list[dict[str, Any]], task: Task, row_format: TextFormat | ChatFormat, system: str | None
) -> tuple[list[Rendered], list[str]]:
    """(the rows by a prompt template, the reasons of those that it cannot express)."""
    renderable = [r for r in records if not {"tool_calls", "tool_results"} & set(unrenderable_parts(task, r))]
    rows = (render_row(conversation, row_format) for conversation in conversations_of(renderable, task, system))
    refused = ["needs_chat_template"] * (len(records) - len(renderable))
    return [Rendered(row["id"], row["prompt"], row["completion"]) for row in rows], refused


def render_chats(records: list[dict[str, Any]], task: Task, reader: ChatReader) -> tuple[list[Rendered], list[str]]:
    """(the dialogues, each before and from its last learned turn on, the reasons of those that the template cannot express)."""
    rendered = []
    for record in records:
        if (dialogue := reader.read(record, task)) is None:
            continue
        escaped = reader.tokens.escape(dialogue)
        (last,) = learned_turns(dialogue.messages, "last")
        stop_tokens = reader.row_format.stop_tokens
        turn = render_turn(reader.template, reader.tokens, escaped.dialogue, last, stop_tokens)
        texts = (escaped.restore(text) for text in (turn.prompt, turn.answer[: turn.end]))
        rendered.append(Rendered(dialogue.id, *texts))
    return rendered, [reason for _, reason, _ in reader.refused]
