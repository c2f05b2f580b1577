"""pipeline/format/split.py: the split is stable, disjoint and free of leakage, and loses no row without need."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from support.questions import VOCABULARY, random_questions
from support.splitting import OPTIONS, assigned, leakage_of, options, row, rows_of, sentences, sides_of, split_of

from pipeline.config.params import Format, NearDuplicates
from pipeline.errors import ConfigError, DataError
from pipeline.format.conversations import Conversation
from pipeline.format.duplicates import DuplicateSearch
from pipeline.format.leakage import require_leakage_within_limit
from pipeline.format.split import Split, assign_split, require_nonempty_splits, split_key

DROP = options(near={"strategy": "drop"})
WEEKS = rows_of(
    f"What can I do at home for a sore throat that came with the cold in week {week}?" for week in range(20)
)
OTHERS = [row(100 + number, question) for number, question in enumerate(sentences(200, 9))]


def side_by_hash(question: str, options: Format = OPTIONS) -> str:
    return assign_split(split_key(row(0, question), options, {}), options)


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
    assert side_by_hash(question) == expected


def test_other_seed_gives_another_split() -> None:
    assert side_by_hash("Why do I sneeze?", options(seed=1)) == "train"


def test_splits_have_about_the_configured_fractions() -> None:
    splits = [side_by_hash(f"question {number}") for number in range(4000)]
    assert splits.count("test") / 4000 == pytest.approx(0.15, abs=0.02)
    assert splits.count("validation") / 4000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("tested", [OPTIONS, DROP, options(near={"enabled": False})], ids=["cluster", "drop", "off"])
def test_rows_with_the_same_question_stay_together(tested: Format) -> None:
    same = [row(0, "Why do I sneeze?"), row(1, "why do I SNEEZE", "Dust."), row(2, "Why... do I sneeze?!", "Pollen.")]
    sides = sides_of(split_of(same + OTHERS, tested))
    assert {sides[id] for id in range(3)} == {"validation"}


def test_near_rows_are_on_the_side_of_their_first() -> None:
    split = split_of(WEEKS + OTHERS)
    assert {side for id, side in sides_of(split).items() if id < 20} == {side_by_hash(WEEKS[0].question)} == {"test"}
    assert split.clusters[:20].tolist() == [0] * 20
    assert not split.dropped


def test_near_duplicates_of_held_out_rows_are_dropped_on_request() -> None:
    split = split_of(WEEKS + OTHERS, DROP)
    sides = sides_of(split)
    assert {id for id in range(20) if sides[id] == "test"} == {0, 11, 16}
    assert [sides[id] for id in range(20)].count("dropped") == 17
    assert [drop.split for drop in split.dropped.values()].count("validation") == 2
    assert {drop.reason for drop in split.dropped.values()} == {"near_held_out"}
    assert all(drop.near in (0, 11, 16) for drop in split.dropped.values() if drop.split == "validation")


def test_near_duplicates_are_ignored_on_request() -> None:
    split = split_of(WEEKS + OTHERS, off := options(near={"enabled": False}))
    assert {sides_of(split)[id] for id in range(20)} == {"train", "validation", "test"}
    assert not split.dropped
    leakage = leakage_of(split, off)
    assert (leakage["exact"], leakage["near"] > 0) == (0, True)
    require_leakage_within_limit(leakage, off)


@pytest.mark.parametrize(("fields", "expected"), [(["question"], "train"), (["question", "answer"], "test")])
def test_answers_link_rows_on_request(fields: list[str], expected: str) -> None:
    answer = "Drink warm tea and rest until the fever is gone."
    rows = [row(0, "When is a burn an emergency?", answer), row(1, "What is flu?", answer.upper()), *OTHERS]
    assert sides_of(split_of(rows, options(near={"fields": fields})))[1] == expected


def test_short_answers_link_no_rows() -> None:
    rows = [row(0, "When is a burn an emergency?", "No."), row(1, "What is flu?", "No."), *OTHERS]
    assert sides_of(split_of(rows, options(near={"fields": ["question", "answer"]})))[1] == "train"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("strategy", ["cluster", "drop"])
def test_split_is_disjoint_counts_every_row_and_leaks_nothing(seed: int, strategy: str) -> None:
    split = split_of(rows_of(random_questions(300, seed)), tested := options(near={"strategy": strategy}))
    assert sum(split.counts().values()) == 300 - len(split.dropped)
    assert bool(split.dropped) == (strategy == "drop")
    leakage = leakage_of(split, tested)
    assert (leakage["exact"], leakage["near"]) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_added_rows_move_only_rows_whose_cluster_they_join(seed: int) -> None:
    rows = rows_of(random_questions(400, seed))
    for size in (20, 100, 300):
        require_only_joined_clusters_moved(split_of(rows[:size]), split_of(rows))


def require_only_joined_clusters_moved(before: Split, after: Split) -> None:
    """Rows were added. The sides by the hash are compared, before `balance` gives each split about its share."""
    old = len(before.rows)
    joined = {*after.clusters[old:].tolist()}
    of_before, of_after = sides_by_hash(before), sides_by_hash(after)
    moved = [index for index in range(old) if of_before[index] != of_after[index]]
    assert {int(after.clusters[index]) for index in moved} <= joined


def sides_by_hash(split: Split) -> list[str]:
    return [split.moved.get(cluster, side) for cluster, side in zip(split.clusters.tolist(), split.sides, strict=True)]


QUESTIONS = strategies.lists(strategies.sampled_from(VOCABULARY[:4]), min_size=7, max_size=10).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    questions=strategies.lists(QUESTIONS, min_size=3, max_size=30),
    share=strategies.floats(0, 1),
    seed=strategies.integers(0, 2**32 - 1),
    strategy=strategies.sampled_from(["cluster", "drop"]),
)
def test_split_holds_its_promises_for_any_rows(questions: list[str], share: float, seed: int, strategy: str) -> None:
    """No row is lost, none leaks, and added rows move only rows whose cluster they join. Few words make many duplicates."""
    near = {"threshold": 0.5, "min_words": 2, "strategy": strategy, "max_cluster_rows": 1000}
    tested = options(near=near, seed=seed)
    rows = rows_of(questions)
    split = split_of(rows, tested)
    results = sides_of(split)
    assert sorted(results) == list(range(len(rows)))
    if strategy == "cluster" and len(set(split.clusters.tolist())) >= 3:
        assert not split.dropped
        assert set(results.values()) == {"train", "validation", "test"}
    old = rows[: max(1, int(share * len(rows)))]
    if any(DuplicateSearch(some, tested.near).shared_texts for some in (rows, old)):
        return
    for one, other in itertools.combinations(rows, 2):
        splits = {results[one.id], results[other.id]}
        if len(splits) == 2 and "dropped" not in splits:
            assert similarity(one.question, other.question) < 0.5
    require_only_joined_clusters_moved(split_of(old, tested), split)


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of two texts' word bigrams."""
    first, second = ({*itertools.pairwise(text.split())} for text in (one, other))
    return len(first & second) / len(first | second)


@pytest.mark.parametrize("folds", [2, 5])
def test_every_row_is_in_one_test_fold_with_its_question(folds: int) -> None:
    rows = rows_of(random_questions(300, seed=0))
    rows += [row(300 + first.id, first.question.upper() + "?", "Or not.") for first in rows[:50]]
    tests = []
    for fold in range(folds):
        split = split_of(rows, tested := options(folds=folds, fold=fold))
        tests.append({row.id for row in split.rows_of("test")})
        assert {id for id in tests[-1] if id < 50} == {id - 300 for id in tests[-1] if id >= 300}
        assert (leakage_of(split, tested)["exact"], leakage_of(split, tested)["near"]) == (0, 0)
        assert sum(split.counts().values()) == 350
        assert split.counts()["validation"]
    assert sorted(id for test in tests for id in test) == list(range(350))


def test_every_fold_has_its_fraction_of_validation_rows() -> None:
    validation = [
        {number for number in range(2000) if side_by_hash(f"question {number}", tested) == "validation"}
        for tested in (options(folds=5, fold=fold) for fold in range(5))
    ]
    assert all(len(numbers) / 1600 == pytest.approx(0.1, abs=0.03) for numbers in validation)


def test_split_by_row_leaks_and_is_refused() -> None:
    rows = rows_of(f"Why do I sneeze on day {number % 50}?" for number in range(500))
    split = split_of(rows, naive := options(split="row"))
    assert (sum(split.counts().values()), split.dropped) == (500, {})
    leakage = leakage_of(split, naive)
    assert leakage["exact"] > 0.9
    message = (
        r"format.max_leakage: .*% of the test rows have an exact duplicate in the training set, "
        r".* format.max_leakage=(0\.\d+|1)$"
    )
    with pytest.raises(DataError, match=message) as error:
        require_leakage_within_limit(leakage, naive)
    allowed = float(str(error.value).rsplit("=", 1)[1])
    require_leakage_within_limit(leakage, naive.model_copy(update={"max_leakage": allowed}))


@pytest.mark.parametrize(("folds", "fold"), [(None, 1), (5, 5)])
def test_fold_out_of_range_is_refused(folds: int | None, fold: int) -> None:
    with pytest.raises(ValueError, match=f"fold {fold} must be less than folds"):
        Format.model_validate({**OPTIONS.model_dump(), "folds": folds, "fold": fold})


@pytest.mark.parametrize("fields", [["answer"], ["question", "question"], [], ["text"]])
def test_fields_without_the_question_are_refused(fields: list[str]) -> None:
    with pytest.raises(ValueError, match="fields"):
        NearDuplicates.model_validate({**OPTIONS.near.model_dump(), "fields": fields})


def canned(kinds: int, rows: int) -> list[Conversation]:
    """A help desk's tickets: few questions, each in variants."""
    texts = sentences(kinds, 14, seed=1)
    generator = random.Random(0)
    return rows_of(f"{texts[generator.randrange(kinds)]} case {generator.randint(1, 9999)}" for _ in range(rows))


@pytest.mark.parametrize(("kinds", "rows"), [(12, 254), (32, 260), (32, 4000), (8, 120), (300, 20_000)])
def test_canned_tickets_lose_no_row_and_fill_the_splits(kinds: int, rows: int) -> None:
    split = split_of(canned(kinds, rows))
    counts = split.counts()
    assert not split.dropped
    assert counts["train"] >= 0.68 * rows
    assert counts["test"] >= 0.1 * rows - 1
    assert counts["validation"] >= 0.05 * rows
    assert (leakage_of(split)["exact"], leakage_of(split)["near"]) == (0, 0)


def test_one_question_in_variants_is_in_training_only() -> None:
    variants = [f"The bar of my import has been at 99 percent for {hours} hours, what now?" for hours in range(180)]
    split = split_of(rows_of(variants + sentences(120, 12)))
    assert {split.sides[index] for index in range(180)} == {"train"}
    assert split.counts()["test"] >= 30


@pytest.mark.parametrize("count", [3, 4, 6, 10, 20])
@pytest.mark.parametrize("seed", range(8))
def test_few_rows_leave_no_split_empty(count: int, seed: int) -> None:
    split = split_of(rows_of(sentences(count, 10, seed)))
    assert min(split.counts().values()) >= 1
    assert split.counts()["train"] >= count / 2 or count == 3
    require_nonempty_splits(split)


def test_empty_splits_are_reported_with_the_counts() -> None:
    split = split_of(rows_of(["Why?"] * 9))
    message = (
        r"would be empty \(train .*dropped: 0\). Rows to divide: 9, in 1 cluster of equal or near questions, which "
        r"stay together; the largest has 9. Add rows: at least 3 clusters are needed$"
    )
    with pytest.raises(DataError, match=message):
        require_nonempty_splits(split)
    require_nonempty_splits(assigned(train=[row(0, "q")], validation=[row(1, "q")], test=[row(2, "q")]))


# A test set of the user's own


def own_test(rows: list[Conversation], tested: Format = OPTIONS, **more: dict[int, str]) -> dict[int, str]:
    split = split_of(rows, tested, first_test_row=1000, **more)
    if tested.split == "question":
        assert (leakage_of(split, tested)["exact"], leakage_of(split, tested)["near"]) == (0, 0)
    return sides_of(split)


@pytest.mark.parametrize("strategy", ["cluster", "drop"])
def test_own_test_rows_are_the_test_set(strategy: str) -> None:
    test = [row(1000, WEEKS[3].question), row(1001, WEEKS[3].question), row(1002, "Flu?")]
    sides = own_test([*WEEKS, *OTHERS, row(500, "flu"), *test], options(near={"strategy": strategy}))
    assert {id for id, side in sides.items() if side == "test"} == {1000, 1001, 1002}
    assert {sides[id] for id in range(20)} == {"dropped"}
    assert sides[500] == "dropped"
    others = [sides[row.id] for row in OTHERS]
    assert others.count("train") + others.count("validation") == len(OTHERS)
    assert others.count("validation") == pytest.approx(20, abs=7)


def test_dropped_rows_name_the_test_row_that_they_are_near_to() -> None:
    rows = [*WEEKS[:1], *OTHERS, row(1000, WEEKS[1].question)]
    split = split_of(rows, first_test_row=1000)
    ((index, drop),) = split.dropped.items()
    assert (index, drop.reason, drop.near) == (0, "near_test", len(rows) - 1)


def test_rows_of_a_group_in_the_own_test_set_are_dropped() -> None:
    groups = {row.id: f"p{row.id % 40}" for row in OTHERS} | {1000: "p7"}
    rows = [*OTHERS, row(1000, "Flu?")]
    split = split_of(rows, first_test_row=1000, groups=groups)
    assert {drop.reason for drop in split.dropped.values()} == {"group_in_test"}
    assert [rows[index].id % 40 for index in split.dropped] == [7] * 5


def test_folds_with_an_own_test_set_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"format\.folds=null"):
        own_test([*OTHERS, row(1000, "Flu?")], options(folds=3))


# Groups


def test_rows_of_a_group_stay_together() -> None:
    groups = {row.id: f"p{row.id % 40}" for row in OTHERS}
    split = split_of(OTHERS, groups=groups)
    sides = sides_of(split)
    for number in range(40):
        assert len({side for id, side in sides.items() if id % 40 == number}) == 1
    assert len(np.unique(split.clusters)) == 40
    assert min(split.counts().values()) >= 13


def test_groups_and_near_rows_are_united() -> None:
    groups = {row.id: f"p{row.id}" for row in WEEKS} | {row.id: f"p{row.id % 40}" for row in OTHERS}
    sides = sides_of(split_of(WEEKS + OTHERS, groups=groups))
    together = {id for id in sides if id < 20 or id % 40 < 20}
    assert len({sides[id] for id in together}) == 1


def test_two_groups_cannot_be_split() -> None:
    split = split_of(OTHERS, groups={row.id: str(row.id % 2) for row in OTHERS})
    with pytest.raises(DataError, match="patient links rows: give a column with more values"):
        require_nonempty_splits(split, "patient")
