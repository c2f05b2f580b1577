"""Control tokens: real where a chat template writes them, literal text where people wrote them.

Before a dialogue is rendered, the first character of each control token in its texts is replaced by a character of Unicode's
private use area. So no text can end a turn or forge one. `ChatEncoder` puts the characters back when it has found the
template's own control tokens.
"""

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from pipeline.chat.dialogue import Dialogue

THINKING_TAGS = ("<think>", "</think>")  # an assistant's own, however a tokenizer flags them
PRIVATE_USE = range(0xE000, 0xF900)
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")  # by which transformers finds the thought of a turn
TEXT_KEYS = ("content", *REASONING_KEYS, "name", "tool_calls")


class EscapedDialogue(NamedTuple):
    dialogue: Dialogue
    originals: dict[str, str]  # private character → the character that it stands for
    tokens: int  # control tokens in the dialogue's texts

    def restore(self, text: str) -> str:
        for private, original in self.originals.items():
            text = text.replace(private, original)
        return text


class ControlTokens:
    """The control tokens of a tokenizer: its added tokens.

    structural: those that a template forms turns with. They are escaped in texts, as all special tokens are; other added tokens,
    such as <tool_call>, are the same in a text as in a template.
    """

    def __init__(self, tokenizer: Tokenizer, structural: Collection[str] = ()) -> None:
        added = tokenizer.get_added_tokens_decoder()
        self.ids = {token.content: token_id for token_id, token in added.items() if token.content.strip()}
        special = {token.content for token in added.values() if token.special and token.content.strip()}
        self.escaped = special | (set(structural) & self.ids.keys() - set(THINKING_TAGS))
        self._any = _alternatives(self.ids)
        self._in_texts = _alternatives(self.escaped)
        self._in_answers = _alternatives(self.escaped - set(THINKING_TAGS))

    def find(self, text: str) -> list[re.Match[str]]:
        """The control tokens in a rendered text of an escaped dialogue, in order."""
        return list(self._any.finditer(text))

    def remove(self, text: str) -> str:
        return self._any.sub("", text)

    def escape(self, dialogue: Dialogue) -> EscapedDialogue:
        """The dialogue with the control tokens in its texts made literal."""
        found: list[str] = []
        characters: set[str] = set()

        def collect(pattern: re.Pattern[str], text: str) -> str:
            found.extend(pattern.findall(text))
            characters.update(text)
            return text

        self._map_texts(dialogue, collect)
        if not found:
            return EscapedDialogue(dialogue, {}, 0)
        firsts = sorted({token[0] for token in found})
        unused = (character for character in map(chr, PRIVATE_USE) if character not in characters)
        private = dict(zip(firsts, unused, strict=False))
        escaped = self._map_texts(
            dialogue, lambda pattern, text: pattern.sub(lambda match: private[match[0][0]] + match[0][1:], text)
        )
        return EscapedDialogue(escaped, {character: first for first, character in private.items()}, len(found))

    def _map_texts(self, dialogue: Dialogue, function: Callable[[re.Pattern[str], str], str]) -> Dialogue:
        """The dialogue with the function's result in place of each text. The pattern matches what is escaped there."""
        messages = []
        for message in dialogue.messages:
            pattern = self._in_answers if message["role"] == "assistant" else self._in_texts
            texts = {key: map_texts(message[key], partial(function, pattern)) for key in TEXT_KEYS if key in message}
            messages.append({**message, **texts})
        return Dialogue(dialogue.id, messages, map_texts(dialogue.tools, partial(function, self._in_texts)))


def _alternatives(tokens: Collection[str]) -> re.Pattern[str]:
    """A pattern of any of the tokens, the longest first; of none, one that matches nothing."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=lambda token: (-len(token), token)))) or r"(?!)")


def map_texts(value: Any, function: Callable[[str], str]) -> Any:
    """The value with the function's result in place of each text in it.

    >>> map_texts({"a": ["b", 1]}, str.upper)
    {'A': ['B', 1]}
    """
    if isinstance(value, str):
        return function(value)
    if isinstance(value, list):
        return [map_texts(item, function) for item in value]
    if isinstance(value, dict):
        return {map_texts(key, function): map_texts(item, function) for key, item in value.items()}
    return value
