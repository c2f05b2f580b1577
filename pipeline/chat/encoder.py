"""Encodes dialogues for training, held-out loss and evaluation: the one place where chats become token ids.

A row is tokenized as a whole, as a server tokenizes a prompt. If the prompt of a learned turn would then have other ids than
alone (the tokenizer merges characters across its end), the turn becomes a row of its own, with the prompt encoded alone. So
the prompt that a model is asked with is always the start of the row that it has learned from.
"""

from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import NamedTuple

from tokenizers import Tokenizer

from pipeline.chat.control_tokens import ControlTokens, EscapedDialogue
from pipeline.chat.dialogue import Dialogue
from pipeline.chat.rows import RowText, render_rows
from pipeline.chat.template import ChatTemplate, Span
from pipeline.chat.turns import render_turn
from pipeline.modeling.encoding import IGNORE_INDEX, Encoder


class EncodedText(NamedTuple):
    ids: list[int]
    spans: list[tuple[int, int]]  # of each token, the start and end of its characters in the text


class ChatRow(NamedTuple):
    """A row to learn from. labels are as long as input_ids, IGNORE_INDEX where there is no loss."""

    input_ids: list[int]
    labels: list[int]
    prompt_tokens: int  # of the last learned turn
    answer_end: int  # the position after the last token that the last learned turn generates
    is_prompted: bool  # whether the row starts with the prompt that a served model gets for its last turn
    is_whole: bool  # whether the row is tokenized as a whole, not the prompt apart
    turns: tuple[int, ...]  # the learned messages


class ChatEncoder:
    """Encodes dialogues by a chat template. stop_tokens: those at which the model stops generating."""

    def __init__(
        self, encoder: Encoder, template: ChatTemplate, tokens: ControlTokens, stop_tokens: Collection[str]
    ) -> None:
        self.template, self.tokens, self.stop_tokens = template, tokens, frozenset(stop_tokens)
        self.literal = encoder.tokenizer
        self.tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str())
        self.tokenizer.encode_special_tokens = False  # control tokens are real in what the template writes
        self._control_ids = set(tokens.ids.values())
        self._escaped_ids = {tokens.ids[token] for token in tokens.escaped}

    def encode_rows(self, dialogue: Dialogue, learned: Sequence[int], one_row: bool = True) -> list[ChatRow]:
        """The rows to learn these turns from. Raises RenderingError or MarksError."""
        escaped = self.tokens.escape(dialogue.until(learned[-1] + 1))
        rows = self._render(escaped, learned, one_row)
        encoded = [self.encode_row(row, escaped) for row in rows]
        if len(rows) == 1 and len(learned) > 1 and encoded[0] is None:
            rows = self._render(escaped, learned, one_row=False)
            encoded = [self.encode_row(row, escaped) for row in rows]
        return [row or self._encode_apart(text, escaped) for row, text in zip(encoded, rows, strict=True)]

    def encode_full(self, dialogue: Dialogue) -> ChatRow:
        """The whole dialogue as one row in which every token is learned. Raises RenderingError."""
        escaped = self.tokens.escape(dialogue)
        last = len(dialogue.messages) - 1
        turn = render_turn(self.template, self.tokens, escaped.dialogue, last, self.stop_tokens)
        ids = self.encode(turn.text, escaped).ids
        prompt_tokens = len(self.encode(turn.prompt, escaped).ids)
        return ChatRow(ids, list(ids), prompt_tokens, len(ids), turn.is_prompted, True, (last,))

    def encode_prompt(self, dialogue: Dialogue) -> list[int]:
        """The prompt with which a served model is asked for the next turn. Raises RenderingError."""
        escaped = self.tokens.escape(dialogue)
        prompt = self.template.render(escaped.dialogue.messages, escaped.dialogue.tools, add_generation_prompt=True)
        return self.encode(prompt, escaped).ids

    def _render(self, escaped: EscapedDialogue, learned: Sequence[int], one_row: bool) -> list[RowText]:
        return render_rows(self.template, self.tokens, escaped.dialogue, list(learned), self.stop_tokens, one_row)

    def encode_row(self, row: RowText, escaped: EscapedDialogue) -> ChatRow | None:
        """The row, tokenized as a whole; None if the prompt of a turn has other ids in it than alone."""
        whole = self.encode(row.text, escaped)
        prompts = [self.encode(turn.prompt, escaped).ids for turn in row.turns]
        if any(whole.ids[: len(prompt)] != prompt for prompt in prompts):
            return None
        return _chat_row(whole, row, len(prompts[-1]), is_whole=True)

    def _encode_apart(self, row: RowText, escaped: EscapedDialogue) -> ChatRow:
        """A row of one turn whose prompt is encoded alone."""
        (turn,) = row.turns
        prompt, answer = self.encode(turn.prompt, escaped), self.encode(turn.answer, escaped)
        start = len(turn.prompt)
        parts = EncodedText(prompt.ids + answer.ids, prompt.spans + [(a + start, b + start) for a, b in answer.spans])
        return _chat_row(parts, row, len(prompt.ids), is_whole=False)

    def encode(self, text: str, escaped: EscapedDialogue) -> EncodedText:
        """The token ids of a rendered text. Control tokens that people wrote are literal."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        encoded = EncodedText(encoding.ids, encoding.offsets)
        if not escaped.originals or not any(character in text for character in escaped.originals):
            return encoded
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for part in self._split_at_control_tokens(encoded, len(text)):
            start, end = part.spans[0][0], part.spans[-1][1]
            if any(character in text[start:end] for character in escaped.originals):
                part = self._encode_literally(text[start:end], start, escaped)
            ids += part.ids
            spans += part.spans
        return EncodedText(ids, spans)

    def _split_at_control_tokens(self, encoded: EncodedText, end: int) -> list[EncodedText]:
        """Runs of tokens between control tokens, each control token a run of its own."""
        runs: list[EncodedText] = []
        previous_is_control = True
        for token_id, span in zip(*encoded, strict=True):
            is_control = token_id in self._control_ids
            if is_control or previous_is_control:
                runs.append(EncodedText([], []))
            runs[-1].ids.append(token_id)
            runs[-1].spans.append(span)
            previous_is_control = is_control
        return runs

    def _encode_literally(self, text: str, start: int, escaped: EscapedDialogue) -> EncodedText:
        """Encode a text of people, with its control tokens as text. start: its place in the row."""
        restored = escaped.restore(text)
        encoding = self.literal.encode(restored, add_special_tokens=False)
        if not self._escaped_ids.isdisjoint(
            encoding.ids
        ):  # the literal mode knows those that are not flagged as special
            return self._encode_in_pieces(text, start, escaped)
        return EncodedText(encoding.ids, [(a + start, b + start) for a, b in encoding.offsets])

    def _encode_in_pieces(self, text: str, start: int, escaped: EscapedDialogue) -> EncodedText:
        """Encode the text with a border after each first character of a control token, so that none is found."""
        pieces, piece = [], ""
        for character in text:
            piece += character
            if character in escaped.originals:
                pieces.append(piece)
                piece = ""
        pieces.append(piece)
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for piece, at in zip(pieces, accumulate(map(len, pieces), initial=start), strict=False):
            encoding = self.literal.encode(escaped.restore(piece), add_special_tokens=False)
            ids += encoding.ids
            spans += [(a + at, b + at) for a, b in encoding.offsets]
        return EncodedText(ids, spans)


def _chat_row(encoded: EncodedText, row: RowText, prompt_tokens: int, is_whole: bool) -> ChatRow:
    end = row.turns[-1].span.end
    return ChatRow(
        encoded.ids,
        label_spans(encoded, row.learned),
        prompt_tokens,
        sum(start < end for start, _ in encoded.spans),
        all(turn.is_prompted for turn in row.turns),
        is_whole,
        tuple(turn.message for turn in row.turns),
    )


def label_spans(encoded: EncodedText, learned: Sequence[Span]) -> list[int]:
    """The labels of tokens: those with characters in a learned span keep their id.

    >>> label_spans(EncodedText([5, 6, 7], [(0, 2), (2, 4), (4, 5)]), [Span(2, 4)])
    [-100, 6, -100]
    """
    labels = [IGNORE_INDEX] * len(encoded.ids)
    spans = iter(learned)
    span = next(spans, None)
    for position, (start, end) in enumerate(encoded.spans):
        while span is not None and span.end <= start:
            span = next(spans, None)
        if span is not None and start < span.end and end > span.start:
            labels[position] = encoded.ids[position]
    return labels
