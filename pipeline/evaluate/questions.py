"""What a model is asked in evaluation: prompts and reference answers as token ids, from the rows of the test set.

Rows of prompt and completion ask for the completion. Dialogues ask for their last answer, or with evaluate.turns=all for each
one, given the true turns before it.
"""

from pathlib import Path
from typing import Any, NamedTuple

from pipeline.chat.dialogue import Dialogue, learned_turns
from pipeline.chat.encoder import ChatEncoder
from pipeline.chat.model_template import end_ids_of, load_chat_encoder
from pipeline.chat.row_format import ChatFormat, TextFormat
from pipeline.chat.rows import MarksError
from pipeline.chat.template import RenderingError
from pipeline.chat.truncate import encode_fitted_turn, fit_prompt
from pipeline.core.paths import TEST_ROWS
from pipeline.errors import DataError
from pipeline.modeling.encoding import IGNORE_INDEX, Encoder, Example, build_example, truncate_prompt

FormattedRow = dict[str, Any]


class Question(NamedTuple):
    """An answer to ask for. id: that of the row; of several turns of a dialogue, "ROW/TURN", counted from 1."""

    id: int | str
    prompt: str  # as the model reads it; "" for plain text
    reference: str
    prompt_ids: list[int]  # as many of its last tokens as fit
    example: Example  # the row to compute the held-out loss on


class TokenLimits(NamedTuple):
    """Limits in tokens."""

    prompt: int
    row: int


class QuestionReader:
    """Reads the rows of a test set as questions to a model. encoder: of its tokenizer."""

    def __init__(self, row_format: TextFormat | ChatFormat, folder: Path, encoder: Encoder, turns: str) -> None:
        self.encoder, self.turns = encoder, turns
        self.chat = load_chat_encoder(row_format, folder, encoder) if isinstance(row_format, ChatFormat) else None
        self.end_ids = end_ids_of(row_format, encoder)

    def read(self, rows: list[FormattedRow], limits: TokenLimits) -> list[Question]:
        """The questions, in the order of the rows. Raises DataError if one has no reference answer to score against."""
        if self.chat is None:
            questions = self._text_questions(rows, limits)
        else:
            questions = [question for row in rows for question in self._chat_questions(self.chat, row, limits)]
        for question in questions:
            if not question.reference.strip():
                raise DataError(
                    f"{TEST_ROWS}: test row {question.id} has no reference answer to score against; check what data.columns and "
                    "format.template make of it"
                )
        return questions

    def _text_questions(self, rows: list[FormattedRow], limits: TokenLimits) -> list[Question]:
        prompts = self.encoder.encode_prompts(row["prompt"] for row in rows)
        completions = self.encoder.encode_completions(row["completion"] for row in rows)
        start_ids = self.encoder.start_ids
        return [
            Question(
                row["id"],
                row["prompt"],
                row["completion"],
                truncate_prompt(prompt, limits.prompt, start_ids),
                build_example(prompt, completion, limits.row, start_ids=start_ids),
            )
            for row, prompt, completion in zip(rows, prompts, completions, strict=True)
        ]

    def _chat_questions(self, encoder: ChatEncoder, row: FormattedRow, limits: TokenLimits) -> list[Question]:
        dialogue = Dialogue(row["id"], row["messages"], row.get("tools") or [])
        turns = learned_turns(dialogue.messages, "last" if self.turns == "last" else "assistant")
        try:
            questions = [self._chat_question(encoder, dialogue, turn, limits) for turn in turns]
        except (RenderingError, MarksError) as error:
            raise DataError(f"{TEST_ROWS}: test row {row['id']}: {error}") from None
        if self.turns == "last":
            return questions
        return [question._replace(id=f"{row['id']}/{number}") for number, question in enumerate(questions, start=1)]

    def _chat_question(self, encoder: ChatEncoder, dialogue: Dialogue, turn: int, limits: TokenLimits) -> Question:
        row, _, dropped_tokens = encode_fitted_turn(encoder, dialogue, turn, limits.row)
        ids = row.input_ids[: row.answer_end]
        prompt_ids, answer = ids[: row.prompt_tokens], ids[row.prompt_tokens :]
        labels = [IGNORE_INDEX] * len(prompt_ids) + answer
        if dropped_tokens:  # the reference answer stays whole
            (whole,) = encoder.encode_rows(dialogue, [turn])
            answer = whole.input_ids[whole.prompt_tokens : whole.answer_end]
        if len(prompt_ids) > limits.prompt:
            fitted = encoder.encode_prompt(fit_prompt(encoder, dialogue.until(turn), limits.prompt))
            prompt_ids = fitted[-limits.prompt :]
        return Question(
            dialogue.id,
            self._decode(prompt_ids, skip_special_tokens=False),
            self._decode([token_id for token_id in answer if token_id not in self.end_ids], skip_special_tokens=True),
            prompt_ids,
            Example(ids, labels, dropped_tokens),
        )

    def _decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return str(self.encoder.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def completion_bytes(self, question: Question) -> int:
        """The bytes (UTF-8) of the reference answer, as far as its loss is computed."""
        labels = [label for label in question.example.labels if label != IGNORE_INDEX]
        if labels[-1:] and labels[-1] in self.end_ids:
            return len(question.reference.encode())
        return len(self._decode(labels, skip_special_tokens=True).encode())
