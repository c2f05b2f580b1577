"""Blocks of training rows: flat arrays of token ids and labels, with the offsets of the rows in them.

Each row is what `pipeline.modeling.encoding.build_example` makes of a prompt and a completion. Arrays spare Python a step for
every token.
"""

from collections.abc import Iterable
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config.params import Tokenize
from pipeline.modeling.encoding import IGNORE_INDEX, truncate_row

SCHEMA = pa.schema(
    {"id": pa.int64(), "input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32()), "length": pa.int32()}
)


class Block(NamedTuple):
    """Consecutive rows. Every row has at least one token, the end of text."""

    row_ids: list[int]
    input_ids: NDArray[np.int32]  # (tokens,)
    labels: NDArray[np.int32]  # (tokens,), IGNORE_INDEX where there is no loss
    offsets: NDArray[np.int32]  # (rows + 1,): row i is tokens offsets[i] to offsets[i + 1]
    completion_tokens: NDArray[np.int32]  # (rows,), before truncation, end of text included
    dropped_tokens: NDArray[np.int32]  # (rows, 2), by truncation, from the prompt and from the completion

    @property
    def lengths(self) -> NDArray[np.int32]:
        """(rows,), tokens."""
        return np.diff(self.offsets)

    def record_batch(self) -> pa.RecordBatch:
        """The rows as data/tokenized holds them: id, input_ids, labels, length."""
        offsets, ids = pa.array(self.offsets), pa.array(self.row_ids, pa.int64())
        columns = [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (self.input_ids, self.labels)]
        return pa.record_batch([ids, *columns, pa.array(self.lengths)], schema=SCHEMA)

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
    lengths = np.fromiter((len(row.input_ids) for row in rows), np.int32, len(rows))
    offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
    input_ids = np.fromiter(chain.from_iterable(row.input_ids for row in rows), np.int32, int(offsets[-1]))
    prompt_tokens = np.array([row.prompt_tokens for row in rows], np.int32)
    return Block(
        row_ids,
        input_ids,
        _completion_labels(input_ids, offsets, prompt_tokens) if options.loss == "completion" else input_ids,
        offsets,
        completion_tokens=np.fromiter(map(len, completions), np.int32, len(rows)),
        dropped_tokens=np.array([(row.dropped_prompt_tokens, row.dropped_completion_tokens) for row in rows], np.int32),
    )


def _completion_labels(
    input_ids: NDArray[np.int32], offsets: NDArray[np.int32], prompt_tokens: NDArray[np.int32]
) -> NDArray[np.int32]:
    """input_ids with the first prompt_tokens[i] ids of row i replaced by IGNORE_INDEX."""
    positions = np.arange(len(input_ids), dtype=np.int32)
    completion_starts = np.repeat(offsets[:-1] + prompt_tokens, np.diff(offsets))
    return np.where(positions < completion_starts, np.int32(IGNORE_INDEX), input_ids)
