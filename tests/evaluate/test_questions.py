"""What a model is asked in evaluation, from rows of texts and of dialogues."""

from pathlib import Path
from typing import Any

import pytest
from support.chats import CHATML, END, TWO_TURNS, assistant, chat_folder, dialogue, system, text_of, user

from pipeline.chat.dialogue import Dialogue
from pipeline.chat.row_format import PLAIN_TEXT, ChatFormat
from pipeline.errors import DataError
from pipeline.evaluate.questions import Question, QuestionReader, TokenLimits
from pipeline.modeling.encoding import load_encoder

CHAT = ChatFormat(source=CHATML, stop_tokens=[END], end_tokens=[END])
LONG = TokenLimits(prompt=1000, row=1000)


def reader_of(folder: Path, turns: str = "last", row_format: Any = CHAT) -> QuestionReader:
    model = chat_folder(folder)
    return QuestionReader(row_format, model, load_encoder(model), turns)


def read(reader: QuestionReader, *dialogues: Dialogue, limits: TokenLimits = LONG) -> list[Question]:
    rows = [{"id": given.id, "messages": given.messages, "tools": given.tools} for given in dialogues]
    return reader.read(rows, limits)


def test_the_last_answer_of_a_dialogue_is_asked_for(tmp_path: Path) -> None:
    reader = reader_of(tmp_path)
    (question,) = read(reader, TWO_TURNS._replace(id=7))
    assert reader.chat is not None
    assert (question.id, question.reference) == (7, "A cold.")
    assert question.prompt_ids == reader.chat.encode_prompt(TWO_TURNS.until(3))
    assert question.prompt.endswith("<|im_start|>user\nWhat then?<|im_end|>\n<|im_start|>assistant\n")
    assert [label for label in question.example.labels if label >= 0] == question.example.input_ids[
        len(question.prompt_ids) :
    ]
    assert text_of(reader.chat, question.example.input_ids).endswith("A cold.<|im_end|>")
    assert reader.completion_bytes(question) == len("A cold.")


def test_every_answer_is_asked_for_after_the_true_turns(tmp_path: Path) -> None:
    questions = read(reader_of(tmp_path, "all"), TWO_TURNS._replace(id=7))
    assert [(question.id, question.reference) for question in questions] == [("7/1", "No."), ("7/2", "A cold.")]
    assert "No.<|im_end|>" in questions[1].prompt
    weighted = dialogue(user("Flu?"), assistant("No.", weight=0), user("What?"), assistant("A cold."))
    assert [question.reference for question in read(reader_of(tmp_path, "all"), weighted)] == ["A cold."]


def test_a_long_prompt_keeps_the_system_prompt_and_the_question(tmp_path: Path) -> None:
    reader = reader_of(tmp_path)
    long = dialogue(
        system("Be brief."), user("An old question."), assistant("An old answer."), user("New?"), assistant("Yes.")
    )
    (question,) = read(reader, long, limits=TokenLimits(prompt=50, row=70))
    assert question.prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nNew?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert len(question.prompt_ids) <= 50
    assert len(question.example.input_ids) <= 70


def test_a_reference_that_exceeds_the_positions_counts_the_bytes_that_are_left(tmp_path: Path) -> None:
    reader = reader_of(tmp_path)
    (question,) = read(
        reader, dialogue(user("Why?"), assistant("Because " * 20)), limits=TokenLimits(prompt=50, row=60)
    )
    assert len(question.example.input_ids) == 60
    assert question.reference == "Because " * 20
    assert reader.completion_bytes(question) == sum(label >= 0 for label in question.example.labels)


def test_texts_ask_for_their_completion(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, row_format=PLAIN_TEXT)
    (question,) = reader.read([{"id": 1, "prompt": "Flu?", "completion": " No."}], LONG)
    assert (question.prompt, question.reference) == ("Flu?", " No.")
    assert len(question.prompt_ids) == 4
    assert sum(label >= 0 for label in question.example.labels) == 5  # the end-of-text token included
    assert reader.completion_bytes(question) == 4


@pytest.mark.parametrize("completion", ["", " \n"])
def test_a_row_without_a_reference_is_named(tmp_path: Path, completion: str) -> None:
    with pytest.raises(DataError, match="test row 5 has no reference answer"):
        reader_of(tmp_path, row_format=PLAIN_TEXT).read([{"id": 5, "prompt": "x", "completion": completion}], LONG)


def test_a_row_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    refusing = ChatFormat(source="{{ raise_exception('No.') }}", stop_tokens=[], end_tokens=[])
    with pytest.raises(DataError, match=r"test row 3: No\."):
        read(reader_of(tmp_path, row_format=refusing), TWO_TURNS._replace(id=3))
