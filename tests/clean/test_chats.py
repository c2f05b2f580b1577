"""Chats in pipeline/clean/stage.py: the formats of messages, and which chats are dropped, on literal rows."""

from typing import Any

import pyarrow as pa
import pytest
from support.cleaning import BOILERPLATE, chat_row, clean_rows


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param(chat_row(("user", "x")), "no_answer", id="question alone"),
        pytest.param(chat_row(("assistant", "x")), "no_answer", id="answer alone"),
        pytest.param(chat_row(("system", "s"), ("assistant", "x")), "no_answer", id="no user"),
        pytest.param(chat_row(("user", "x"), ("assistant", None)), "empty", id="answer null"),
        pytest.param(chat_row(("user", " "), ("assistant", "x")), "empty", id="question empty"),
        pytest.param(chat_row(("user", "x"), ("assistant", BOILERPLATE)), "boilerplate", id="boilerplate last"),
    ],
)
def test_chat_without_a_useful_answer_is_dropped(row: dict[str, Any], reason: str) -> None:
    assert clean_rows([row]) == ([], [{"id": 0, "reason": reason}])


def test_chat_ends_with_its_last_answer_and_loses_an_empty_system_turn() -> None:
    row = chat_row(("system", ""), ("user", "x"), ("assistant", "y"), ("user", "z"))
    assert clean_rows([row])[0] == [{"id": 0, **chat_row(("user", "x"), ("assistant", "y"))}]


def test_chat_without_messages_has_no_answer() -> None:
    table = pa.table(
        {"messages": pa.array([[], None], pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})))}
    )
    assert clean_rows(table) == ([], [{"id": 0, "reason": "no_answer"}, {"id": 1, "reason": "no_answer"}])


def test_chat_keeps_turns_and_line_breaks() -> None:
    row = chat_row(("system", " Be brief. "), ("user", "Q. a\u00a0b\nc"), ("assistant", BOILERPLATE), ("user", "d"))
    row["messages"].append({"role": "assistant", "content": "Hi.\n\n\n\nRest."})
    records, _ = clean_rows([row])
    assert [message["content"] for message in records[0]["messages"]] == [
        "Be brief.",
        "Q. a b\nc",
        BOILERPLATE,
        "d",
        "Hi.\n\nRest.",
    ]


PARTS = [{"role": role, "content": [{"type": "text", "text": "x"}]} for role in ("user", "assistant")]
MALFORMED = {
    "unknown role": [{"role": "user", "content": "x"}, {"role": "bot", "content": "y"}],
    "no role": [{"role": None, "content": "x"}],
    "no role at all": [{"content": "x"}],
    "unknown sender": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "y"}],
    "number": [{"from": "gpt", "value": 3}],
    "text": "x",
    "a number": 7,
    "list of texts": ["x"],
    "parts": PARTS,
}


@pytest.mark.parametrize("messages", MALFORMED.values(), ids=MALFORMED)
def test_chat_in_no_known_format_is_dropped_and_counted(messages: Any) -> None:
    assert clean_rows(pa.table({"messages": [messages]})) == ([], [{"id": 0, "reason": "malformed"}])


def test_malformed_chat_does_not_affect_the_others() -> None:
    rows = [chat_row(("user", "a"), ("tool", "b")), chat_row(("user", "c"), ("assistant", "d"))]
    assert clean_rows(rows) == ([{"id": 1, **rows[1]}], [{"id": 0, "reason": "malformed"}])


SHAREGPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Is it flu?"},
    {"from": "gpt", "value": "Fever?"},
    {"from": "human", "value": "Yes."},
    {"from": "gpt", "value": "Rest."},
]
TURNS = chat_row(
    ("system", "Be brief."), ("user", "Is it flu?"), ("assistant", "Fever?"), ("user", "Yes."), ("assistant", "Rest.")
)


@pytest.mark.parametrize("columns", [None, {"messages": "conversations"}], ids=["detected", "mapped"])
def test_sharegpt_turns_become_messages(columns: dict[str, str] | None) -> None:
    assert clean_rows([{"id": "x1", "conversations": SHAREGPT}], columns)[0] == [{"id": 0, **TURNS}]


def test_openai_and_sharegpt_rows_can_share_a_column() -> None:
    keys = {"role": None, "content": None, "from": None, "value": None}
    openai = chat_row(("user", "a"), ("assistant", "b"))["messages"]
    mixed = [[{**keys, **turn} for turn in messages] for messages in (SHAREGPT, openai)]
    assert clean_rows([{"messages": turns} for turns in mixed])[0] == [
        {"id": 0, **TURNS},
        {"id": 1, **chat_row(("user", "a"), ("assistant", "b"))},
    ]
