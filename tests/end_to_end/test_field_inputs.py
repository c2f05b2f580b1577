"""Inputs in the shapes that people bring, from the file to the prompts and completions: literal rows, counts, warnings."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pytest
from support.data_stages import delimited, lines, prepare

COUNT = 40
SPLIT = (30, 4, 6)  # rows of train, validation and test
PROMPT, COMPLETION = "### Question:\n{}\n### Answer:", "\n{}"
CODE = "    if x:\n\treturn  x\n\n    | a | b  |\n    return 0"


def question(number: int) -> str:
    return f"Where is tool {number}?"


def answer(number: int) -> str:
    return f"On shelf {number}."


def pair(number: int) -> dict[str, Any]:
    return {"question": question(number), "answer": answer(number)}


PAIRS = [pair(number) for number in range(COUNT)]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def chat(number: int) -> list[dict[str, Any]]:
    return [user(question(number)), assistant(answer(number))]


def arrow_views(rows: list[Any]) -> bytes:
    turn = pa.struct({"role": pa.string_view(), "content": pa.string_view()})
    sink = io.BytesIO()
    feather.write_feather(pa.table({"messages": pa.array(rows, pa.list_(turn))}), sink, compression="uncompressed")
    return sink.getvalue()


SEMICOLONS = delimited(["Frage", "Antwort"], [[question(n), answer(n)] for n in range(COUNT)], ";")
LONG_SYSTEM = "You are the store keeper of a large workshop. Tell everyone in one short sentence where a tool is."
# name → (file name, content, overrides, the whole prompt and completion of row 1)
PLAIN = (PROMPT.format(question(1)), COMPLETION.format(answer(1)))
EARLIER = PROMPT.format(question(1)) + COMPLETION.format("Which one?") + "\n" + PROMPT.format("The big one.")
WITH_SYSTEM = ("Be brief.\n\n" + PLAIN[0], PLAIN[1])
INPUTS: dict[str, tuple[str, bytes, tuple[str, ...], tuple[str, str]]] = {
    "code in answers": (
        "rows.jsonl",
        lines([row | {"answer": f"{CODE}\n# {number}"} for number, row in enumerate(PAIRS)]),
        (),
        (PLAIN[0], f"\n{CODE}\n# 1"),
    ),
    "arrow at the end of answers": (
        "rows.jsonl",
        lines([row | {"answer": f"<!-- Find it online. -->{number}<!-- -->"} for number, row in enumerate(PAIRS)]),
        (),
        (PLAIN[0], "\n<!-- Find it online. -->1<!-- -->"),
    ),
    "completions go on, byte for byte": (
        "rows.jsonl",
        lines([{"prompt": f"def f_{n}(x):\n", "completion": f"    return x * {n}\n\n"} for n in range(COUNT)]),
        ("format.template={prompt: '{question}', completion: '{answer}'}",),
        ("def f_1(x):\n", "    return x * 1\n\n"),
    ),
    "semicolons and BOM": ("rows.csv", ("\ufeff" + SEMICOLONS).encode(), (), PLAIN),
    "sep line": ("rows.csv", ("sep=;\r\n" + SEMICOLONS).encode(), (), PLAIN),
    "delimiter given": (
        "rows.csv",
        delimited(["question", "answer"], [[question(n), answer(n)] for n in range(COUNT)], "^").encode(),
        ("data.delimiter='^'",),
        PLAIN,
    ),
    "list named .jsonl": ("rows.jsonl", json.dumps(PAIRS).encode(), (), PLAIN),
    "list in a key": ("rows.json", json.dumps({"version": "1.0", "data": PAIRS}).encode(), (), PLAIN),
    "ShareGPT with system": (
        "rows.json",
        json.dumps(
            [
                {
                    "conversations": [{"from": "human", "value": question(n)}, {"from": "gpt", "value": answer(n)}],
                    "system": "Be brief.",
                    "tools": "[]",
                }
                for n in range(COUNT)
            ]
        ).encode(),
        (),
        WITH_SYSTEM,
    ),
    "Alpaca with system and history": (
        "rows.json",
        json.dumps(
            [
                {
                    "instruction": "The big one.",
                    "input": "",
                    "output": answer(n),
                    "system": "Be brief.",
                    "history": [[question(n), "Which one?"]],
                }
                for n in range(COUNT)
            ]
        ).encode(),
        (),
        ("Be brief.\n\n" + EARLIER, PLAIN[1]),
    ),
    "messages as JSON text": (
        "rows.jsonl",
        lines([{"messages": json.dumps(chat(n))} for n in range(COUNT)]),
        (),
        PLAIN,
    ),
    "messages as JSON text in CSV": (
        "rows.csv",
        delimited(["messages"], [[json.dumps(chat(n))] for n in range(COUNT)]).encode(),
        (),
        PLAIN,
    ),
    "conversational prompt and completion": (
        "rows.jsonl",
        lines(
            [
                {"prompt": [{"role": "system", "content": "Be brief."}, chat(n)[0]], "completion": [chat(n)[1]]}
                for n in range(COUNT)
            ]
        ),
        (),
        WITH_SYSTEM,
    ),
    "text parts": (
        "rows.jsonl",
        lines(
            [
                {
                    "messages": [
                        user([{"type": "text", "text": "Where is "}, {"type": "text", "text": f"tool {n}?"}]),
                        assistant([{"type": "text", "text": answer(n)}]),
                    ]
                }
                for n in range(COUNT)
            ]
        ),
        (),
        PLAIN,
    ),
    "mixed types in unmapped columns": (
        "rows.jsonl",
        lines([row | {"id": ["t", 1, None][n % 3], "meta": [{"n": n}, "n/a"][n % 2]} for n, row in enumerate(PAIRS)]),
        ("data.columns={question: question, answer: answer}",),
        PLAIN,
    ),
    "views in Arrow": ("rows.arrow", arrow_views([chat(n) for n in range(COUNT)]), (), PLAIN),
}


@pytest.mark.parametrize(("name", "content", "overrides", "texts"), INPUTS.values(), ids=INPUTS)
def test_every_row_is_learned_as_given(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    content: bytes,
    overrides: tuple[str, ...],
    texts: tuple[str, str],
) -> None:
    (tmp_path / name).write_bytes(content)
    prepared = prepare(tmp_path / name, caplog, *overrides)
    assert prepared.texts(1) == texts
    assert (sum(prepared.counts), prepared.changed(), prepared.dropped()) == (COUNT, {}, {})
    assert prepared.counts[0] >= 26
    assert prepared.format["leakage"]["near"] == 0
    assert "changed: none" in prepared.log


# Chats that the prompt template cannot express in full

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": {"tool": 7}}}
TOOLS = [{"type": "function", "function": {"name": "find"}}]
CALLED = [user("Where?"), assistant(None, tool_calls=[CALL]), {"role": "tool", "tool_call_id": "c1", "content": "7"}]


def test_tool_calls_are_kept_for_a_chat_template(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows: list[dict[str, Any]] = [{"messages": chat(n), "tools": TOOLS} for n in range(COUNT)]
    rows += [{"messages": [*CALLED, assistant("Seven.")], "tools": TOOLS}, {"messages": CALLED[:2], "tools": TOOLS}]
    (tmp_path / "rows.jsonl").write_bytes(lines(rows))
    prepared = prepare(tmp_path / "rows.jsonl", caplog)
    assert (prepared.counts, prepared.dropped()) == (SPLIT, {"needs_chat_template": 2})
    assert prepared.format["rows_without_tools"] == COUNT
    assert prepared.format["warnings"][0] == (
        "2 of 42 rows have tool calls or tool results, which the prompt template (format.template) cannot express; they are "
        "left out, and stay in data/clean"
    )
    assert prepared.records[COUNT] == {
        "id": COUNT,
        "messages": [
            user("Where?"),
            assistant("", tool_calls=[CALL]),
            {"role": "tool", "content": "7", "tool_call_id": "c1"},
            assistant("Seven."),
        ],
        "tools": TOOLS,
    }


def test_developer_is_system_and_a_turn_of_weight_0_is_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[dict[str, Any]] = [{"messages": chat(n)} for n in range(COUNT)]
    rows[1]["messages"] = [
        {"role": "developer", "content": "Be brief."},
        user(question(1)),
        assistant("Which one?", weight=0),
        user("The big one."),
        assistant(answer(1)),
        user("Thanks!"),
        assistant("Bye.", weight=0),
    ]
    (tmp_path / "rows.jsonl").write_bytes(lines(rows))
    prepared = prepare(tmp_path / "rows.jsonl", caplog)
    assert prepared.texts(1) == ("Be brief.\n\n" + EARLIER, PLAIN[1])
    assert (sum(prepared.counts), prepared.changed()) == (COUNT, {"trailing_turns": 1})


def test_a_part_that_is_no_text_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows: list[dict[str, Any]] = [{"messages": chat(n)} for n in range(COUNT)]
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    rows[1]["messages"][0]["content"] = [image, {"type": "text", "text": question(1)}]
    (tmp_path / "rows.jsonl").write_bytes(lines(rows))
    prepared = prepare(tmp_path / "rows.jsonl", caplog)
    assert prepared.texts(1) == PLAIN
    assert (prepared.changed(), prepared.dropped()) == ({"dropped_parts": 1}, {})
    assert "1 with parts removed that are not text, such as row 1: 'image_url'" in prepared.log


def test_common_system_prompt_makes_no_rows_near(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    greeting = [user("Hello, I have got a question about one of your tools, please."), assistant("Of course!")]
    rows = [{"messages": [{"role": "system", "content": LONG_SYSTEM}, *greeting, *chat(n)]} for n in range(COUNT)]
    (tmp_path / "rows.jsonl").write_bytes(lines([*rows, *rows[:2]]))
    prepared = prepare(tmp_path / "rows.jsonl", caplog)
    assert (prepared.counts, prepared.dropped()) == ((31, 3, 6), {"duplicate": 2})
    assert prepared.format["clusters"] == {"count": COUNT, "rows_with_others": 0, "largest": 1, "rows_moved": 3}
    assert any(warning.startswith("Most rows have the turn “Hello, I have") for warning in prepared.format["warnings"])
    assert prepared.texts(1)[0].startswith(LONG_SYSTEM + "\n\n### Question:\nHello, ")
