"""Training rows of a dialogue as texts: one for the whole dialogue where its rendering allows, otherwise one a learned turn.

A dialogue is one row if the prompt of each learned turn, and the turn itself, stand in the rendering of the whole as they are
when served. Templates that drop thoughts from earlier turns, or end a dialogue by a token of its own, render them otherwise.
Each learned token is in the loss once either way, so that a dialogue weighs the same.

Where the template marks what the assistant generates ({% generation %}), the marks decide which tokens are learned, and must
agree with the turns: they cover each learned answer through the token that ends it, and no text of another role.
"""

from collections.abc import Collection
from typing import NamedTuple

from pipeline.chat.control_tokens import ControlTokens
from pipeline.chat.dialogue import Dialogue
from pipeline.chat.template import ChatTemplate, Span
from pipeline.chat.turns import TurnText, render_turn

SHOWN = 80  # characters of a text in a message


class MarksError(ValueError):
    """The generation marks of a template contradict the turns; the text says where."""


class RowText(NamedTuple):
    text: str
    learned: list[Span]  # the characters that are learned
    turns: list[TurnText]  # the learned turns, in order


def render_rows(
    template: ChatTemplate,
    tokens: ControlTokens,
    dialogue: Dialogue,
    learned: list[int],
    stop_tokens: Collection[str],
    one_row: bool = True,
) -> list[RowText]:
    """The rows to learn these turns of the dialogue from. one_row: whether the whole dialogue may be one.

    dialogue: escaped, and ending with the last learned turn. Raises RenderingError or MarksError.
    """
    turns = [render_turn(template, tokens, dialogue, index, stop_tokens) for index in learned]
    last = turns[-1]
    if one_row and all(last.text.startswith(turn.prompt + turn.answer[: turn.end]) for turn in turns):
        groups = [turns]
    else:
        groups = [[turn] for turn in turns]
    return [_row_of(template, tokens, dialogue, group) for group in groups]


def _row_of(template: ChatTemplate, tokens: ControlTokens, dialogue: Dialogue, turns: list[TurnText]) -> RowText:
    text = turns[-1].text
    spans = [turn.span for turn in turns]
    if template.has_generation_marks:
        spans = marked_spans(template, tokens, dialogue.until(turns[-1].message + 1), turns)
    return RowText(text, spans, turns)


def marked_spans(
    template: ChatTemplate, tokens: ControlTokens, dialogue: Dialogue, turns: list[TurnText]
) -> list[Span]:
    """What the template's marks say is learned of these turns. dialogue: through the last of them.

    Raises MarksError if the marks leave out a part of an answer, or mark a text of another role.
    """
    text, marks = template.render_marked(dialogue.messages, dialogue.tools)
    last = turns[-1]
    if not last.text.startswith(text):  # a thought was closed in the answer, which no rendering has
        return [turn.span for turn in turns]
    marked = bytearray(len(last.text))
    for mark in marks:
        marked[mark.start : mark.end] = b"\1" * (min(mark.end, len(marked)) - mark.start)
    for turn in turns:
        if not all(marked[turn.span.start : turn.span.end]):
            shown = "".join(
                c for c, is_marked in zip(turn.text[turn.start :], marked[turn.start :], strict=False) if is_marked
            )
            raise MarksError(
                f"its template marks {_shorten(shown)} as generated (by {{% generation %}}), but the assistant generates "
                f"{_shorten(turn.answer[: turn.end])}"
            )
    learned = [mark for mark in marks if any(_is_in_turn(mark, turn, tokens, text) for turn in turns)]
    if foreign := _foreign_marks(template, dialogue, [mark for mark in marks if mark not in learned], text):
        raise MarksError(
            f"its template marks {_shorten(text[foreign[0].start : foreign[0].end])} as generated (by {{% generation %}}), "
            "which is no turn of the assistant"
        )
    return learned


def _is_in_turn(mark: Span, turn: TurnText, tokens: ControlTokens, text: str) -> bool:
    """Whether the marked text is the turn's, control tokens before its generation prompt included."""
    if not mark.start < min(mark.end, len(turn.text)) or mark.end > len(turn.text) or mark.end <= turn.start:
        return False
    before = text[mark.start : turn.start]
    return not tokens.remove(before).strip()


def _foreign_marks(template: ChatTemplate, dialogue: Dialogue, marks: list[Span], text: str) -> list[Span]:
    """The marks outside the assistant's turns, as far as these stand in the text as they are rendered alone."""
    regions = []
    for index, message in enumerate(dialogue.messages):
        if message["role"] == "assistant" and marks:
            before = template.render(dialogue.messages[:index], dialogue.tools) if index else ""
            upto = template.render(dialogue.messages[: index + 1], dialogue.tools)
            if not text.startswith(before) or not text.startswith(upto):
                return []
            regions.append(Span(len(before), len(upto)))
    return [m for m in marks if m.start < m.end and not any(r.start <= m.start and m.end <= r.end for r in regions)]


def _shorten(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}…{text[-SHOWN // 2 :]}")
