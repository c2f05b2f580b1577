"""Rendering of records through the prompt templates, and errors in templates."""

from typing import Any

import pytest
import yaml
from support.project import SHIPPED

from pipeline.chat.row_format import TextFormat
from pipeline.config.placeholders import template_errors
from pipeline.format.conversations import conversations_of
from pipeline.format.rendering import render_row
from pipeline.records.tasks import task_of_mapping

TEMPLATES = {
    name: TextFormat(**yaml.safe_load((SHIPPED / f"conf/format/template/{name}.yaml").read_text(encoding="utf-8")))
    for name in ("tutorial", "plain")
}
TURNS = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Flu?"), ("assistant", "Rest.")]
CHAT = [{"role": role, "content": content} for role, content in TURNS]
CHAT_PROMPT = "Be brief.\n\n### Question:\nHi\n### Answer:\nHello\n### Question:\nFlu?\n### Answer:"
ALPACA = {"instruction": "Translate.", "input": "Grippe", "output": "flu"}
QUESTION_PROMPT = "### Question:\nIs it {flu}?\n### Answer:"


@pytest.mark.parametrize(
    ("template", "record", "prompt", "completion"),
    [
        ("tutorial", {"question": "Is it {flu}?", "answer": "No: {0}."}, QUESTION_PROMPT, "\nNo: {0}."),
        ("tutorial", {"instruction": "Is it {flu}?", "response": "No."}, QUESTION_PROMPT, "\nNo."),
        ("tutorial", {"prompt": "Is it {flu}?", "completion": "No."}, QUESTION_PROMPT, "\nNo."),
        ("tutorial", {"input": "Is it {flu}?", "output": "No."}, QUESTION_PROMPT, "\nNo."),
        ("tutorial", {"instruction": "Is it {flu}?", "input": "", "output": "No."}, QUESTION_PROMPT, "\nNo."),
        ("tutorial", ALPACA, "### Question:\nTranslate.\n\nGrippe\n### Answer:", "\nflu"),
        ("tutorial", {"messages": CHAT}, CHAT_PROMPT, "\nRest."),
        ("tutorial", {"text": "All\nof it."}, "", "All\nof it."),
        ("plain", {"question": "Is it {flu}?", "answer": "No."}, "Is it {flu}?", "No."),
        ("plain", ALPACA, "Translate.\n\nGrippe", "flu"),
        ("plain", {"messages": CHAT}, "Be brief.\n\nHiHello\nFlu?", "Rest."),
        ("plain", {"text": "All\nof it."}, "", "All\nof it."),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_record_is_rendered(template: str, record: dict[str, Any], prompt: str, completion: str) -> None:
    (row,) = conversations_of([{"id": 7, **record}], task_of_mapping(record))
    assert render_row(row, TEMPLATES[template]) == {"id": 7, "prompt": prompt, "completion": completion}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    "text", ["a {b} {{c}} {0} {answer}", " \u00a0\ttab\r\n  indented\u2028x\ufeff ", "100 % {", "𝄞\x00é"]
)
def test_texts_reach_the_model_unchanged(template: str, text: str) -> None:
    (row,) = conversations_of([{"id": 0, "question": text, "answer": text}], task_of_mapping(["question", "answer"]))
    rendered = render_row(row, TEMPLATES[template])
    assert text in rendered["prompt"]
    assert text in rendered["completion"]


def test_question_texts_are_all_user_turns_and_the_last_one() -> None:
    (chat,) = conversations_of([{"id": 0, "messages": CHAT}], task_of_mapping(["messages"]))
    (text,) = conversations_of([{"id": 0, "text": "All of it."}], task_of_mapping(["text"]))
    assert chat.question_texts() == ["Hi\nFlu?", "Flu?"]
    assert chat.question_texts(frozenset({"Hi"})) == ["Flu?"]
    assert chat.question_texts(frozenset({"Flu?"})) == ["Hi"]
    assert chat.question_texts(frozenset({"Hi", "Flu?"})) == ["Hi\nFlu?"]
    assert text.question_texts() == ["All of it."]


@pytest.mark.parametrize(
    ("prompt", "completion", "errors"),
    [
        ("{question}", " {answer}", []),
        ('{{"q": "{question}"}}', "{answer}", []),
        ("Q:", "{answer}", ["prompt 'Q:' must hold {question} once"]),
        ("{question} {question}", "{}", ["prompt '{question} {question}' must hold", "completion '{}' must hold"]),
        (
            "{question",
            "{answer}",
            ["prompt '{question' is not a template: expected '}' before end of string; write {{"],
        ),
    ],
    ids=["none", "doubled braces", "no placeholder", "both templates", "open brace"],
)
def test_template_errors(prompt: str, completion: str, errors: list[str]) -> None:
    found = template_errors(prompt, completion)
    assert [error[: len(start)] for error, start in zip(found, errors, strict=True)] == errors


@pytest.mark.parametrize("prompt", ["{question:d}", "{question!x}", "{question:{answer}}"])
def test_placeholder_that_str_format_would_reject_is_an_error(prompt: str) -> None:
    assert len(template_errors(prompt, "{answer}")) == 1
