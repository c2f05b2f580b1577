"""pipeline/format/notes.py: what the user should know is said before the training."""

import pytest
from support.splitting import assigned, leakage_of, options, row, rows_of, sentences, split_of

from pipeline.format.chat_notes import refusal_warnings
from pipeline.format.conversations import Conversation, Conversations
from pipeline.format.duplicates import DuplicateSearch
from pipeline.format.notes import find_warnings, near_examples
from pipeline.format.split import Split

WEEKS = [f"What can I do at home for a sore throat that came with the cold in week {week}?" for week in range(200)]


def warnings_of(split: Split, **near: object) -> list[str]:
    tested = options(near=near)
    search = DuplicateSearch(split.rows, tested.near)
    return find_warnings(split, search, tested, leakage_of(split, tested))


def test_ordinary_split_has_no_warnings() -> None:
    assert warnings_of(split_of(rows_of(sentences(500, 9)))) == []


@pytest.mark.parametrize(
    ("test", "validation", "expected"),
    [
        (1, 20, ["The test set has only 1 row: no difference between two models can be significant (p < 0.05)."]),
        (12, 20, ["The test set has only 12 rows: at least 6 answers (50%) must get better, and none worse,"]),
        (50, 2, ["The validation set has only 2 rows: the choice of the best weights"]),
    ],
)
def test_small_splits_are_named(test: int, validation: int, expected: list[str]) -> None:
    rows = rows_of(sentences(200, 9))
    split = assigned(train=rows[100:], validation=rows[60 : 60 + validation], test=rows[:test])
    found = warnings_of(split)
    assert [warning[: len(start)] for warning, start in zip(found, expected, strict=True)] == expected


def test_rows_that_are_left_out_are_named() -> None:
    rows = [(id, "needs_chat_template", "") for id in range(100)]
    (found,) = refusal_warnings(Conversations(rows_of(sentences(300, 9)), rows))
    assert found.startswith("100 of 400 rows have tool calls or tool results, which the prompt template")
    assert "they are left out, and stay in data/clean" in found


def test_dropped_rows_are_named_with_the_key_and_examples() -> None:
    rows = rows_of(WEEKS[:100] + sentences(400, 9))
    split = split_of(rows, options(near={"strategy": "drop"}))
    (warning,) = warnings_of(split, strategy="drop")
    assert warning.startswith(f"{len(split.dropped)} of 500 rows")
    assert "format.near.strategy=cluster" in warning
    examples = near_examples(split, DuplicateSearch(rows, options(near={"strategy": "drop"}).near))
    assert all(one in WEEKS and other in WEEKS and one != other for one, other in examples)


def test_large_clusters_and_few_clusters_are_named() -> None:
    large = warnings_of(split_of(rows_of(WEEKS + sentences(400, 9))))
    assert any(warning.startswith("200 of 600 rows are in clusters of more than 50") for warning in large)
    tickets = rows_of(f"{text} case {number}" for number in range(30) for text in sentences(12, 12))
    assert any(
        "test rows form only 1 cluster of equal or near rows" in warning for warning in warnings_of(split_of(tickets))
    )


def test_examples_are_two_pairs_of_different_clusters() -> None:
    rows = rows_of(f"{text} case {number}" for number in range(5) for text in sentences(30, 12))
    examples = near_examples(split_of(rows), DuplicateSearch(rows, options().near))
    assert len(examples) == 2
    assert all(one != other and one[:40] == other[:40] for one, other in examples)
    assert examples[0][0][:40] != examples[1][0][:40]


def test_texts_that_differ_in_whitespace_alone_are_no_example() -> None:
    rows = rows_of([WEEKS[0], WEEKS[0].replace(" ", "\n", 3), WEEKS[1]])
    assert [{*pair} for pair in near_examples(split_of(rows), DuplicateSearch(rows, options().near))] == [{*WEEKS[:2]}]


@pytest.mark.parametrize("question", ["流感是什么怎么治疗呢", "インフルエンザとは何ですか", "ไข้หวัดใหญ่คืออะไร"])
def test_text_without_spaces_is_named(question: str) -> None:
    rows: list[Conversation] = [row(id, f"{question} {id}") for id in range(400)]
    assert any("script without spaces between words" in warning for warning in warnings_of(split_of(rows)))
