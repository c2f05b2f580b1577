"""What turns rows of data/formatted into token ids, by the format of the rows."""

from pathlib import Path
from typing import NamedTuple

from pipeline.chat.encoder import ChatEncoder
from pipeline.chat.model_template import bos_id_of, end_ids_of, load_chat_encoder
from pipeline.chat.row_format import PLAIN_TEXT, ChatFormat, TextFormat
from pipeline.modeling.encoding import Encoder, load_encoder
from pipeline.tokenize.borders import RowBorders, borders_of


class RowTokenizer(NamedTuple):
    encoder: Encoder
    borders: RowBorders  # where rows begin and answers end
    row_format: TextFormat | ChatFormat
    chat: ChatEncoder | None  # for rows of messages


def load_row_tokenizer(row_format: TextFormat | ChatFormat, folder: Path) -> RowTokenizer:
    """The tokenizer of rows in this format, for the model in `folder`."""
    encoder = load_encoder(folder)
    chat = load_chat_encoder(row_format, folder, encoder) if isinstance(row_format, ChatFormat) else None
    borders = borders_of(encoder, end_ids_of(row_format, encoder), bos_id_of(folder, encoder))
    return RowTokenizer(encoder, borders, row_format, chat)


def text_tokenizer(encoder: Encoder) -> RowTokenizer:
    """The tokenizer of rows of prompt and completion."""
    return RowTokenizer(encoder, borders_of(encoder, [encoder.eos_id], None), PLAIN_TEXT, None)
