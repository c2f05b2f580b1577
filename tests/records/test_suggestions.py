"""Detected names, proposed mappings and the overrides that errors show, on literal columns."""

import shlex
from typing import Any

import pyarrow as pa
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cleaning import json_column

from pipeline.errors import DataError
from pipeline.records.columns import column_values, resolve_columns
from pipeline.records.suggestions import format_columns_override, suggest_columns


def parse_override(argument: str) -> Any:
    """data.columns as the shell and Hydra read the argument."""
    flag, override = shlex.split(argument)
    assert flag == "-S"
    return OverridesParser.create().parse_override(override).value()


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=12).filter(lambda name: name.isprintable()))
def test_overrides_survive_the_shell_and_hydra(name: str) -> None:
    assert parse_override(format_columns_override({"question": name})) == {"question": name.replace("${", "\\${")}


@pytest.mark.parametrize(
    ("available", "columns"),
    [
        (["Frage", "Antwort", "Nr"], {"question": "Frage", "answer": "Antwort"}),
        (["pregunta", "respuesta"], {"question": "pregunta", "answer": "respuesta"}),
        (["Question", "Re\u0301ponse"], {"question": "Question", "answer": "Re\u0301ponse"}),
        (["вопрос", "ответ"], {"question": "вопрос", "answer": "ответ"}),
        (["问题", "答案"], {"question": "问题", "answer": "答案"}),
        (["質問", "回答"], {"question": "質問", "answer": "回答"}),
        ([" question", "answer "], {"question": " question", "answer": "answer "}),
        (["\ufeffQuestion", "Answer"], {"question": "\ufeffQuestion", "answer": "Answer"}),
        (["Subject", "Body", "Agent reply"], {"question": "{Subject}\n\n{Body}", "answer": "Agent reply"}),
        (["ticket_id", "description", "resolution"], {"question": "description", "answer": "resolution"}),
        (["subject", "body", "answer", "queue"], {"question": "{subject}\n\n{body}", "answer": "answer"}),
        (
            ["system_prompt", "question", "response"],
            {"question": "question", "answer": "response", "system": "system_prompt"},
        ),
        (["question", "answer", "system"], {"question": "question", "answer": "answer"}),
        (
            ["instruction", "input", "output", "system", "history"],
            {n: n for n in ("instruction", "input", "output", "system", "history")},
        ),
        (["conversations", "system", "tools"], {"messages": "conversations", "system": "system", "tools": "tools"}),
        (["messages", "functions"], {"messages": "messages", "tools": "functions"}),
        (["dialogue", "summary"], {"input": "dialogue", "output": "summary"}),
        (["prompt", "completion", "tools"], {"prompt": "prompt", "completion": "completion", "tools": "tools"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usual_names_are_detected(available: list[str], columns: dict[str, str]) -> None:
    assert resolve_columns(available, None).columns == columns


@pytest.mark.parametrize(
    ("columns", "actual"),
    [
        ({"question": "frage", "answer": "ANTWORT"}, {"question": " Frage", "answer": "Antwort "}),
        ({"question": "{Frage}: {Nr.}", "answer": "Antwort"}, {"question": "{ Frage}: {Nr.}", "answer": "Antwort "}),
        ({"question": "a {{b}}", "answer": "{a: b}!"}, {"question": "a {{b}}", "answer": "{a: b}!"}),
    ],
    ids=["case and spaces", "template", "braces and colon"],
)
def test_mapped_names_need_not_match_in_case_and_spaces(columns: dict[str, str], actual: dict[str, str]) -> None:
    available = [" Frage", "Antwort ", "Nr.", "a {b}", "a: b"]
    mapping = resolve_columns(available, columns)
    assert mapping.columns == actual
    assert set(mapping.source_columns()) <= set(available)


def test_a_column_with_braces_in_its_name_can_be_read() -> None:
    table = pa.table({"Frage {de}": ["a"], "Antwort {de}": ["b"]})
    assert column_values(table, "Frage {{de}}") == ["a"]
    assert suggest_columns(table.column_names, table) == {"question": "Frage {{de}}", "answer": "Antwort {{de}}"}


ERRORS = {
    "misspelt": (
        ["Frage", "Antwort"],
        {"question": "Frage", "answer": "Antwrot"},
        [{"question": "Frage", "answer": "Antwort"}],
    ),
    "case alone": (
        ["q", "Q", "a"],
        {"question": " q", "answer": "a"},
        [{"question": "q", "answer": "a"}, {"question": "Q", "answer": "a"}],
    ),
    "unknown names": (["Anliegen", "Erledigung", "Datum"], None, [{"question": "Anliegen", "answer": "Erledigung"}]),
    "umlauts and quotes": (["Über 'uns'", 'Wie "so"'], None, [{"question": "Über 'uns'", "answer": 'Wie "so"'}]),
    "ambiguous": (
        ["question", "answer", "prompt", "completion"],
        None,
        [{"question": "question", "answer": "answer"}, {"prompt": "prompt", "completion": "completion"}],
    ),
}


@pytest.mark.parametrize(("available", "columns", "choices"), ERRORS.values(), ids=ERRORS)
def test_errors_hold_mappings_ready_to_paste(
    available: list[str], columns: dict[str, str] | None, choices: list[dict[str, str]]
) -> None:
    with pytest.raises(DataError) as error:
        resolve_columns(available, columns)
    lines = [line.strip() for line in str(error.value).split("\n") if line.startswith("  -S ")]
    assert [parse_override(line) for line in lines] == choices
    assert all(resolve_columns(available, choice) for choice in choices)


CHAT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
LONG, SHORT = "The tax number of 10 rows is invalid; fix them and press Resume.", "It hangs at 99%"
SAMPLES: dict[str, tuple[dict[str, list[Any]], dict[str, str]]] = {
    "ids, dates, addresses and constants": (
        {
            "nr": [1, 2],
            "uuid": ["3f2a-1", "9c1b-2"],
            "opened": ["2024-01-02", "2024-01-03"],
            "page": ["https://a.example", "https://b.example"],
            "product": ["Ledgerly Mobile", "Ledgerly Mobile"],
            "first": [SHORT, SHORT + "!"],
            "second": [LONG, LONG + "!"],
        },
        {"question": "first", "answer": "second"},
    ),
    "the longer one is the answer": (
        {"col1": [LONG, LONG + "!"], "col2": [SHORT, SHORT + "!"]},
        {"question": "col2", "answer": "col1"},
    ),
    "about equal: the first is the question": (
        {"left": [SHORT, SHORT + "!"], "right": ["It stops at 98%", "It stops at 97%"]},
        {"question": "left", "answer": "right"},
    ),
    "names decide before lengths": (
        {"final answer text": [SHORT, SHORT + "!"], "the problem": [LONG, LONG + "!"]},
        {"question": "the problem", "answer": "final answer text"},
    ),
    "Chinese": (
        {"甲": ["怎么重置打印机？", "怎么登录？"], "乙": ["请打开设置，然后按重置按钮。", "请输入密码。"]},
        {"question": "甲", "answer": "乙"},
    ),
    "answers of one word": (
        {
            "id": [1, 2],
            "ask": ["Capital of France?", "Capital of Italy?"],
            "say": ["Paris", "Rome"],
            "ref": ["x1", "x2"],
        },
        {"question": "ask", "answer": "say"},
    ),
    "one text": ({"n": [1, 2], "story": [LONG, SHORT]}, {"text": "story"}),
    "numbers alone": ({"n": [1, 2], "m": [3, 4]}, {}),
    "numbers as texts": ({"loss": ["0.25", "1e-05", "-"], "rate": ["9E-5", "0.1", "1"]}, {}),
}


@pytest.mark.parametrize(("table", "columns"), SAMPLES.values(), ids=SAMPLES)
def test_a_sample_tells_questions_and_answers_from_the_rest(
    table: dict[str, list[Any]], columns: dict[str, str]
) -> None:
    assert suggest_columns(list(table), pa.table(table)) == columns


def test_a_column_of_messages_is_proposed_as_a_chat() -> None:
    table = pa.table({"log": json_column(CHAT), "about": [LONG]})
    assert suggest_columns(table.column_names, table) == {"messages": "log"}


@pytest.mark.parametrize(
    ("chosen", "columns"),
    [(CHAT[1:], {"prompt": "prompt", "completion": "chosen"}), (CHAT, {"messages": "chosen"})],
    ids=["completion", "whole chat"],
)
def test_preference_data_is_proposed_as_a_chat(chosen: list[Any], columns: dict[str, str]) -> None:
    table = {"prompt": [CHAT[:1]], "chosen": [chosen], "rejected": [chosen]}
    assert suggest_columns(list(table), pa.table(table)) == columns


def test_hundreds_of_columns_are_proposed_by_their_names() -> None:
    names = [f"id_{number}" for number in range(400)]
    assert suggest_columns([*names, "Anliegen", "Erledigung"]) == {"question": "Anliegen", "answer": "Erledigung"}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["a", 1, True, None, 2.5], ["a", 1, True, None, 2.5]),
        ([{"page": 1}, "n/a"], [{"page": 1}, "n/a"]),
        ([12345678901234567890123], [12345678901234567890123]),
    ],
)
def test_cells_of_json_columns_come_back_as_given(cells: list[Any], expected: list[Any]) -> None:
    assert column_values(pa.table({"a": json_column(*cells)}), "a") == expected


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        ({"a": "x", "b": "y", "c": "z"}, "x\n\ny (z)"),
        ({"a": None, "b": "y", "c": "z"}, "y (z)"),
        ({"a": "x", "b": "", "c": "z"}, "x (z)"),
        ({"a": None, "b": None, "c": None}, ""),
    ],
)
def test_template_leaves_out_the_space_around_an_empty_cell(cells: dict[str, str | None], text: str) -> None:
    assert column_values(pa.table({k: [v] for k, v in cells.items()}), "{a}\n\n{b} ({c})") == [text]
