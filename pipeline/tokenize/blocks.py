"""Blocks of training rows: flat arrays of token ids and labels, with the offsets of the rows in them.

Each row is what `pipeline.modeling.encoding.build_example` makes of a prompt and a completion, or what
`pipeline.chat.truncate.encode_fitted_rows` makes of a dialogue. Arrays spare Python a step for every token.
"""

from collections.abc import Iterable
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.chat.truncate import FittedRow
from pipeline.config.params import Tokenize
from pipeline.modeling.encoding import IGNORE_INDEX, truncate_row

SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "input_ids": pa.list_(pa.int32()),
        "labels": pa.list_(pa.int32()),
        "length": pa.int32(),
        "dropped_tokens": pa.int32(),  # by truncation
    }
)


class Block(NamedTuple):
    """Consecutive rows. Every row has at least one token, the end of text."""

    row_ids: list[int]
    input_ids: NDArray[np.int32]  # (tokens,)
    labels: NDArray[np.int32]  # (tokens,), IGNORE_INDEX where there is no loss
    offsets: NDArray[np.int32]  # (rows + 1,): row i is tokens offsets[i] to offsets[i + 1]
    completion_tokens: NDArray[np.int32]  # (rows,), before truncation, end of text included
    dropped_tokens: NDArray[np.int32]  # (rows, 2), by truncation, from the prompt and from the completion
    prompt_tokens: NDArray[np.int32]  # (rows,), in input_ids; of a dialogue, before its last learned turn
    is_prompted: NDArray[np.bool_]  # (rows,), whether the row begins with the prompt that a served model gets

    @property
    def lengths(self) -> NDArray[np.int32]:
        """(rows,), tokens."""
        return np.diff(self.offsets)

    def record_batch(self) -> pa.RecordBatch:
        """The rows as data/tokenized holds them, with the columns of SCHEMA."""
        offsets, ids = pa.array(self.offsets), pa.array(self.row_ids, pa.int64())
        columns = [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (self.input_ids, self.labels)]
        return pa.record_batch(
            [ids, *columns, pa.array(self.lengths), pa.array(self.dropped_tokens.sum(axis=1, dtype=np.int32))],
            schema=SCHEMA,
        )

    def row_bytes(self) -> Iterable[bytes]:
        """The token ids of each row as bytes, to compare rows by."""
        buffer, width = self.input_ids.tobytes(), self.input_ids.itemsize
        return (buffer[start * width : end * width] for start, end in pairwise(self.offsets.tolist()))


def assemble_block(
    row_ids: list[int],
    prompts: list[list[int]],
    completions: list[list[int]],
    options: Tokenize,
    start_ids: tuple[int, ...],
) -> Block:
    """The block of these rows, given as token ids; each row is truncated to options.max_length tokens."""
    rows = [truncate_row(*pair, options.max_length, start_ids) for pair in zip(prompts, completions, strict=True)]
    offsets = _offsets_of([row.input_ids for row in rows])
    input_ids = _flatten([row.input_ids for row in rows])
    prompt_tokens = np.array([row.prompt_tokens for row in rows], np.int32)
    return Block(
        row_ids,
        input_ids,
        input_ids if options.loss == "full" else _completion_labels(input_ids, offsets, prompt_tokens),
        offsets,
        completion_tokens=np.fromiter(map(len, completions), np.int32, len(rows)),
        dropped_tokens=np.array([(row.dropped_prompt_tokens, row.dropped_completion_tokens) for row in rows], np.int32),
        prompt_tokens=prompt_tokens,
        is_prompted=np.ones(len(rows), bool),
    )


def assemble_chat_block(row_ids: list[int], rows: list[FittedRow]) -> Block:
    """The block of these rows of dialogues."""
    return Block(
        row_ids,
        _flatten([row.row.input_ids for row in rows]),
        _flatten([row.row.labels for row in rows]),
        _offsets_of([row.row.input_ids for row in rows]),
        completion_tokens=np.array(
            [len(row.row.input_ids) - row.row.prompt_tokens + row.dropped_answer_tokens for row in rows], np.int32
        ),
        dropped_tokens=np.array([(row.dropped_prompt_tokens, row.dropped_answer_tokens) for row in rows], np.int32),
        prompt_tokens=np.array([row.row.prompt_tokens for row in rows], np.int32),
        is_prompted=np.array([row.row.is_prompted for row in rows], bool),
    )


def _offsets_of(rows: list[list[int]]) -> NDArray[np.int32]:
    return np.cumsum([0, *map(len, rows)], dtype=np.int64).astype(np.int32)


def _flatten(rows: list[list[int]]) -> NDArray[np.int32]:
    return np.fromiter(chain.from_iterable(rows), np.int32, sum(map(len, rows)))


def _completion_labels(
    input_ids: NDArray[np.int32], offsets: NDArray[np.int32], prompt_tokens: NDArray[np.int32]
) -> NDArray[np.int32]:
    """input_ids with the first prompt_tokens[i] ids of row i replaced by IGNORE_INDEX."""
    positions = np.arange(len(input_ids), dtype=np.int32)
    completion_starts = np.repeat(offsets[:-1] + prompt_tokens, np.diff(offsets))
    return np.where(positions < completion_starts, np.int32(IGNORE_INDEX), input_ids)
