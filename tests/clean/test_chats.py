"""Chats in pipeline/clean/stage.py: the formats of messages, and which chats are dropped, on literal rows."""

import json
from typing import Any

import pyarrow as pa
import pytest
from support.cleaning import BOILERPLATE, chat_row, clean_batch, clean_rows, json_column

from pipeline.records.json_cells import drop_nulls
from pipeline.records.tasks import task_of_mapping, turns_of, unrenderable_parts


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


def test_chat_keeps_turns_and_whitespace() -> None:
    row = chat_row(("system", " Be brief. "), ("user", "Q. a\u00a0b\nc"), ("assistant", BOILERPLATE), ("user", "d"))
    row["messages"].append({"role": "assistant", "content": "Hi.\n\n\n\nRest."})
    records, _ = clean_rows([row])
    assert [message["content"] for message in records[0]["messages"]] == [
        " Be brief. ",
        "Q. a\u00a0b\nc",
        BOILERPLATE,
        "d",
        "Hi.\n\n\n\nRest.",
    ]


MALFORMED = {
    "unknown role": [{"role": "user", "content": "x"}, {"role": "narrator", "content": "y"}],
    "no role": [{"role": None, "content": "x"}],
    "no role at all": [{"content": "x"}],
    "unknown sender": [{"from": "human", "value": "x"}, {"from": "narrator", "value": "y"}],
    "number for a role": [{"role": 1, "content": "x"}],
    "text": "x",
    "a number": 7,
    "list of texts": ["x"],
    "list of lists": [["user", "x"]],
}


@pytest.mark.parametrize("messages", MALFORMED.values(), ids=MALFORMED)
def test_chat_in_no_known_format_is_dropped_and_counted(messages: Any) -> None:
    assert clean_rows(pa.table({"messages": [messages]})) == ([], [{"id": 0, "reason": "malformed"}])


def test_malformed_chat_does_not_affect_the_others() -> None:
    rows = [chat_row(("user", "a"), ("narrator", "b")), chat_row(("user", "c"), ("assistant", "d"))]
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


CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": {"room": 7, "near": None}}}
TOOLS = [{"type": "function", "function": {"name": "find"}}]
ROOM = {"role": "user", "content": "Room 7?"}
FLOOR = {"role": "assistant", "content": "Floor 1."}
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "developer": (
        {"messages": [{"role": "developer", "content": "Be brief."}, ROOM, FLOOR]},
        {"messages": [{"role": "system", "content": "Be brief."}, ROOM, FLOOR]},
    ),
    "tool call and result": (
        {
            "messages": [
                ROOM,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "1"},
                FLOOR,
            ],
            "tools": TOOLS,
        },
        {
            "messages": [
                ROOM,
                {"role": "assistant", "content": "", "tool_calls": [CALL]},
                {"role": "tool", "content": "1", "tool_call_id": "c1"},
                FLOOR,
            ],
            "tools": TOOLS,
        },
    ),
    "tool call as the answer": (
        {"messages": [ROOM, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
        {"messages": [ROOM, {"role": "assistant", "content": "", "tool_calls": [CALL]}]},
    ),
    "old function call": (
        {
            "messages": [
                ROOM,
                {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": '{"room": 7}'}},
                {"role": "function", "name": "find", "content": "1"},
                FLOOR,
            ],
            "functions": [{"name": "find"}],
        },
        {
            "messages": [
                ROOM,
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"type": "function", "function": {"name": "find", "arguments": '{"room": 7}'}}],
                },
                {"role": "tool", "content": "1", "name": "find"},
                FLOOR,
            ],
            "tools": TOOLS,
        },
    ),
    "ShareGPT with system, tools and a call": (
        {
            "conversations": [
                {"from": "human", "value": "Room 7?"},
                {"from": "function_call", "value": '{"name": "find", "arguments": {"room": 7}}'},
                {"from": "observation", "value": "1"},
                {"from": "gpt", "value": "Floor 1."},
            ],
            "system": "Be brief.",
            "tools": '[{"name": "find"}]',
        },
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                ROOM,
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"type": "function", "function": {"name": "find", "arguments": {"room": 7}}}],
                },
                {"role": "tool", "content": "1"},
                FLOOR,
            ],
            "tools": TOOLS,
        },
    ),
    "no tools as text": ({"messages": [ROOM, FLOOR], "tools": "[]"}, {"messages": [ROOM, FLOOR]}),
    "JSON text": ({"messages": json.dumps([ROOM, FLOOR])}, {"messages": [ROOM, FLOOR]}),
    "list as Python prints it": ({"messages": repr([ROOM, FLOOR])}, {"messages": [ROOM, FLOOR]}),
    "nested in an object": (
        {"messages": {"conversation": [ROOM, FLOOR], "system": "Be brief.", "functions": [{"name": "find"}]}},
        {"messages": [{"role": "system", "content": "Be brief."}, ROOM, FLOOR], "tools": TOOLS},
    ),
    "system column that the chat repeats": (
        {"messages": [{"role": "system", "content": "Be brief."}, ROOM, FLOOR], "system": "Be brief."},
        {"messages": [{"role": "system", "content": "Be brief."}, ROOM, FLOOR]},
    ),
    "text parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Room "}, {"type": "input_text", "text": "7?"}]},
                {"role": "assistant", "content": ["Floor 1", {"text": "."}]},
            ]
        },
        {"messages": [ROOM, FLOOR]},
    ),
    "other keys": (
        {"messages": [ROOM | {"name": "Jo"}, FLOOR | {"reasoning_content": "Look.", "refusal": None}]},
        {"messages": [ROOM | {"name": "Jo"}, FLOOR | {"reasoning_content": "Look."}]},
    ),
    "greeting and two user turns in a row": (
        {"messages": [{"role": "assistant", "content": "Hi!"}, ROOM, ROOM, FLOOR]},
        {"messages": [{"role": "assistant", "content": "Hi!"}, ROOM, ROOM, FLOOR]},
    ),
    "names of roles in capitals": (
        {"messages": [{"role": "User", "content": "Room 7?"}, {"role": "ASSISTANT", "content": "Floor 1."}]},
        {"messages": [ROOM, FLOOR]},
    ),
    "number as content": (
        {"messages": [ROOM, {"role": "assistant", "content": 7}]},
        {"messages": [ROOM, {"role": "assistant", "content": "7"}]},
    ),
}


@pytest.mark.parametrize("as_json", [True, False], ids=["JSON column", "Arrow column"])
@pytest.mark.parametrize(("row", "expected"), SHAPES.values(), ids=SHAPES)
def test_every_usual_shape_of_a_chat_is_read(row: dict[str, Any], expected: dict[str, Any], as_json: bool) -> None:
    keys = ("messages", "conversations", "tools", "functions")
    if as_json:
        table = pa.table({k: json_column(v) if k in keys else [v] for k, v in row.items()})
    else:
        mixes_types = isinstance(row.get("messages"), list) and isinstance(row["messages"][-1]["content"], list | int)
        table = pa.table({k: [v] if k != "messages" or not mixes_types else json_column(v) for k, v in row.items()})
        expected = drop_nulls(expected)
    assert clean_rows(table) == ([{"id": 0, **expected}], [])


def test_keys_that_arrow_pads_with_null_are_absent() -> None:
    rows = [[ROOM | {"name": "Jo"}, FLOOR], [ROOM, {"role": "assistant", "content": None, "tool_calls": [CALL]}, FLOOR]]
    records, _ = clean_rows([{"messages": messages} for messages in rows])
    assert records[0]["messages"] == [ROOM | {"name": "Jo"}, FLOOR]
    assert records[1]["messages"][1]["tool_calls"][0]["function"] == {"name": "find", "arguments": {"room": 7}}


def test_large_integers_of_tool_calls_stay_as_they_are() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"n": 12345678901234567890123}}}
    messages = [ROOM, {"role": "assistant", "content": "", "tool_calls": [call]}]
    assert clean_rows(pa.table({"messages": json_column(messages)}))[0][0]["messages"] == messages


WEIGHTED = [
    ("user", "a", None),
    ("assistant", "b", 0),
    ("user", "c", None),
    ("assistant", "d", 1),
    ("user", "e", None),
    ("assistant", "f", 0),
]


def test_the_answer_is_the_last_assistant_turn_with_a_weight() -> None:
    messages = [
        {"role": role, "content": text} | ({} if weight is None else {"weight": weight})
        for role, text, weight in WEIGHTED
    ]
    batch = clean_batch(pa.table({"messages": json_column(messages)}))
    assert batch.records[0]["messages"] == messages[:4]
    assert batch.changed == {"trailing_turns": 1}
    all_zero = [message | {"weight": 0} for message in messages]
    assert clean_rows(pa.table({"messages": json_column(all_zero)}))[1] == [{"id": 0, "reason": "no_answer"}]


def test_removed_turns_and_parts_are_counted_with_an_example() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    rows = [
        [ROOM, FLOOR, {"role": "user", "content": "Thanks!"}],
        [{"role": "system", "content": " "}, ROOM, {"role": "assistant", "content": ""}, ROOM, FLOOR],
        [{"role": "user", "content": [{"type": "text", "text": "Room 7?"}, image]}, FLOOR],
    ]
    batch = clean_batch(pa.table({"messages": json_column(*rows)}), deduplicate=False)
    assert [record["messages"] for record in batch.records] == [[ROOM, FLOOR], [ROOM, ROOM, FLOOR], [ROOM, FLOOR]]
    assert batch.changed == {"trailing_turns": 1, "empty_turns": 1, "dropped_parts": 1}
    assert batch.examples["trailing_turns"] == (0, "user: Thanks!", "")
    assert batch.examples["dropped_parts"] == (2, "image_url", "")


PAIRS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "lists": ({"prompt": [{"role": "system", "content": "s"}, ROOM], "completion": [FLOOR]}, ["s"]),
    "list and text": ({"prompt": [ROOM], "completion": "Floor 1."}, []),
    "text and list": ({"prompt": "Room 7?", "completion": [FLOOR]}, []),
    "JSON texts": ({"prompt": json.dumps([ROOM]), "completion": json.dumps([FLOOR])}, []),
    "one message each": ({"prompt": ROOM, "completion": FLOOR}, []),
    "question and answer": ({"question": [ROOM], "answer": [FLOOR]}, []),
    "history": ({"instruction": [ROOM], "output": [FLOOR], "history": []}, []),
}


@pytest.mark.parametrize(("row", "system"), PAIRS.values(), ids=PAIRS)
def test_prompts_and_completions_of_messages_become_chats(row: dict[str, Any], system: list[str]) -> None:
    table = pa.table({name: [v] if isinstance(v, str) else json_column(v) for name, v in row.items()})
    expected = [{"role": "system", "content": text} for text in system] + [ROOM, FLOOR]
    assert clean_rows(table)[0] == [{"id": 0, "messages": expected}]


HISTORIES: dict[str, Any] = {
    "pairs": [["a", "b"], ["c", "d"]],
    "JSON text": '[["a", "b"], ["c", "d"]]',
    "messages": [{"role": r, "content": t} for r, t in zip(("user", "assistant") * 2, "abcd", strict=True)],
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize("names", [("instruction", "output"), ("instruction", "response"), ("question", "answer")])
def test_history_and_system_come_before_the_question(names: tuple[str, str], history: Any) -> None:
    row = {names[0]: ["And?"], names[1]: ["So."], "system": ["Be brief."], "history": json_column(history)}
    columns = {name: name for name in row}
    batch = clean_batch(pa.table(row), columns)
    task = task_of_mapping(columns)
    turns, answer = turns_of(task, batch.records[0])
    assert [(turn.role, turn.content) for turn in turns] == [
        ("system", "Be brief."),
        *zip(("user", "assistant") * 2, "abcd", strict=True),
        ("user", "And?"),
    ]
    assert answer == "So."


def test_a_history_of_something_else_is_malformed_and_named() -> None:
    table = pa.table({"instruction": ["a"], "output": ["b"], "history": json_column("yesterday")})
    dropped = clean_batch(table).dropped[0]
    assert (dropped["reason"], dropped["detail"]) == ("malformed", "'yesterday' instead of a list of messages")


def test_unrenderable_parts_are_named() -> None:
    task = task_of_mapping(["messages"])
    calls = [ROOM, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "1"}, FLOOR]
    assert unrenderable_parts(task, {"messages": json.dumps(calls), "tools": json.dumps(TOOLS)}) == (
        "tool_calls",
        "tool_results",
        "tools",
    )
    assert unrenderable_parts(task, {"messages": [ROOM, FLOOR], "tools": None}) == ()


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_surrogate_that_stands_alone_drops_the_row(role: str) -> None:
    messages = [ROOM | {"content": "\ud800"}, FLOOR] if role == "user" else [ROOM, FLOOR | {"content": "a\udc00"}]
    good = [ROOM, FLOOR | {"content": "\U0001f600\0"}]
    batch = clean_batch(pa.table({"messages": json_column(messages, good)}))
    assert [row["reason"] for row in batch.dropped] == ["invalid_unicode"]
    assert batch.records == [{"id": 1, "messages": good, "tools": None}]
