"""Encode prompts and completions as token ids, in the same way for training and for evaluation.

The prompt is always encoded alone, as it is at inference. Training therefore sees the same prompt ids as evaluation, even
where the tokenizer would merge characters across the border between prompt and completion. The end-of-text token is part
of the completion and of the loss: a model that never sees it in training never stops.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer, models

from pipeline.core.files import read_json
from pipeline.errors import DataError, ModelError

IGNORE_INDEX = -100  # PyTorch's cross entropy ignores these labels


class Encoder(NamedTuple):
    tokenizer: Tokenizer
    start_ids: tuple[int, ...]  # the tokens that the tokenizer puts before a text; most have one or none
    eos_id: int
    pad_id: int

    def encode_prompts(self, texts: Iterable[str]) -> list[list[int]]:
        return [[*self.start_ids, *ids] for ids in self.encode_texts(texts)]

    def encode_completions(self, texts: Iterable[str]) -> list[list[int]]:
        return [[*ids, self.eos_id] for ids in self.encode_texts(texts)]

    def encode_texts(self, texts: Iterable[str]) -> list[list[int]]:
        """Encode without special tokens: some tokenizers append the end-of-text token to every text, prompts included.

        Raises DataError if the tokenizer has neither a token for a text's characters nor one for unknown ones.
        """
        texts = list(texts)
        try:
            encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # the library raises no other type
            raise _unknown_text_error(self.tokenizer, texts, error) from None
        return [encoding.ids for encoding in encodings]


def _unknown_text_error(tokenizer: Tokenizer, texts: list[str], error: Exception) -> DataError:
    word = next((word for text in texts for word in text.split() if not _can_encode(tokenizer, word)), "")
    return DataError(
        f"the model's tokenizer has no token for {word[:40]!a} ({error}) and none for unknown text; use a model whose tokenizer "
        "knows your texts' characters"
    )


def _can_encode(tokenizer: Tokenizer, text: str) -> bool:
    try:
        tokenizer.encode(text, add_special_tokens=False)
    except Exception:
        return False
    return True


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
    return Encoder(tokenizer, start_ids_of(tokenizer), eos_id, eos_id if pad_id is None else pad_id)


def start_ids_of(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The special tokens that the tokenizer's post-processor puts before a text.

    It is tried on a token of a vocabulary made up here, because the tokenizer's own may lack any letter (DNA, SMILES).
    """
    probe = Tokenizer(models.WordLevel({"text": 0})).encode("text", add_special_tokens=False)
    special = tokenizer.post_process(probe)
    return tuple(special.ids[: special.special_tokens_mask.index(0)])


def _token_id(tokenizer: Tokenizer, token: Any) -> int | None:
    """token: a value of tokenizer_config.json, which is a string or an AddedToken's object."""
    text = token["content"] if isinstance(token, dict) else token
    return tokenizer.token_to_id(text) if text else None


class TruncatedRow(NamedTuple):
    input_ids: list[int]  # the prompt's tokens, then the completion's
    prompt_tokens: int  # in input_ids
    dropped_prompt_tokens: int  # from the start of the prompt
    dropped_completion_tokens: int  # from the end of the completion


def truncate_row(
    prompt: list[int], completion: list[int], max_length: int, start_ids: tuple[int, ...] = ()
) -> TruncatedRow:
    """Join the token ids of a prompt and a completion and truncate them to `max_length`.

    A row that is too long first loses the start of its prompt, down to a quarter of max_length. Then it loses the end of its
    completion, including the end-of-text token, because the truncated answer does not end there. So every row keeps labels.

    >>> truncate_row([11, 12, 13, 14], [21, 22, 23, 24, 25, 26, 2], max_length=8)[0]
    [13, 14, 21, 22, 23, 24, 25, 26]
    >>> truncate_row([11, 12, 13, 14], [21, 22, 23, 24, 25, 26, 2], max_length=8)[1:]
    (2, 2, 1)
    """
    max_prompt_tokens = max(max_length - len(completion), max_length // 4)
    truncated_prompt = truncate_prompt(prompt, max_prompt_tokens, start_ids)
    input_ids = (truncated_prompt + completion)[:max_length]
    return TruncatedRow(
        input_ids,
        prompt_tokens=len(truncated_prompt),
        dropped_prompt_tokens=len(prompt) - len(truncated_prompt),
        dropped_completion_tokens=len(truncated_prompt) + len(completion) - len(input_ids),
    )


def build_example(
    prompt: list[int],
    completion: list[int],
    max_length: int,
    loss: str = "assistant",
    start_ids: tuple[int, ...] = (),
) -> Example:
    """The input_ids and labels of one row, truncated to `max_length` tokens by `truncate_row`.

    loss: "full" labels every token; otherwise the prompt's labels are ignored.

    >>> build_example([1, 2], [3, 9], max_length=8)
    Example(input_ids=[1, 2, 3, 9], labels=[-100, -100, 3, 9], dropped_tokens=0)
    """
    row = truncate_row(prompt, completion, max_length, start_ids)
    ignored = 0 if loss == "full" else row.prompt_tokens
    labels = [IGNORE_INDEX] * ignored + row.input_ids[ignored:]
    return Example(row.input_ids, labels, row.dropped_prompt_tokens + row.dropped_completion_tokens)


def truncate_prompt(prompt: list[int], max_tokens: int, start_ids: tuple[int, ...]) -> list[int]:
    """The last `max_tokens` tokens of a prompt, which end with the question. Start tokens stay at the front."""
    if len(prompt) <= max_tokens:
        return prompt
    start = [*start_ids[:max_tokens]] if prompt[: len(start_ids)] == [*start_ids] else []
    return start + prompt[len(prompt) - max_tokens + len(start) :]
