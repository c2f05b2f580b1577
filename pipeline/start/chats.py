"""Chats of the sample as the chat template renders them, and their lengths as tokenize counts them."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, NamedTuple

from pipeline.chat.control_tokens import EscapedDialogue
from pipeline.chat.dialogue import Dialogue, learned_turns
from pipeline.chat.encoder import ChatEncoder, EncodedText
from pipeline.chat.model_template import load_chat_encoder
from pipeline.chat.row_format import ChatFormat
from pipeline.chat.rows import RowText, render_rows
from pipeline.format.rendering import chat_reader_of
from pipeline.records.json_cells import dump_json
from pipeline.records.tasks import Task
from pipeline.start.lengths import ChatLengths, Lengths
from pipeline.start.model_facts import ModelFacts
from pipeline.start.renderer import Rendered, RenderedRows


class _Measured(NamedTuple):
    prompt: int  # tokens before the last learned turn
    completion: int  # the others
    answer: int  # tokens of the longest learned turn


def render_chats(
    records: Iterable[dict[str, Any]],
    task: Task,
    row_format: ChatFormat,
    facts: ModelFacts,
    system: str | None,
    loss: str,
) -> RenderedRows:
    """Render cleaned records with the model in `facts.folder`. system: format.system. loss: tokenize.loss.

    Raises DataError if the template's generation marks are wrong.
    """
    assert facts.folder is not None
    reader = chat_reader_of(row_format, system, facts.folder)
    encoder = load_chat_encoder(row_format, facts.folder, facts.encoder)
    rendered: list[Rendered] = []
    measured: list[_Measured] = []
    for record in records:
        tools = record.get("tools")
        dialogue = reader.read({**record, "tools": dump_json(tools) if tools else None}, task)
        if dialogue is not None:
            escaped = encoder.tokens.escape(dialogue)
            rows = _rows_of(escaped.dialogue, encoder, loss)
            rendered.append(_last_turn(rows[-1], escaped))
            measured += [_measure(row, encoder.encode(row.text, escaped)) for row in rows]
    chat = ChatLengths([row.answer for row in measured], len(measured) / max(1, len(rendered)))
    lengths = Lengths([row.prompt for row in measured], [row.completion for row in measured], False, chat)
    refused = Counter(reason for _, reason, _ in reader.refused)
    return RenderedRows(rendered, lengths, refused, {**asdict(reader.counts), "end_tokens": sorted(reader.end_tokens)})


def _rows_of(dialogue: Dialogue, encoder: ChatEncoder, loss: str) -> list[RowText]:
    """The rows to learn an escaped dialogue from."""
    learned = learned_turns(dialogue.messages, loss)
    ended = dialogue.until(learned[-1] + 1)
    if loss == "full":  # one row
        learned = learned[-1:]
    return render_rows(encoder.template, encoder.tokens, ended, learned, encoder.stop_tokens)


def _last_turn(row: RowText, escaped: EscapedDialogue) -> Rendered:
    turn = row.turns[-1]
    answer = turn.answer[: turn.end] if turn.end else turn.answer
    return Rendered(escaped.dialogue.id, escaped.restore(turn.prompt), escaped.restore(answer), len(row.turns) - 1)


def _measure(row: RowText, encoded: EncodedText) -> _Measured:
    starts = [start for start, _ in encoded.spans]  # in ascending order
    prompt = bisect_left(starts, len(row.turns[-1].prompt))
    earlier = [
        bisect_left(starts, span.end) - bisect_left(starts, span.start)
        for span in (turn.span for turn in row.turns[:-1])
    ]
    completion = len(starts) - prompt
    return _Measured(prompt, completion, max([completion, *earlier]))
