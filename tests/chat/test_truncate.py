"""Dialogues that are too long: the system prompt and whole turns stay, and no answer loses its end unseen."""

from pathlib import Path

import pytest
from support.chats import assistant, chat_encoder, dialogue, learned_text, system, text_of, user

from pipeline.chat.truncate import encode_fitted_rows, fit_prompt

LONG = dialogue(
    system("Be brief."),
    user("First question, which is rather long."),
    assistant("First answer."),
    user("Second question."),
    assistant("Second answer."),
    user("Third question."),
    assistant("Third answer."),
)
ALL = 190  # tokens of the whole dialogue


def test_what_fits_is_one_row(tmp_path: Path) -> None:
    encoder = chat_encoder(tmp_path)
    (fitted,) = encode_fitted_rows(encoder, LONG, "assistant", 1000)
    assert len(fitted.row.input_ids) == ALL
    assert (fitted.dropped_prompt_tokens, fitted.dropped_answer_tokens) == (0, 0)


def test_oldest_turns_go_first_and_every_answer_is_learned_once(tmp_path: Path) -> None:
    encoder = chat_encoder(tmp_path)
    rows = encode_fitted_rows(encoder, LONG, "assistant", 150)
    assert [learned_text(encoder, row.row.labels) for row in rows] == [
        "First answer.<|im_end|>",
        "Second answer.<|im_end|>",
        "Third answer.<|im_end|>",
    ]
    assert all(len(row.row.input_ids) <= 150 for row in rows)
    last = text_of(encoder, rows[2].row.input_ids)
    assert last.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSecond question.<|im_end|>\n")
    assert rows[2].dropped_prompt_tokens == ALL - len(rows[2].row.input_ids)
    assert rows[2].dropped_answer_tokens == 0


def test_the_last_question_loses_its_start(tmp_path: Path) -> None:
    encoder = chat_encoder(tmp_path)
    rows = encode_fitted_rows(encoder, LONG, "last", 60)
    text = text_of(encoder, rows[0].row.input_ids)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nestion.<|im_end|>\n"
        "<|im_start|>assistant\nThird answer.<|im_end|>\n"
    )
    assert learned_text(encoder, rows[0].row.labels) == "Third answer.<|im_end|>"


def test_an_answer_that_is_too_long_loses_its_end_and_is_counted(tmp_path: Path) -> None:
    encoder = chat_encoder(tmp_path)
    talkative = dialogue(user("Why?"), assistant("Because " * 20))
    (fitted,) = encode_fitted_rows(encoder, talkative, "assistant", 60)
    assert len(fitted.row.input_ids) == 60
    assert fitted.dropped_answer_tokens > 0
    assert "<|im_end|>" not in learned_text(encoder, fitted.row.labels)


def test_a_call_keeps_its_result(tmp_path: Path) -> None:
    encoder = chat_encoder(tmp_path)
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": {"room": 7}}}
    calling = dialogue(
        user("An earlier question that is long enough to be dropped."),
        assistant("An earlier answer."),
        user("Where?"),
        assistant("", tool_calls=[call]),
        {"role": "tool", "content": "floor 1", "tool_call_id": "c1"},
    )
    kept = fit_prompt(encoder, calling, 130)
    assert [message["role"] for message in kept.messages] == ["user", "assistant", "tool"]
    assert len(encoder.encode_prompt(kept)) <= 130


@pytest.mark.parametrize("loss", ["assistant", "last", "full"])
@pytest.mark.parametrize("max_length", [8, 20, 40, 80, 120, 200])
def test_no_row_is_longer_than_the_limit(tmp_path: Path, loss: str, max_length: int) -> None:
    rows = encode_fitted_rows(chat_encoder(tmp_path), LONG, loss, max_length)
    assert all(len(row.row.input_ids) == len(row.row.labels) <= max_length for row in rows)
