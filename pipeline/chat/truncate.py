"""Fits dialogues into a number of tokens: the oldest turns go first, the system prompt and the last question stay.

A dialogue that is too long as one row becomes a row a learned turn, so that no learned turn is lost. The earlier turns that do
not fit are dropped whole, from one user turn to the next, so that no call is left without its result. If the last exchange
alone is too long, its longest text of the user or a tool loses its start, down to a quarter of the row. What is still too
long is the answer: it loses its end, which the audit counts as a row without an end.
"""

from typing import NamedTuple

from pipeline.chat.dialogue import Dialogue, learned_turns
from pipeline.chat.encoder import ChatEncoder, ChatRow
from pipeline.chat.template import RenderingError


class FittedRow(NamedTuple):
    row: ChatRow
    dropped_prompt_tokens: int
    dropped_answer_tokens: int  # from its end


def encode_fitted_rows(encoder: ChatEncoder, dialogue: Dialogue, loss: str, max_length: int) -> list[FittedRow]:
    """The rows to learn a dialogue from, each of at most `max_length` tokens. loss: as in tokenize.loss.

    Raises RenderingError or MarksError.
    """
    learned = learned_turns(dialogue.messages, loss)
    if loss == "full":
        rows = [encoder.encode_full(dialogue.until(learned[-1] + 1))]
    else:
        rows = encoder.encode_rows(dialogue, learned)
        if len(rows) == 1 < len(learned) and len(rows[0].input_ids) > max_length:
            rows = encoder.encode_rows(dialogue, learned, one_row=False)
    return [
        FittedRow(row, 0, 0) if len(row.input_ids) <= max_length else _fit_row(encoder, dialogue, row, loss, max_length)
        for row in rows
    ]


def encode_fitted_turn(encoder: ChatEncoder, dialogue: Dialogue, index: int, max_length: int) -> FittedRow:
    """The row to learn one turn from, of at most `max_length` tokens. Raises RenderingError or MarksError."""
    (row,) = encoder.encode_rows(dialogue, [index])
    return (
        FittedRow(row, 0, 0)
        if len(row.input_ids) <= max_length
        else _fit_row(encoder, dialogue, row, "last", max_length)
    )


def _fit_row(encoder: ChatEncoder, dialogue: Dialogue, row: ChatRow, loss: str, max_length: int) -> FittedRow:
    """A row of one turn, made shorter."""
    answer_tokens = len(row.input_ids) - row.prompt_tokens
    max_prompt_tokens = max(max_length - answer_tokens, max_length // 4)
    index = row.turns[-1]
    context = fit_prompt(encoder, dialogue.until(index), max_prompt_tokens)
    fitted = dialogue._replace(messages=[*context.messages, dialogue.messages[index]])
    last = len(context.messages)
    shorter = encoder.encode_full(fitted) if loss == "full" else encoder.encode_rows(fitted, [last])[0]
    kept = shorter._replace(
        input_ids=shorter.input_ids[:max_length],
        labels=shorter.labels[:max_length],
        answer_end=min(shorter.answer_end, max_length),
        turns=row.turns,
    )
    return FittedRow(kept, row.prompt_tokens - shorter.prompt_tokens, len(shorter.input_ids) - len(kept.input_ids))


def fit_prompt(encoder: ChatEncoder, dialogue: Dialogue, max_tokens: int) -> Dialogue:
    """The dialogue, which ends before an assistant turn, with so much of it left out that its prompt has `max_tokens` at most.

    It may remain longer if nothing is left that can go: the system prompt, the tools, the template's own text.
    """
    if _fits(encoder, dialogue, max_tokens):
        return dialogue
    messages = dialogue.messages
    first = next((index for index, message in enumerate(messages) if message["role"] != "system"), len(messages))
    starts = [i for i, message in enumerate(messages) if message["role"] == "user" and i > first]
    shortest = dialogue
    for start in starts:
        shortest = dialogue._replace(messages=[*messages[:first], *messages[start:]])
        if _fits(encoder, shortest, max_tokens):
            return shortest
    return _cut_longest_text(encoder, shortest, first, max_tokens)


def _fits(encoder: ChatEncoder, dialogue: Dialogue, max_tokens: int) -> bool:
    try:
        return len(encoder.encode_prompt(dialogue)) <= max_tokens
    except RenderingError:
        return False


def _cut_longest_text(encoder: ChatEncoder, dialogue: Dialogue, first: int, max_tokens: int) -> Dialogue:
    """Cut the start of the longest text of the user or a tool after the system prompt, as little as is enough."""
    indices = [i for i, m in enumerate(dialogue.messages) if i >= first and m["role"] in ("user", "tool")]
    if not indices:
        return dialogue
    longest = max(indices, key=lambda index: len(dialogue.messages[index]["content"]))
    text = dialogue.messages[longest]["content"]

    def with_last(characters: int) -> Dialogue:
        cut = {**dialogue.messages[longest], "content": text[len(text) - characters :]}
        return dialogue._replace(messages=[*dialogue.messages[:longest], cut, *dialogue.messages[longest + 1 :]])

    low, high = 1, len(text)  # one character stays, so that the turn is not empty
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(encoder, with_last(middle), max_tokens) else (low, middle - 1)
    return with_last(low)
