"""What renders the rows, by the model, the task and format.template; and rows of chats in data/formatted."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.chats import CHATML, GEMMA, MARKED_CHATML, THINKING, chat_folder
from support.data_stages import Prepared, lines, prepare

from pipeline.chat.row_format import PLAIN_TEXT, ChatFormat, TextFormat, read_row_format
from pipeline.config.params import Format
from pipeline.core.paths import BASE, FORMATTED
from pipeline.errors import ConfigError, DataError
from pipeline.format.rendering import choose_row_format
from pipeline.records.tasks import TASKS

TASK = {task.name: task for task in TASKS}
AUTO = {"kind": "auto", "prompt": "Q: {question}", "completion": " {answer}", "chat_template_kwargs": {}}
CHAT = {"kind": "chat", "path": None, "sha256": None, "chat_template_kwargs": {}}
TEXT = {"kind": "text", "prompt": "Q: {question}", "completion": " {answer}"}
RENDERED = TextFormat(prompt="Q: {question}", completion=" {answer}")


def options_with(template: dict[str, Any]) -> Format:
    near = {"enabled": True, "fields": ["question"], "strategy": "cluster", "threshold": 0.7, "min_words": 8}
    values = {"seed": 0, "split": "question", "group": None, "test_fraction": 0.1, "validation_fraction": 0.1}
    values |= {"folds": None, "fold": 0, "max_leakage": 0.0, "system": None}
    return Format(**values, near={**near, "max_cluster_rows": None}, template=template)


@pytest.mark.parametrize(
    ("template", "task", "has_context", "has_template", "expected"),
    [
        (AUTO, "question/answer", False, True, "chat"),
        (AUTO, "question/answer", False, False, RENDERED),
        (AUTO, "chat", True, True, "chat"),
        (AUTO, "chat", True, False, RENDERED),
        (AUTO, "alpaca", False, True, "chat"),
        (AUTO, "prompt/completion", False, True, PLAIN_TEXT),
        (AUTO, "prompt/completion", False, False, PLAIN_TEXT),
        (AUTO, "prompt/completion", True, True, "chat"),
        (AUTO, "text", False, True, PLAIN_TEXT),
        (TEXT, "question/answer", False, True, RENDERED),
        (TEXT, "prompt/completion", False, True, RENDERED),
        (TEXT, "text", False, True, PLAIN_TEXT),
        (CHAT, "question/answer", False, True, "chat"),
        (CHAT, "prompt/completion", False, True, "chat"),
        (CHAT, "text", False, True, PLAIN_TEXT),
    ],
)
def test_what_renders_the_rows(
    tmp_path: Path, template: dict[str, Any], task: str, has_context: bool, has_template: bool, expected: Any
) -> None:
    folder = chat_folder(tmp_path, CHATML if has_template else None)
    row_format = choose_row_format(options_with(template), TASK[task], has_context, folder)
    if expected == "chat":
        assert row_format == ChatFormat(source=CHATML, stop_tokens=["<|im_end|>", "<|endoftext|>"])
    else:
        assert row_format == expected


def test_a_chat_template_that_is_demanded_and_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the base model has no chat template.*model\.chat_template=chatml"):
        choose_row_format(options_with(CHAT), TASK["chat"], True, chat_folder(tmp_path, None))


def test_a_template_of_ones_own_replaces_the_models(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(MARKED_CHATML, encoding="utf-8")
    template = {**CHAT, "path": str(tmp_path / "mine.jinja")}
    row_format = choose_row_format(options_with(template), TASK["chat"], True, chat_folder(tmp_path / "model"))
    assert isinstance(row_format, ChatFormat)
    assert row_format.source == MARKED_CHATML


CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"room": 7}'}}


def chats(count: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"Where is room {number} of the house in street {number * 7}?"},
                {"role": "assistant", "content": f"On floor {number}."},
            ]
        }
        for number in range(count)
    ]


def prepared(
    folder: Path, caplog: pytest.LogCaptureFixture, template: str, rows: list[Any], *overrides: str
) -> Prepared:
    (folder / "rows.jsonl").write_bytes(lines(rows))
    chat_folder(folder / BASE, template)
    return prepare(folder / "rows.jsonl", caplog, *overrides)


def test_rows_of_chats_keep_messages_tools_and_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tools = [{"type": "function", "function": {"name": "find", "description": "d", "parameters": {}}}]
    calling = {
        "messages": [
            {"role": "user", "content": "Where do I find the printer of the third floor?"},
            {"role": "assistant", "content": "Hm.", "weight": 0},
            {"role": "user", "content": "Please look it up."},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "floor 1", "tool_call_id": "c1"},
            {"role": "assistant", "content": "On floor 1."},
        ],
        "tools": tools,
    }
    result = prepared(tmp_path, caplog, CHATML, [*chats(30), calling])
    (row,) = (row for rows in result.rows.values() for row in rows if row["id"] == 30)
    assert row["tools"] == tools
    assert [message["role"] for message in row["messages"]] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert row["messages"][1]["weight"] == 0
    assert row["messages"][3]["tool_calls"][0]["function"]["arguments"] == {"room": 7}
    assert result.format["chat"]["tools_left_out"] == 1
    row_format = read_row_format(tmp_path / FORMATTED)
    assert isinstance(row_format, ChatFormat)
    assert row_format.end_tokens == ["<|im_end|>"]
    text = next(t for t in map(json.loads, all_texts(tmp_path)) if t["id"] == 30)["text"]
    assert text.endswith("<|im_start|>assistant\nOn floor 1.<|im_end|>\n")


def all_texts(folder: Path) -> list[str]:
    names = ("train", "validation", "test")
    return [
        line
        for name in names
        for line in (folder / FORMATTED / "text" / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]


def test_dialogues_that_cannot_be_learned_are_dropped_with_their_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    twice = {"messages": [*chats(1)[0]["messages"], {"role": "assistant", "content": "Or on floor 2."}]}
    result = prepared(tmp_path, caplog, CHATML, [*chats(30), twice])
    assert result.dropped() == {"consecutive_assistant_turns": 1}
    dropped = (tmp_path / FORMATTED / "dropped.jsonl").read_text("utf-8")
    assert json.loads(dropped) == {"id": 30, "reason": "consecutive_assistant_turns", "split": None}
    assert "1 of 31 rows are dialogues with two turns of the assistant in a row (the first is row 30)" in result.log


def test_system_prompts_are_added_and_folded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = {"messages": [{"role": "system", "content": "Be kind."}, *chats(40)[39]["messages"]]}
    result = prepared(tmp_path, caplog, GEMMA, [*chats(30), own], "format.system='Be brief.'")
    firsts = {row["id"]: row["messages"][0] for rows in result.rows.values() for row in rows}
    assert firsts[3]["content"].startswith("Be brief.\n\nWhere is room 3")
    assert firsts[30]["content"].startswith("Be kind.\n\nWhere is room 39")
    assert result.format["chat"]["rows_with_folded_system"] == 31
    assert "31 system prompts start the first user turn" in result.log


def test_questions_and_answers_become_turns_and_rows_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {
            "question": f"Where is room {n} of street {n * 7}?",
            "answer": f"Floor {n}.",
            "history": [["Hi, I am here.", "Hello."]],
        }
        for n in range(30)
    ]
    columns = "data.columns={question: question, answer: answer, history: history}"
    result = prepared(tmp_path, caplog, THINKING, rows, columns)
    assert result.rows["train"][0]["messages"][1:2] == [{"role": "assistant", "content": "Hello."}]
    assert result.format["chat"]["dialogues_expanded"] == 30
    assert result.format["chat"]["learned_turns"] == 60


def test_marks_that_contradict_the_turns_stop_the_stage_with_the_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template = MARKED_CHATML.replace("'<|im_end|>' }}{% endgeneration %}{{ '", "'' }}{% endgeneration %}{{ '<|im_end|>")
    with pytest.raises(
        DataError, match=r"row 0: its template marks 'On floor 0\.' as generated .* 'On floor 0\.<\|im_end\|>'"
    ):
        prepared(tmp_path, caplog, template, chats(30))


def test_a_system_prompt_for_rows_as_they_are_is_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": f"def f{n}():", "completion": f"\n    return {n}"} for n in range(30)]
    with pytest.raises(ConfigError, match=r"format\.system: these rows are learned as they are"):
        prepared(tmp_path, caplog, CHATML, rows, "format.system='Be brief.'")
