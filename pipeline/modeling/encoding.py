"""Prompt and completion → token ids, in one way for training and for evaluation.

The prompt is always encoded by itself, as it is when the model is asked; so training sees the very ids that the
prompt has in evaluation, whatever the tokenizer would merge across the border. The end-of-text token is part of the
completion, and of the loss: a model that never sees it never stops.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from pipeline.core.files import read_json
from pipeline.errors import ModelError

IGNORE_INDEX = -100  # PyTorch's cross entropy leaves such labels out of the loss


class Encoder(NamedTuple):
    tokenizer: Tokenizer
    bos: int | None  # the id that the tokenizer puts before a text by itself, if any
    eos: int
    padding: int

    def prompts(self, texts: Iterable[str]) -> list[list[int]]:
        start = [] if self.bos is None else [self.bos]
        return [start + ids for ids in self._encoded(texts)]

    def completions(self, texts: Iterable[str]) -> list[list[int]]:
        return [[*ids, self.eos] for ids in self._encoded(texts)]

    def _encoded(self, texts: Iterable[str]) -> list[list[int]]:
        """Without special tokens: some tokenizers end every text by themselves, prompts too."""
        return [found.ids for found in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


class Example(NamedTuple):
    input_ids: list[int]
    labels: list[int]  # as long as input_ids; IGNORED where nothing is learned
    truncated: int  # tokens cut off


def load_encoder(folder: Path) -> Encoder:
    """The fast tokenizer of a model folder, without the seconds that importing transformers takes."""
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"{path} is damaged ({error}); an earlier stage writes it: dvc repro") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "</s>" within a text is text
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    eos, padding = (_token_id(tokenizer, config.get(name)) for name in ("eos_token", "pad_token"))
    if eos is None:
        raise ModelError(
            f"{folder}: the tokenizer has no end-of-text token; name one as eos_token in tokenizer_config.json"
        )
    marked, plain = tokenizer.encode("a").ids, tokenizer.encode("a", add_special_tokens=False).ids
    bos = marked[0] if marked[0] != plain[0] else None
    return Encoder(tokenizer, bos, eos, eos if padding is None else padding)


def _token_id(tokenizer: Tokenizer, token: Any) -> int | None:
    text = token["content"] if isinstance(token, dict) else token
    return tokenizer.token_to_id(text) if text else None


class TruncatedRow(NamedTuple):
    input_ids: list[int]  # the prompt's tokens, then the completion's
    prompt: int  # tokens of the prompt in them
    prompt_cut: int  # tokens cut off its start
    completion_cut: int  # tokens cut off the completion's end


def truncate_row(prompt: list[int], completion: list[int], max_length: int, bos: int | None = None) -> TruncatedRow:
    """One row's tokens, at most `max_length`.

    A row that is too long first loses the start of its prompt, down to a quarter of max_length; then the end of its
    completion, and with it the end-of-text token, for the answer does not end there. So labels are always left.

    >>> truncate_row([11, 12, 13, 14], [21, 22, 23, 24, 25, 26, 2], max_length=8)
    TruncatedRow(input_ids=[13, 14, 21, 22, 23, 24, 25, 26], prompt=2, prompt_cut=2, completion_cut=1)
    """
    room = max(max_length - len(completion), max_length // 4)
    kept = truncate_prompt(prompt, room, bos)
    input_ids = (kept + completion)[:max_length]
    whole = len(kept) + len(completion)
    return TruncatedRow(input_ids, len(kept), len(prompt) - len(kept), whole - len(input_ids))


def build_example(
    prompt: list[int], completion: list[int], max_length: int, loss: str = "completion", bos: int | None = None
) -> Example:
    """One row's input_ids and labels, of at most `max_length` tokens, cut as `truncate_row` cuts.

    >>> build_example([1, 2], [3, 9], max_length=8)
    Example(input_ids=[1, 2, 3, 9], labels=[-100, -100, 3, 9], truncated=0)
    """
    row = truncate_row(prompt, completion, max_length, bos)
    masked = row.prompt if loss == "completion" else 0
    labels = [IGNORE_INDEX] * masked + row.input_ids[masked:]
    return Example(row.input_ids, labels, row.prompt_cut + row.completion_cut)


def truncate_prompt(prompt: list[int], room: int, bos: int | None) -> list[int]:
    """The last `room` tokens of a prompt: its end asks for the answer. A start token stays where it was."""
    if len(prompt) <= room:
        return prompt
    if bos is not None and prompt[0] == bos:
        return [bos, *prompt[len(prompt) - room + 1 :]]
    return prompt[len(prompt) - room :]
