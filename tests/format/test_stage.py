"""pipeline/format/stage.py: the split is stable, disjoint and free of leakage."""

import itertools
import random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings, strategies
from support.project import SHIPPED
from support.questions import VOCABULARY, random_questions

from pipeline.config.params import Format, NearDuplicates, Template
from pipeline.errors import DataError
from pipeline.format.stage import (
    Conversation,
    DuplicateSearch,
    Splits,
    assign_split,
    conversations_of,
    measure_leakage,
    require_leakage_within_limit,
    require_nonempty_splits,
    split_key,
    split_rows,
)
from pipeline.records.tasks import Turn, task_of_mapping

NEAR = NearDuplicates(threshold=0.7, min_words=8)
OPTIONS = Format(
    seed=0,
    split="question",
    test_fraction=0.15,
    validation_fraction=0.1,
    folds=None,
    fold=0,
    max_leakage=0.0,
    near=NEAR,
    template=Template(**yaml.safe_load((SHIPPED / "conf/format/template/plain.yaml").read_text(encoding="utf-8"))),
)


def row(id: int, question: str, answer: str = "Rest.") -> Conversation:
    return Conversation(id, [Turn("user", question)], answer)


def random_rows(count: int, seed: int) -> list[Conversation]:
    return [row(id, question) for id, question in enumerate(random_questions(count, seed))]


def split_of(question: str, options: Format = OPTIONS) -> str:
    return assign_split(split_key(row(0, question), options), options)


def splits_and_dropped(rows: list[Conversation], options: Format = OPTIONS) -> tuple[Splits, Splits]:
    return split_rows(rows, options, DuplicateSearch(rows, options.near))


def leakage_of(splits: Splits) -> dict[str, float]:
    return measure_leakage(splits, DuplicateSearch([row for rows in splits.values() for row in rows], NEAR))


def split_by_id(splits: Splits) -> dict[int, str]:
    return {row.id: name for name, rows in splits.items() for row in rows}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is flu?", "train"),
        ("Where does gout come from?", "train"),
        ("流感是什么", "train"),
        ("When is a burn an emergency?", "test"),
        ("WHEN is a burn\nan emergency", "test"),
        ("Why do I sneeze?", "validation"),
        ("why, do i: sneeze", "validation"),
        ("???", "validation"),
    ],
)
def test_split_of_a_question_never_changes(question: str, expected: str) -> None:
    assert split_of(question) == expected


def test_other_seed_gives_another_split() -> None:
    assert split_of("Why do I sneeze?", OPTIONS.model_copy(update={"seed": 1})) == "train"


def test_splits_have_about_the_configured_fractions() -> None:
    splits = [split_of(f"question {number}") for number in range(4000)]
    assert splits.count("test") / 4000 == pytest.approx(0.15, abs=0.02)
    assert splits.count("validation") / 4000 == pytest.approx(0.1, abs=0.02)


def test_rows_with_the_same_question_stay_together() -> None:
    rows = [row(0, "Why do I sneeze?"), row(1, "why do I SNEEZE", "Dust."), row(2, "Why... do I sneeze?!", "Pollen.")]
    assert splits_and_dropped(rows) == ({"train": [], "validation": rows, "test": []}, {"train": [], "validation": []})


def test_near_duplicates_of_held_out_rows_are_dropped() -> None:
    question = "What can I do at home for a sore throat that came with the cold in week {}?"
    rows = [row(week, question.format(week)) for week in range(20)]
    splits, dropped = splits_and_dropped(rows)
    assert split_by_id(splits) == {0: "test", 11: "test", 16: "test"}
    assert {name: len(rows) for name, rows in dropped.items()} == {"train": 15, "validation": 2}
    in_validation, in_train = rows[7], rows[1]
    assert splits_and_dropped([in_validation, in_train]) == (
        {"train": [], "validation": [in_validation], "test": []},
        {"train": [in_train], "validation": []},
    )


def test_row_with_the_answer_of_a_held_out_row_is_dropped() -> None:
    answer = "Drink warm tea and rest until the fever is gone."
    held_out, duplicate = row(0, "When is a burn an emergency?", answer), row(1, "What is flu?", answer.upper())
    assert splits_and_dropped([held_out, duplicate]) == (
        {"train": [], "validation": [], "test": [held_out]},
        {"train": [duplicate], "validation": []},
    )


@pytest.mark.parametrize("seed", range(5))
def test_split_is_disjoint_counts_every_row_and_leaks_nothing(seed: int) -> None:
    rows = random_rows(300, seed)
    splits, dropped = splits_and_dropped(rows)
    assert len(split_by_id(splits)) == sum(map(len, splits.values())) == 300 - sum(map(len, dropped.values()))
    assert dropped["train"]
    assert leakage_of(splits) == {"exact": 0, "near": 0}


@pytest.mark.parametrize("seed", range(5))
def test_neither_added_rows_nor_their_order_move_a_row(seed: int) -> None:
    rows, generator = random_rows(200, seed), random.Random(seed)
    of_all = split_by_id(splits_and_dropped(rows)[0])
    assert split_by_id(splits_and_dropped(generator.sample(rows, 200))[0]) == of_all
    for size in (20, 80, 180):
        splits, dropped = splits_and_dropped(generator.sample(rows, size))
        of_sample = split_by_id(splits)
        assert {id for id in of_sample if of_all.get(id, of_sample[id]) != of_sample[id]} == set()
        assert not {row.id for rows in dropped.values() for row in rows} & set(of_all)


QUESTIONS = strategies.lists(strategies.sampled_from(VOCABULARY[:4]), min_size=7, max_size=10).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    questions=strategies.lists(QUESTIONS, min_size=2, max_size=30),
    order=strategies.randoms(use_true_random=False),
    share=strategies.floats(0, 1),
    seed=strategies.integers(0, 2**32 - 1),
)
def test_split_holds_its_promises_for_any_rows(
    questions: list[str], order: random.Random, share: float, seed: int
) -> None:
    """No row is lost, none is in two splits, none leaks; order and added rows move none. Few words make many duplicates."""
    options = OPTIONS.model_copy(update={"seed": seed, "near": NearDuplicates(threshold=0.5, min_words=2)})
    rows = [row(id, question) for id, question in enumerate(questions)]
    results = split_or_dropped(rows, options)
    assert sorted(results) == list(range(len(rows)))
    assert split_or_dropped(order.sample(rows, len(rows)), options) == results
    for id, before in split_or_dropped(rows[: max(1, int(share * len(rows)))], options).items():
        assert results[id] in (before, "dropped")
    for one, other in itertools.combinations(rows, 2):
        splits = {results[one.id], results[other.id]}
        if len(splits) == 2 and "dropped" not in splits:
            assert similarity(one.question, other.question) < 0.5


def split_or_dropped(rows: list[Conversation], options: Format) -> dict[int, str]:
    splits, dropped = splits_and_dropped(rows, options)
    return split_by_id(splits) | dict.fromkeys((row.id for rows in dropped.values() for row in rows), "dropped")


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of two texts' word bigrams."""
    first, second = ({*itertools.pairwise(text.split())} for text in (one, other))
    return len(first & second) / len(first | second)


@pytest.mark.parametrize("folds", [2, 5])
def test_every_row_is_in_one_test_fold_with_its_question(folds: int) -> None:
    rows = random_rows(300, seed=0)
    rows += [row(300 + first.id, first.question.upper() + "?", "Or not.") for first in rows[:50]]
    tests = []
    for fold in range(folds):
        options = OPTIONS.model_copy(update={"folds": folds, "fold": fold})
        splits, dropped = splits_and_dropped(rows, options)
        tests.append({row.id for row in splits["test"]})
        assert {id for id in tests[-1] if id < 50} == {id - 300 for id in tests[-1] if id >= 300}
        assert leakage_of(splits) == {"exact": 0, "near": 0}
        assert sum(map(len, (*splits.values(), *dropped.values()))) == 350
        assert splits["validation"]
    assert sorted(id for test in tests for id in test) == list(range(350))


def test_every_fold_has_its_fraction_of_validation_rows() -> None:
    validation = [
        {number for number in range(2000) if split_of(f"question {number}", options) == "validation"}
        for options in (OPTIONS.model_copy(update={"folds": 5, "fold": fold}) for fold in range(5))
    ]
    assert all(len(numbers) / 1600 == pytest.approx(0.1, abs=0.03) for numbers in validation)


def test_split_by_row_leaks_and_is_refused() -> None:
    rows = [row(number, f"Why do I sneeze on day {number % 50}?") for number in range(500)]
    naive = OPTIONS.model_copy(update={"split": "row"})
    splits, dropped = splits_and_dropped(rows, naive)
    assert (sum(map(len, splits.values())), dropped) == (500, {"train": [], "validation": []})
    leakage = leakage_of(splits)
    assert leakage["exact"] > 0.9
    message = (
        r"format.max_leakage: .*% of the test rows have an exact duplicate in the training set, "
        r".* format.max_leakage=(0\.\d+|1)$"
    )
    with pytest.raises(DataError, match=message) as error:
        require_leakage_within_limit(leakage, naive)
    allowed = float(str(error.value).rsplit("=", 1)[1])
    require_leakage_within_limit(leakage, naive.model_copy(update={"max_leakage": allowed}))
    require_leakage_within_limit({"exact": 0.0, "near": 0.0}, OPTIONS)


@pytest.mark.parametrize(("folds", "fold"), [(None, 1), (5, 5)])
def test_fold_out_of_range_is_refused(folds: int | None, fold: int) -> None:
    with pytest.raises(ValueError, match=f"fold {fold} must be less than folds"):
        Format.model_validate({**OPTIONS.model_dump(), "folds": folds, "fold": fold})


def test_leakage_is_measured() -> None:
    question = "What can I do at home for a sore throat?"
    splits = {
        "train": [row(0, question, "Tea."), row(1, "What is flu?", "It is an infection of the nose and the throat.")],
        "validation": [],
        "test": [
            row(2, question.upper() + "!!", "Rest."),
            row(3, "Pray, " + question, "Rest."),
            row(4, "Which infection is the flu?", "It is an infection of the nose and the throat!"),
            row(5, "Who treats gout?", "Tea."),
        ],
    }
    assert leakage_of(splits) == {"exact": 0.5, "near": 0.75}


def test_different_questions_without_words_are_no_leakage() -> None:
    assert (split_of("😀"), split_of("😢")) == ("validation", "train")
    splits = {"train": [row(0, "😢")], "validation": [], "test": [row(1, "😀")]}
    assert leakage_of(splits) == {"exact": 0, "near": 0}


def test_empty_splits_are_reported_with_the_counts() -> None:
    message = r"the split validation, test would be empty \(train 1, validation 0, test 0; .* rows: 1,002\)"
    with pytest.raises(DataError, match=message):
        require_nonempty_splits(
            {"train": [row(0, "q")], "validation": [], "test": []},
            {"train": [row(0, "q")] * 1000, "validation": [row(0, "q")] * 2},
        )
    require_nonempty_splits({"train": [row(0, "q")], "validation": [row(1, "q")], "test": [row(2, "q")]}, {"train": []})


def test_earlier_turns_of_training_chats_hold_no_held_out_answer() -> None:
    def chat(i: int, turns: int) -> dict[str, Any]:
        answer = " ".join(f"word{i}x{k}" for k in range(12))
        contents = [
            ("user", f"What is case {i}?"),
            ("assistant", answer),
            ("user", f"And then {i}?"),
            ("assistant", f"Rest {i}."),
        ]
        return {
            "id": 2 * i + turns,
            "messages": [{"role": role, "content": text} for role, text in contents[: 2 * turns]],
        }

    records = (chat(i, turns) for i in range(60) for turns in (1, 2))
    rows = list(conversations_of(records, task_of_mapping(["messages"])))
    splits, dropped = splits_and_dropped(rows)
    held_out = {row.answer for row in splits["test"] if len(row.answer.split()) == 12}
    assert held_out
    assert not held_out & {text for row in splits["train"] for text in row.compared_texts("answer")}
    assert dropped["train"]
