"""Tokenizes rows of messages: data/formatted's chats become the rows of data/tokenized, one or several a dialogue."""

from pathlib import Path
from typing import Any

from pipeline.chat.dialogue import Dialogue
from pipeline.chat.encoder import ChatEncoder
from pipeline.chat.rows import MarksError
from pipeline.chat.template import RenderingError
from pipeline.chat.truncate import FittedRow, encode_fitted_rows
from pipeline.config.params import Tokenize
from pipeline.core.files import damaged_error
from pipeline.errors import DataError
from pipeline.modeling.encoding import IGNORE_INDEX
from pipeline.tokenize.blocks import Block, assemble_chat_block
from pipeline.tokenize.unknown import UnknownCounter, UnknownText


class ChatChunk:
    """Tokenized rows of dialogues."""

    def __init__(self, row_ids: list[int], rows: list[FittedRow], unknown: dict[str, UnknownText]) -> None:
        self.row_ids, self.rows, self.unknown = row_ids, rows, unknown
        self.prefix_checks = [(row_id, not row.row.is_whole) for row_id, row in zip(row_ids, rows, strict=True)]

    def assemble(self, options: Tokenize) -> Block:
        return assemble_chat_block(self.row_ids, self.rows)


def encode_chats(
    rows: list[tuple[int, dict[str, Any]]], encoder: ChatEncoder, options: Tokenize, counter: UnknownCounter, path: Path
) -> ChatChunk:
    """Tokenize (row number from 0, row) pairs of the file `path`.

    Raises DataError if a row is no dialogue, or the template cannot render it.
    """
    row_ids: list[int] = []
    fitted: list[FittedRow] = []
    for number, row in rows:
        dialogue = read_dialogue(row, number, path)
        try:
            fitted_rows = encode_fitted_rows(encoder, dialogue, options.loss, options.max_length)
        except (RenderingError, MarksError) as error:
            raise DataError(f"{path}, row {number + 1} (id {dialogue.id}): {error}") from None
        row_ids += [dialogue.id] * len(fitted_rows)
        fitted += fitted_rows
    return ChatChunk(row_ids, fitted, count_unknown(row_ids, fitted, encoder, counter))


def read_dialogue(row: dict[str, Any], number: int, path: Path) -> Dialogue:
    """The dialogue in a row of data/formatted. number: of the row, from 0. Raises DataError if it has none."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise damaged_error(path, f"row {number + 1} has no messages")
    if not isinstance(row.get("id"), int):
        raise damaged_error(path, f"row {number + 1} has no number in id")
    return Dialogue(row["id"], messages, row.get("tools") or [])


def count_unknown(
    row_ids: list[int], rows: list[FittedRow], encoder: ChatEncoder, counter: UnknownCounter
) -> dict[str, UnknownText]:
    """The unknown text in the learned tokens ("answers") and in the others ("prompts"), control tokens aside."""
    control = set(encoder.tokens.ids.values()) - {counter.unknown_id}
    parts: dict[str, list[list[int]]] = {"prompts": [], "answers": []}
    for fitted in rows:
        pairs = list(zip(fitted.row.input_ids, fitted.row.labels, strict=True))
        parts["prompts"].append([token for token, label in pairs if label == IGNORE_INDEX and token not in control])
        parts["answers"].append([token for token, label in pairs if label != IGNORE_INDEX and token not in control])
    return {
        name: counter.count_rows(row_ids, [encoder.tokenizer.decode(ids) for ids in lists], lists)
        for name, lists in parts.items()
    }
