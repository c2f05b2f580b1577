"""What was given is learned as given: every task and shipped template, from the source's cells to the rendered text."""

import re
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cleaning import clean_batch
from support.project import SHIPPED

from pipeline.config.templates import TextTemplate
from pipeline.format.prompt import render_prompt
from pipeline.records.tasks import TASKS, Task, turns_of
from pipeline.records.text import is_blank

OFF: dict[str, Any] = {
    "line_ends": "keep",
    "blank_lines": "keep",
    "question_prefixes": [],
    "strip": [],
    "boilerplate": [],
    "deduplicate": False,
}
DEFAULTS = OFF | {"line_ends": "normalize", "blank_lines": "trim"}
TEMPLATES = [
    TextTemplate(**yaml.safe_load((SHIPPED / f"conf/format/template/{name}.yaml").read_text(encoding="utf-8")))
    for name in ("plain", "tutorial")
]
# All that UTF-8 holds, with more of what is easily lost: line ends, tabs, invisible characters, markup, braces.
EASILY_LOST = st.sampled_from(
    [
        "\r\n",
        "\r",
        "\n",
        "\n\n",
        "\t",
        "  ",
        "\0",
        "\ufeff",
        "\u200b",
        "\u2028",
        "\x85",
        "{question}",
        "{0}",
        "-->",
        "&amp;",
    ]
)
TEXTS = (
    st.lists(EASILY_LOST | st.text(max_size=9), min_size=1, max_size=6).map("".join).filter(lambda t: not is_blank(t))
)


def learned_texts(task: Task, texts: list[str], options: dict[str, Any]) -> list[str]:
    """The text of the row under each template: prompt and completion."""
    if task.name == "chat":
        roles = ("system", "user", "assistant", "user", "assistant")
        row: dict[str, Any] = {
            "messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)],
        }
        columns = {"messages": "messages"}
    else:
        names = [name for name in task.columns if name not in ("history", "tools")]
        row = dict(zip(names, texts, strict=False))
        columns = {name: name for name in names}
    batch = clean_batch(pa.table({name: [value] for name, value in row.items()}), columns, **options)
    assert batch.dropped == []
    turns, answer = turns_of(task, batch.records[0])
    return [
        (render_prompt(turns, template.prompt, template.completion) + template.completion.format(answer=answer))
        if turns
        else answer
        for template in TEMPLATES
    ]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@settings(max_examples=50, deadline=None)
@given(texts=st.lists(TEXTS, min_size=5, max_size=5))
def test_with_all_switches_off_every_text_is_learned_as_given(task: Task, texts: list[str]) -> None:
    used = texts if task.name == "chat" else texts[: len([n for n in task.columns if n not in ("history", "tools")])]
    for learned in learned_texts(task, texts, OFF):
        assert all(text in learned for text in used)


def without_outer_blank_lines(text: str) -> bool:
    return "\r" not in text and not re.search(r"\A[^\S\n]*\n|\n\s*\n?\s*\Z", text)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@settings(max_examples=50, deadline=None)
@given(texts=st.lists(TEXTS.filter(without_outer_blank_lines), min_size=5, max_size=5))
def test_with_the_defaults_only_line_ends_and_outer_blank_lines_change(task: Task, texts: list[str]) -> None:
    assert learned_texts(task, texts, DEFAULTS) == learned_texts(task, texts, OFF)


CODE = "\n\n    def f(x):\r\n\treturn  x  \n\n"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            {"question": CODE, "answer": CODE},
            {"question": "\n\n    def f(x):\n\treturn  x  \n\n", "answer": "    def f(x):\n\treturn  x  \n"},
            id="question and answer",
        ),
        pytest.param(
            {"prompt": CODE, "completion": CODE},
            {"prompt": "\n\n    def f(x):\n\treturn  x  \n\n", "completion": "\n\n    def f(x):\n\treturn  x  \n\n"},
            id="prompt and completion go on",
        ),
        pytest.param({"text": CODE}, {"text": "\n\n    def f(x):\n\treturn  x  \n\n"}, id="plain text"),
        pytest.param(
            {"instruction": "a", "output": "<!-- x -->\n-->\n"},
            {"instruction": "a", "output": "<!-- x -->\n-->\n"},
            id="an arrow at the end",
        ),
    ],
)
def test_the_defaults_on_literal_rows(row: dict[str, str], expected: dict[str, str]) -> None:
    assert clean_batch([row], **DEFAULTS).records == [{"id": 0, **expected}]


def test_every_kind_of_change_is_counted_with_its_first_example() -> None:
    rows = [
        {"question": "Q. a\r\nb", "answer": "\nx"},
        {"question": "donâ€™t  do", "answer": "Rest. -->"},
        {"question": "<p>a</p>", "answer": "Write to a@b.org\n\nBest regards,\nJo"},
        {"question": "c\n> d", "answer": "c"},
    ]
    batch = clean_batch(
        rows,
        mend_encoding=True,
        html="text",
        contacts="mask",
        signatures="strip",
        quoted_replies="strip",
        whitespace="collapse",
    )
    assert batch.changed == {
        "line_ends": 1,
        "mended": 1,
        "html": 1,
        "quoted_replies": 1,
        "signatures": 1,
        "whitespace": 2,
        "masked": 1,
        "prefixes": 1,
        "stripped": 1,
    }
    assert batch.examples["prefixes"] == (0, "Q. a b", "a b")
    assert batch.examples["signatures"] == (2, rows[2]["answer"], "Write to a@b.org")
    assert [tuple(record.values())[1:] for record in batch.records] == [
        ("a b", "x"),
        ("don’t do", "Rest."),
        ("a", "Write to [email]"),
        ("c", "c"),
    ]


def test_texts_of_millions_of_characters_and_with_nul_stay_as_they_are() -> None:
    row = {"question": "\ufeffa\0b\ufeff", "answer": "x \n" * 1_000_000 + "y"}
    assert clean_batch([row]).records == [{"id": 0, **row}]


def test_nul_does_not_make_different_rows_duplicates() -> None:
    rows = [{"question": "a\0b", "answer": "c"}, {"question": "a", "answer": "b\0c"}]
    assert len(clean_batch(rows).records) == 2


def test_text_of_nothing_to_see_counts_as_empty() -> None:
    rows = [{"question": "a", "answer": "\u200b\n\u00a0"}, {"question": "\ufeff\0", "answer": "b"}]
    assert [row["reason"] for row in clean_batch(rows).dropped] == ["empty", "empty"]


def test_row_of_the_test_set_is_dropped_only_if_it_is_unusable() -> None:
    rows = [
        {"question": "a", "answer": "b\n\n"},
        {"question": "a", "answer": "b"},
        {"question": "Q. a", "answer": "Hello."},
        {"question": "c", "answer": " "},
        {"question": "a", "answer": "b"},
    ]
    batch = clean_batch(rows, first_test_row=1)
    assert [record["id"] for record in batch.records] == [0, 1, 2, 4]
    assert [(row["id"], row["reason"]) for row in batch.dropped] == [(3, "empty")]
    assert batch.test_ids == {1, 2, 3, 4}
    assert batch.records[2]["question"] == "a"


def test_a_test_row_makes_no_training_row_a_duplicate() -> None:
    assert len(clean_batch([{"question": "a", "answer": "b"}] * 2, first_test_row=1).records) == 2
