"""Counts the text that a tokenizer does not know: unknown tokens, and characters that it drops without a token.

Byte-level tokenizers and those with byte fallback know every text, which is found out once. Others have an unknown token
(WordPiece, word lists), or drop what they do not know (BPE without such a token, as for DNA and SMILES).
"""

import re
from typing import Any, NamedTuple

import orjson
from tokenizers import Tokenizer, models, pre_tokenizers

MAX_EXAMPLE = 20  # characters
WORD_OR_SPACE = re.compile(r"\S+|\s")


class UnknownText(NamedTuple):
    tokens: int  # unknown tokens, and dropped characters, each counted as one
    total: int  # tokens, and dropped characters
    first_id: Any = None  # the id of the first row with unknown text
    example: str = ""  # a word of it


class UnknownCounter:
    """Counts unknown text in tokenized texts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.is_complete = tokenizer, knows_every_text(tokenizer)
        self.unknown_id = unknown_id_of(tokenizer)
        self._is_dropped: dict[str, bool] = {}  # by character

    def count(self, text: str, ids: list[int]) -> UnknownText:
        """The unknown text in a text. ids: its tokens, without special ones."""
        if self.is_complete:
            return UnknownText(0, len(ids))
        dropped = sum(text.count(character) for character in set(text) if self._drops(character))
        unknown = 0 if self.unknown_id is None else ids.count(self.unknown_id)
        return UnknownText(unknown + dropped, len(ids) + dropped)

    def count_rows(self, row_ids: list[Any], texts: list[str], ids: list[list[int]]) -> UnknownText:
        """The unknown text in the prompts, or in the answers, of these rows. ids: as in `count`."""
        if self.is_complete:
            return UnknownText(0, sum(map(len, ids)))
        counts = [self.count(*pair) for pair in zip(texts, ids, strict=True)]
        tokens, total = sum(count.tokens for count in counts), sum(count.total for count in counts)
        if not tokens:
            return UnknownText(0, total)
        first = next(index for index, count in enumerate(counts) if count.tokens)
        return UnknownText(tokens, total, row_ids[first], self.example(texts[first]))

    def _drops(self, character: str) -> bool:
        """Whether the tokenizer has no token at all for a character that is not a space."""
        known = self._is_dropped.get(character)
        if known is None:
            ids = self.tokenizer.encode(character, add_special_tokens=False).ids
            self._is_dropped[character] = known = not ids and not character.isspace()
        return known

    def example(self, text: str) -> str:
        """The first word, or space, of a text with something unknown in it; of a long word, a part."""
        word = next(filter(self._has_unknown, WORD_OR_SPACE.findall(text)), text)
        while len(word) > MAX_EXAMPLE:
            word = next(filter(self._has_unknown, (word[: len(word) // 2], word[len(word) // 2 :])), word[:MAX_EXAMPLE])
        return word

    def _has_unknown(self, text: str) -> bool:
        return self.count(text, self.tokenizer.encode(text, add_special_tokens=False).ids).tokens > 0


def unknown_id_of(tokenizer: Tokenizer) -> int | None:
    """The id of the token that stands for unknown text; None if the tokenizer has none."""
    if isinstance(tokenizer.model, models.Unigram):
        unknown_id: int | None = _unigram_settings(tokenizer)["unk_id"]
        return unknown_id
    token = tokenizer.model.unk_token
    return None if token is None else tokenizer.token_to_id(token)


def knows_every_text(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has a token for each of the 256 bytes, and uses them."""
    before = [step.__getstate__() for step in (tokenizer.pre_tokenizer, tokenizer.normalizer) if step is not None]
    if any(b'"ByteLevel"' in state for state in before):
        return all(tokenizer.token_to_id(byte) is not None for byte in pre_tokenizers.ByteLevel.alphabet())
    if isinstance(tokenizer.model, models.Unigram):
        uses_bytes = bool(_unigram_settings(tokenizer)["byte_fallback"])
    else:
        uses_bytes = getattr(tokenizer.model, "byte_fallback", False)  # only BPE has it
    return uses_bytes and all(tokenizer.token_to_id(f"<0x{byte:02X}>") is not None for byte in range(256))


def _unigram_settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """The settings of a Unigram model, which the library shows only in its saved form."""
    settings: dict[str, Any] = orjson.loads(tokenizer.model.__getstate__())
    return settings
