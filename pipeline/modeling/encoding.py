"""Encode prompts and completions as token ids, in the same way for training and for evaluation.

The prompt is always encoded alone, as it is at inference. Training therefore sees the same prompt ids as evaluation, even
where the tokenizer would merge characters across the border between prompt and completion. The end-of-text token is part
of the completion and of the loss: a model that never sees it in training never stops.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from pipeline.core.files import read_json
from pipeline.errors import ModelError

IGNORE_INDEX = -100  # PyTorch's cross entropy ignores these labels


class Encoder(NamedTuple):
    tokenizer: Tokenizer
    bos_id: int | None  # None if the tokenizer adds no start token
    eos_id: int
    pad_id: int

    def encode_prompts(self, texts: Iterable[str]) -> list[list[int]]:
        start = [] if self.bos_id is None else [self.bos_id]
        return [start + ids for ids in self._encode(texts)]

    def encode_completions(self, texts: Iterable[str]) -> list[list[int]]:
        return [[*ids, self.eos_id] for ids in self._encode(texts)]

    def _encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Encode without special tokens: some tokenizers append the end-of-text token to every text, prompts included."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


class Example(NamedTuple):
    input_ids: list[int]
    labels: list[int]  # as long as input_ids; IGNORE_INDEX where there is no loss
    dropped_tokens: int  # by truncation


def load_encoder(folder: Path) -> Encoder:
    """The fast tokenizer of a model folder, loaded without importing transformers, which takes seconds.

    Raises ModelError if tokenizer.json is damaged or tokenizer_config.json names no end-of-text token.
    """
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"{path} is damaged ({error}); an earlier stage writes it: dvc repro") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "</s>" within a text is text
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    eos_id, pad_id = (_token_id(tokenizer, config.get(name)) for name in ("eos_token", "pad_token"))
    if eos_id is None:
        raise ModelError(
            f"{folder}: the tokenizer has no end-of-text token; name one as eos_token in tokenizer_config.json"
        )
    with_special, plain = tokenizer.encode("a").ids, tokenizer.encode("a", add_special_tokens=False).ids
    bos_id = with_special[0] if with_special[0] != plain[0] else None
    return Encoder(tokenizer, bos_id, eos_id, eos_id if pad_id is None else pad_id)


def _token_id(tokenizer: Tokenizer, token: Any) -> int | None:
    """token: a value of tokenizer_config.json, which is a string or an AddedToken's object."""
    text = token["content"] if isinstance(token, dict) else token
    return tokenizer.token_to_id(text) if text else None


class TruncatedRow(NamedTuple):
    input_ids: list[int]  # the prompt's tokens, then the completion's
    prompt_tokens: int  # in input_ids
    dropped_prompt_tokens: int  # from the start of the prompt
    dropped_completion_tokens: int  # from the end of the completion


def truncate_row(prompt: list[int], completion: list[int], max_length: int, bos_id: int | None = None) -> TruncatedRow:
    """Join the token ids of a prompt and a completion and truncate them to `max_length`.

    A row that is too long first loses the start of its prompt, down to a quarter of max_length. Then it loses the end of its
    completion, including the end-of-text token, because the truncated answer does not end there. So every row keeps labels.

    >>> truncate_row([11, 12, 13, 14], [21, 22, 23, 24, 25, 26, 2], max_length=8)[0]
    [13, 14, 21, 22, 23, 24, 25, 26]
    >>> truncate_row([11, 12, 13, 14], [21, 22, 23, 24, 25, 26, 2], max_length=8)[1:]
    (2, 2, 1)
    """
    max_prompt_tokens = max(max_length - len(completion), max_length // 4)
    truncated_prompt = truncate_prompt(prompt, max_prompt_tokens, bos_id)
    input_ids = (truncated_prompt + completion)[:max_length]
    return TruncatedRow(
        input_ids,
        prompt_tokens=len(truncated_prompt),
        dropped_prompt_tokens=len(prompt) - len(truncated_prompt),
        dropped_completion_tokens=len(truncated_prompt) + len(completion) - len(input_ids),
    )


def build_example(
    prompt: list[int], completion: list[int], max_length: int, loss: str = "completion", bos_id: int | None = None
) -> Example:
    """The input_ids and labels of one row, truncated to `max_length` tokens by `truncate_row`.

    loss: "completion" ignores the prompt's labels, "full" labels every token.

    >>> build_example([1, 2], [3, 9], max_length=8)
    Example(input_ids=[1, 2, 3, 9], labels=[-100, -100, 3, 9], dropped_tokens=0)
    """
    row = truncate_row(prompt, completion, max_length, bos_id)
    ignored = row.prompt_tokens if loss == "completion" else 0
    labels = [IGNORE_INDEX] * ignored + row.input_ids[ignored:]
    return Example(row.input_ids, labels, row.dropped_prompt_tokens + row.dropped_completion_tokens)


def truncate_prompt(prompt: list[int], max_tokens: int, bos_id: int | None) -> list[int]:
    """The last `max_tokens` tokens of a prompt, which end with the question. A start token stays at the front."""
    if len(prompt) <= max_tokens:
        return prompt
    if bos_id is not None and prompt[0] == bos_id:
        return [bos_id, *prompt[len(prompt) - max_tokens + 1 :]]
    return prompt[len(prompt) - max_tokens :]
