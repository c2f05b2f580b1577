"""The lengths of the rows in tokens, and what a limit on them cuts off."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.modeling.encoding import Encoder

BYTES_PER_TOKEN = (
    3  # of English under usual vocabularies it is 4; a guess that is too long costs less than one too short
)


class ChatLengths(NamedTuple):
    """What chats have beside the lengths of their rows."""

    answers: list[int]  # of each row, the tokens of its longest learned turn, which need not be the last
    rows_per_chat: float  # more than 1 where the template renders earlier turns otherwise


class Lengths(NamedTuple):
    """Tokens of the rows' prompts and completions, the token that ends an answer included.

    The completion of a chat is its last learned turn, the prompt all that is before it.
    """

    prompts: list[int]
    completions: list[int]
    is_estimate: bool  # the tokenizer is not known yet
    chat: ChatLengths | None = None

    @property
    def totals(self) -> NDArray[np.int64]:
        return np.add(self.prompts, self.completions)

    @property
    def answers(self) -> list[int]:
        """The tokens of each row's longest answer."""
        return self.chat.answers if self.chat else self.completions

    @property
    def longest_row(self) -> int:
        return int(self.totals.max())

    @property
    def longest_answer(self) -> int:
        return max(self.answers)

    @property
    def tokens_per_record(self) -> float:
        return float(self.totals.mean()) * (self.chat.rows_per_chat if self.chat else 1)

    def quantile(self, share: float) -> int:
        """The length of a row at this share of the rows by length."""
        return int(np.quantile(self.totals, share, method="higher"))

    def answer_quantile(self, share: float) -> int:
        return int(np.quantile(self.answers, share, method="higher"))

    def too_long(self, max_length: int) -> int:
        """The number of rows that are longer than max_length."""
        return int((self.totals > max_length).sum())

    def unended(self, max_length: int) -> int:
        """The number of rows with an answer that loses its end: its prompt keeps at least a quarter of max_length.

        Of a chat that is too long, each learned turn becomes a row of its own.
        """
        room = max_length - np.minimum(self.prompts, max(max_length // 4, 1))
        return int(((np.array(self.answers) > room) & (self.totals > max_length)).sum())


def measure_lengths(rows: list[tuple[str, str]], encoder: Encoder | None) -> Lengths:
    """The lengths of rows, each a prompt and a completion; an estimate by their bytes where there is no tokenizer yet."""
    prompts, completions = [prompt for prompt, _ in rows], [completion for _, completion in rows]
    if encoder is None:
        estimates = [[len(text.encode()) // BYTES_PER_TOKEN + 1 for text in texts] for texts in (prompts, completions)]
        return Lengths(estimates[0], estimates[1], is_estimate=True)
    return Lengths(
        [len(ids) for ids in encoder.encode_prompts(prompts)],
        [len(ids) for ids in encoder.encode_completions(completions)],
        is_estimate=False,
    )
