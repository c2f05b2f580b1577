"""A tokenized row as the text that the model sees, in segments: learned or not, control tokens apart."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from tokenizers import Tokenizer

from pipeline.modeling.encoding import IGNORE_INDEX


class Segment(NamedTuple):
    text: str
    is_learned: bool
    is_special: bool  # an added token, such as <|im_end|>


def segments_of(tokenizer: Tokenizer, input_ids: Sequence[int], labels: Sequence[int]) -> list[Segment]:
    """The row in runs of tokens that are learned or not, each added token a segment of its own.

    Tokens of a run are decoded together, so that characters of several tokens are whole.
    """
    added = tokenizer.get_added_tokens_decoder()
    kinds = [(label != IGNORE_INDEX, token in added) for token, label in zip(input_ids, labels, strict=True)]
    segments = []
    for (is_learned, is_special), run in groupby(zip(kinds, input_ids, strict=True), key=lambda pair: pair[0]):
        ids = [token for _, token in run]
        groups = [[token] for token in ids] if is_special else [ids]
        texts = [tokenizer.decode(group, skip_special_tokens=False) for group in groups]
        segments += [Segment(text, is_learned, is_special) for text in texts]
    return segments
