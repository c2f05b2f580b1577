"""Rows as training takes them, many at a time: flat arrays of token ids and labels, with where each row ends.

What `pipeline.encoding.join` says of one row holds here of each; arrays spare Python a step for every token.
"""

from collections.abc import Iterable
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config.params import Tokenize
from pipeline.modeling.encoding import IGNORE_INDEX, truncate_row

SCHEMA = pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32()), "length": pa.int32()})


class Block(NamedTuple):
    """Rows one after the other; every row has a token at least, the end of text."""

    ids: list[Any]  # the rows' own, not the tokens'
    input_ids: NDArray[np.int32]  # (tokens,)
    labels: NDArray[np.int32]  # (tokens,), IGNORED where nothing is learned
    bounds: NDArray[np.int32]  # (rows + 1,); row i is tokens bounds[i] to bounds[i + 1]
    answers: NDArray[np.int32]  # (rows,), tokens of the whole completion, end of text included
    cut: NDArray[np.int32]  # (rows, 2), tokens cut off the prompt and off the completion

    @property
    def lengths(self) -> NDArray[np.int32]:
        return np.diff(self.bounds)

    def batch(self) -> pa.RecordBatch:
        """The rows as data/tokenized holds them: input_ids, labels, length."""
        bounds = pa.array(self.bounds)
        lists = [pa.ListArray.from_arrays(bounds, pa.array(each)) for each in (self.input_ids, self.labels)]
        return pa.record_batch([*lists, pa.array(self.lengths)], schema=SCHEMA)

    def row_bytes(self) -> Iterable[bytes]:
        """Each row's token ids, to compare rows by."""
        whole, width = self.input_ids.tobytes(), self.input_ids.itemsize
        return (whole[start * width : end * width] for start, end in pairwise(self.bounds.tolist()))


def assemble_block(
    ids: list[Any], prompts: list[list[int]], completions: list[list[int]], options: Tokenize, bos: int | None
) -> Block:
    """The block of these rows, each of at most max_length tokens."""
    rows = [truncate_row(*pair, options.max_length, bos) for pair in zip(prompts, completions, strict=True)]
    lengths = np.fromiter((len(row.input_ids) for row in rows), np.int32, len(rows))
    bounds = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
    input_ids = np.fromiter(chain.from_iterable(row.input_ids for row in rows), np.int32, int(bounds[-1]))
    return Block(
        ids,
        input_ids,
        _labels(input_ids, bounds, [row.prompt for row in rows]) if options.loss == "completion" else input_ids,
        bounds,
        answers=np.fromiter(map(len, completions), np.int32, len(rows)),
        cut=np.array([(row.prompt_cut, row.completion_cut) for row in rows], np.int32),
    )


def _labels(input_ids: NDArray[np.int32], bounds: NDArray[np.int32], prompts: list[int]) -> NDArray[np.int32]:
    """The ids, with IGNORED in place of the first tokens of each row, as many as `prompts` says."""
    places = np.arange(len(input_ids), dtype=np.int32)
    learned_from = np.repeat(bounds[:-1] + np.array(prompts, np.int32), np.diff(bounds))
    return np.where(places < learned_from, np.int32(IGNORE_INDEX), input_ids)
