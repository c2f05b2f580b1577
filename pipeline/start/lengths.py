"""The lengths of the rows in tokens, and what a limit on them cuts off."""

from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from pipeline.modeling.encoding import Encoder

BYTES_PER_TOKEN = (
    3  # of English under usual vocabularies it is 4; a guess that is too long costs less than one too short
)


class Lengths(NamedTuple):
    """Tokens of the rows' prompts and completions, the end-of-text token included."""

    prompts: list[int]
    completions: list[int]
    is_estimate: bool  # the tokenizer is not known yet

    @property
    def longest_row(self) -> int:
        return max(map(sum, zip(self.prompts, self.completions, strict=True)))

    @property
    def longest_answer(self) -> int:
        return max(self.completions)

    def quantile(self, share: float) -> int:
        """The length of a row at this share of the rows by length."""
        totals = np.add(self.prompts, self.completions)
        return int(np.quantile(totals, share, method="higher"))

    def answer_quantile(self, share: float) -> int:
        return int(np.quantile(self.completions, share, method="higher"))

    def too_long(self, max_length: int) -> int:
        """The number of rows that are longer than max_length."""
        return int((np.add(self.prompts, self.completions) > max_length).sum())

    def unended(self, max_length: int) -> int:
        """The number of rows whose answer loses its end: the prompt keeps at least a quarter of max_length."""
        room = max_length - np.minimum(self.prompts, max(max_length // 4, 1))
        return int((np.array(self.completions) > room).sum())


def measure_lengths(rows: list[tuple[str, str]], encoder: Encoder | None, is_chat: bool = False) -> Lengths:
    """The lengths of rows, each a prompt and a completion; an estimate by their bytes where there is no tokenizer yet.

    is_chat: whether control tokens in the texts are those of a chat template, each one token.
    """
    prompts, completions = (list(texts) for texts in zip(*rows, strict=True))
    if encoder is None:
        estimates = [[len(text.encode()) // BYTES_PER_TOKEN + 1 for text in texts] for texts in (prompts, completions)]
        return Lengths(estimates[0], estimates[1], is_estimate=True)
    if is_chat:
        encoder = encoder._replace(tokenizer=Tokenizer.from_str(encoder.tokenizer.to_str()))
        encoder.tokenizer.encode_special_tokens = False
    return Lengths(
        [len(ids) for ids in encoder.encode_prompts(prompts)],
        [len(ids) for ids in encoder.encode_completions(completions)],
        is_estimate=False,
    )
