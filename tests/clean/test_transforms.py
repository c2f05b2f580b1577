"""pipeline/clean/transforms.py: what changes in a text, on literal rows."""

from typing import Any

import pyarrow as pa
import pytest
from support.cleaning import chat_row, clean_options, clean_rows

from pipeline.clean.cleaner import Cleaner
from pipeline.clean.transforms import mask_contacts, strip_prefixes
from pipeline.records.columns import resolve_columns


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        pytest.param("Q. Quick heartbeat?", "Quick heartbeat?", id="the next word keeps its Q"),
        pytest.param("Quick heartbeat?", "Quick heartbeat?", id="Quick is no prefix"),
        pytest.param("\u00a0Q.\u00a0What is flu?", "What is flu?", id="no-break spaces around"),
        pytest.param("Q.What is flu?", "What is flu?", id="no space after"),
        pytest.param("Is it Q. fever?", "Is it Q. fever?", id="in the middle it stays"),
        pytest.param("Q. Q. Twice?", "Q. Twice?", id="once"),
        pytest.param("q. Small?", "q. Small?", id="small letter"),
    ],
)
def test_question_prefix_is_removed(question: str, expected: str) -> None:
    records, _ = clean_rows([{"question": question, "answer": "Q. Rest."}])
    assert records == [{"id": 0, "question": expected, "answer": "Q. Rest."}]


def test_prefixes_are_removed_in_the_order_given() -> None:
    assert strip_prefixes("Question: Q. Flu?", ["Question:", "Q."]) == "Flu?"
    assert strip_prefixes("Question: Q. Flu?", ["Q.", "Question:"]) == "Q. Flu?"


STRIPPED = [
    ("Drink water. For more information consult an internal medicine physician online -->", "Drink water."),
    ("Drink water. For further queries, consult a dentist online --->", "Drink water."),
    ("Drink water. Revert back with the reports to a neurologist online. -->", "Drink water."),
    ("Drink water:\u00a0For more information consult a neurologist online -->", "Drink water:"),
    ("Drink water. -->", "Drink water."),
    ("Buy it online --> it is cheap.", "Buy it online --> it is cheap."),
    ("You can buy it online.", "You can buy it online."),
]


@pytest.mark.parametrize(("answer", "expected"), STRIPPED)
def test_advertisement_at_the_end_of_an_answer_is_stripped(answer: str, expected: str) -> None:
    assert clean_rows([{"question": "q", "answer": answer}])[0] == [{"id": 0, "question": "q", "answer": expected}]


def test_only_the_answer_of_a_chat_is_stripped() -> None:
    text = "Rest. For more information consult a dentist online -->"
    records, _ = clean_rows([chat_row(("user", text), ("assistant", text))])
    assert records == [{"id": 0, **chat_row(("user", text), ("assistant", "Rest."))}]


def test_changed_rows_are_counted() -> None:
    table = pa.table({"question": ["donâ€™t", "q", "b"], "answer": ["a@b.org", "Rest. -->", "c"]})
    options = clean_options(mend_encoding=True, contacts="mask")
    batch = Cleaner(resolve_columns(table.column_names, None), options).clean_batch(table)
    assert batch.changed == {"mended": 1, "masked": 1, "stripped": 1}
    assert [row["question"] for row in batch.records] == ["don’t", "q", "b"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("ann.lee+x@mail.example.co.uk", "[email]"),
        ("(ask bob@example.org)", "(ask [email])"),
        ("call +91 98765 43210 now", "call [phone] now"),
        ("+1 (555) 010-9999", "[phone]"),
        ("555-010-9999 or (555) 010-9999", "[phone] or [phone]"),
        ("98765 43210, 9876543210, 02079460958", "[phone], [phone], [phone]"),
        ("120/80 mm Hg on 2019-04-01 10:30", "120/80 mm Hg on 2019-04-01 10:30"),
        ("100-150 mg, 200 300 400, 1234567", "100-150 mg, 200 300 400, 1234567"),
        ("TSH 3.456, platelets 150000, +2 oedema", "TSH 3.456, platelets 150000, +2 oedema"),
        ("12345678901234567890", "12345678901234567890"),
        ("a @ b", "a @ b"),
    ],
)
def test_addresses_and_phone_numbers_are_masked_and_other_numbers_kept(text: str, masked: str) -> None:
    assert mask_contacts(text) == masked


def test_nan_is_an_empty_cell_and_a_whole_float_an_integer() -> None:
    table = pa.table({"question": ["a", "b"], "answer": [float("nan"), 3.0]})
    records, dropped = clean_rows(table)
    assert (records, dropped) == ([{"id": 1, "question": "b", "answer": "3"}], [{"id": 0, "reason": "empty"}])


def test_numbers_become_text() -> None:
    assert clean_rows([{"prompt": 0, "completion": 2.5}])[0] == [{"id": 0, "prompt": "0", "completion": "2.5"}]


@pytest.mark.parametrize("extra", [{}, {"input": ""}, {"input": None}], ids=["absent", "empty", "null"])
def test_alpaca_needs_no_input(extra: dict[str, Any]) -> None:
    records, dropped = clean_rows([{"instruction": "Q. Count.", "output": "1 2"} | extra])
    assert records == [{"id": 0, "instruction": "Count.", **({"input": ""} if extra else {}), "output": "1 2"}]
    assert dropped == []
