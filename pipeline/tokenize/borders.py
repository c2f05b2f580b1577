"""Where rows must begin and answers must end, checked on the token ids and labels alone, whatever made them."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pipeline.modeling.encoding import IGNORE_INDEX, Encoder
from pipeline.tokenize.blocks import Block

RowMask = NDArray[np.bool_]  # (rows,)


class RowBorders(NamedTuple):
    """The tokens at the borders of rows and answers. is_space: (vocabulary,), whether a token is only whitespace."""

    end_ids: NDArray[np.int32]
    start_ids: tuple[int, ...]  # that the tokenizer puts before a text
    bos_id: int | None
    is_space: NDArray[np.bool_]

    def are_answers_ended(self, block: Block) -> RowMask:
        """Whether each run of labels ends with a token that ends an answer. Whitespace may follow it."""
        is_labeled = block.labels != IGNORE_INDEX
        is_labeled[block.offsets[:-1]] = False  # no token predicts the first
        is_last = np.zeros(len(is_labeled), bool)
        is_last[block.offsets[1:] - 1] = True
        is_run_end = is_labeled & (is_last | ~np.append(is_labeled[1:], False))
        positions = np.arange(len(is_labeled))
        is_text = is_labeled & ~self.is_space[np.where(is_labeled, block.labels, 0)]
        last_text = np.maximum.accumulate(np.where(is_text, positions, -1))[is_run_end]
        is_ended = (last_text >= 0) & np.isin(block.labels[last_text], self.end_ids)
        unended = np.zeros(len(is_labeled), np.int64)
        unended[positions[is_run_end][~is_ended]] = 1
        has_labels = np.add.reduceat(is_labeled, block.offsets[:-1], dtype=np.int64) > 0
        return np.asarray(has_labels & (np.add.reduceat(unended, block.offsets[:-1]) == 0))

    def are_started_once(self, block: Block) -> RowMask:
        """Whether each row begins with the start tokens exactly once; with one beginning token at most if there are none."""
        count = len(self.start_ids)
        if not count:
            if self.bos_id is None:
                return np.ones(len(block.row_ids), bool)
            return ~(_has_at(block, 0, self.bos_id) & _has_at(block, 1, self.bos_id))
        starts = np.all([_has_at(block, place, token) for place, token in enumerate(self.start_ids)], axis=0)
        return np.asarray(starts & ~_has_at(block, count, self.start_ids[-1]))


def _has_at(block: Block, place: int, token: int) -> RowMask:
    """Whether each row has the token at a place, counted from 0."""
    positions = block.offsets[:-1] + place
    is_inside = positions < block.offsets[1:]
    return np.asarray(is_inside & (block.input_ids[np.minimum(positions, len(block.input_ids) - 1)] == token))


def is_learned_from_prompt(block: Block) -> RowMask:
    """Whether each row learns its last answer from the first token after the prompt on."""
    positions = block.offsets[:-1] + block.prompt_tokens
    is_inside = positions < block.offsets[1:]
    labels = block.labels[np.minimum(positions, len(block.labels) - 1)]
    return np.asarray(~is_inside | (labels != IGNORE_INDEX))


def borders_of(encoder: Encoder, end_ids: Collection[int], bos_id: int | None) -> RowBorders:
    return RowBorders(np.array(sorted(end_ids), np.int32), encoder.start_ids, bos_id, _space_tokens(encoder.tokenizer))


def _space_tokens(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """(vocabulary,): whether a token's text is only whitespace."""
    size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    added = tokenizer.get_added_tokens_decoder()
    texts = tokenizer.decode_batch([[token_id] for token_id in range(size)], skip_special_tokens=False)
    return np.array([text.isspace() and token_id not in added for token_id, text in enumerate(texts)], bool)
