"""pipeline/format/stage.py, tasks.py, templates.py and near.py: rendering, the split, and what must not leak."""

import itertools
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings, strategies

from pipeline.config.params import Format, Near, Template
from pipeline.config.placeholders import template_errors
from pipeline.errors import DataError
from pipeline.format.bigrams import bigrams, word_hashes
from pipeline.format.near_duplicates import find_near_duplicates
from pipeline.format.stage import (
    Conversation,
    TwinSearch,
    assign_split,
    conversations_of,
    measure_leakage,
    render_row,
    require_no_more_leakage,
    require_rows,
    split_key,
    split_rows,
)
from pipeline.records.tasks import Turn, task_of
from pipeline.records.text import comparison_key, words

TEMPLATES = {
    path.stem: Template(**yaml.safe_load(path.read_text(encoding="utf-8")))
    for path in (Path(__file__).resolve().parents[2] / "conf/format/template").glob("*.yaml")
}
NEAR = Near(threshold=0.7, min_words=8)
OPTIONS = Format(
    seed=0,
    split="question",
    test_fraction=0.15,
    validation_fraction=0.1,
    folds=None,
    fold=0,
    max_leakage=0.0,
    near=NEAR,
    template=TEMPLATES["plain"],
)
VOCABULARY = [first + second for first in "bdfgklmnprst" for second in ("a", "el", "in", "or", "um", "ist")]


def row(number: int, question: str, answer: str = "Rest.") -> Conversation:
    return Conversation(number, [Turn("user", question)], answer)


def random_rows(count: int, seed: int) -> list[Conversation]:
    """Questions of 6 to 12 words, each second one with a word changed: so some are near to others."""
    chance = random.Random(seed)
    questions: list[list[str]] = []
    for _ in range(count):
        if questions and chance.random() < 0.5:
            question = list(chance.choice(questions))
            question[chance.randrange(len(question))] = chance.choice(VOCABULARY)
        else:
            question = chance.choices(VOCABULARY, k=chance.randint(6, 12))
        questions.append(question)
    return [row(number, " ".join(question)) for number, question in enumerate(questions)]


def placed(question: str, options: Format = OPTIONS) -> str:
    return assign_split(split_key(row(0, question), options), options)


def dealt(
    rows: list[Conversation], options: Format = OPTIONS
) -> tuple[dict[str, list[Conversation]], dict[str, list[Conversation]]]:
    return split_rows(rows, options, TwinSearch(rows, NEAR))


def leaked(splits: dict[str, list[Conversation]]) -> dict[str, float]:
    return measure_leakage(splits, TwinSearch([row for rows in splits.values() for row in rows], NEAR))


def place_of(splits: dict[str, list[Conversation]]) -> dict[int, str]:
    return {each.id: name for name, rows in splits.items() for each in rows}


TURNS = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Flu?"), ("assistant", "Rest.")]
CHAT = [{"role": role, "content": content} for role, content in TURNS]
CHAT_PROMPT = "Be brief.\n\n### Question:\nHi\n### Answer:\nHello\n### Question:\nFlu?\n### Answer:"
ALPACA = {"instruction": "Translate.", "input": "Grippe", "output": "flu"}
ASKED = "### Question:\nIs it {flu}?\n### Answer:"


@pytest.mark.parametrize(
    ("template", "record", "prompt", "completion"),
    [
        ("tutorial", {"question": "Is it {flu}?", "answer": "No: {0}."}, ASKED, "\nNo: {0}."),
        ("tutorial", {"instruction": "Is it {flu}?", "response": "No."}, ASKED, "\nNo."),
        ("tutorial", {"prompt": "Is it {flu}?", "completion": "No."}, ASKED, "\nNo."),
        ("tutorial", {"input": "Is it {flu}?", "output": "No."}, ASKED, "\nNo."),
        ("tutorial", {"instruction": "Is it {flu}?", "input": "", "output": "No."}, ASKED, "\nNo."),
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
def test_record_is_rendered_as(template: str, record: dict[str, Any], prompt: str, completion: str) -> None:
    (found,) = conversations_of([{"id": 7, **record}])
    assert render_row(found, TEMPLATES[template]) == {"id": 7, "prompt": prompt, "completion": completion}


def test_what_the_split_compares_is_users_turns_and_last_answer_or_all_of_a_plain_text() -> None:
    (chat,) = conversations_of([{"id": 0, "messages": CHAT}])
    (text,) = conversations_of([{"id": 0, "text": "All of it."}])
    assert (chat.compared("question"), chat.compared("answer")) == (
        ["Hi\nFlu?", "Be brief.", "Hi", "Hello"],
        ["Rest.", "Be brief.", "Hi", "Hello"],
    )
    assert (text.compared("question"), text.compared("answer")) == (["All of it."], [""])


def test_task_is_the_first_whose_columns_are_there() -> None:
    assert task_of(["instruction", "input", "output"]).name == "alpaca"
    assert task_of(["input", "output"]).name == "input/output"
    assert task_of(["id", "text", "messages"]).name == "chat"
    with pytest.raises(DataError, match=r"the columns Description, Doctor\.\nKnown tasks: messages; instruction \+ "):
        task_of(["Description", "Doctor"])


@pytest.mark.parametrize(
    ("prompt", "completion", "faults"),
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
def test_template_faults(prompt: str, completion: str, faults: list[str]) -> None:
    found = template_errors(prompt, completion)
    assert [text[: len(start)] for text, start in zip(found, faults, strict=True)] == faults


@pytest.mark.parametrize("prompt", ["{question:d}", "{question!x}", "{question:{answer}}"])
def test_placeholder_that_format_would_stumble_over_is_a_fault(prompt: str) -> None:
    assert len(template_errors(prompt, "{answer}")) == 1


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
def test_place_of_a_question_is_fixed_for_good(question: str, expected: str) -> None:
    assert placed(question) == expected


def test_other_seed_deals_anew() -> None:
    assert placed("Why do I sneeze?", OPTIONS.model_copy(update={"seed": 1})) == "train"


def test_fractions_are_met_about() -> None:
    places = [placed(f"question {number}") for number in range(4000)]
    assert places.count("test") / 4000 == pytest.approx(0.15, abs=0.02)
    assert places.count("validation") / 4000 == pytest.approx(0.1, abs=0.02)


def test_rows_that_ask_the_same_stay_together() -> None:
    rows = [row(0, "Why do I sneeze?"), row(1, "why do I SNEEZE", "Dust."), row(2, "Why... do I sneeze?!", "Pollen.")]
    assert dealt(rows) == ({"train": [], "validation": rows, "test": []}, {"train": [], "validation": []})


def test_rows_near_to_held_out_ones_are_dropped() -> None:
    question = "What can I do at home for a sore throat that came with the cold in week {}?"
    rows = [row(week, question.format(week)) for week in range(20)]
    splits, dropped = dealt(rows)
    assert place_of(splits) == {0: "test", 11: "test", 16: "test"}
    assert {name: len(found) for name, found in dropped.items()} == {"train": 15, "validation": 2}
    in_validation, in_train = rows[7], rows[1]
    assert dealt([in_validation, in_train]) == (
        {"train": [], "validation": [in_validation], "test": []},
        {"train": [in_train], "validation": []},
    )


def test_row_with_the_answer_of_a_held_out_row_is_dropped() -> None:
    answer = "Drink warm tea and rest until the fever is gone."
    held_out, twin = row(0, "When is a burn an emergency?", answer), row(1, "What is flu?", answer.upper())
    assert dealt([held_out, twin]) == (
        {"train": [], "validation": [], "test": [held_out]},
        {"train": [twin], "validation": []},
    )


@pytest.mark.parametrize("seed", range(5))
def test_split_is_disjoint_loses_no_row_uncounted_and_leaks_nothing(seed: int) -> None:
    rows = random_rows(300, seed)
    splits, dropped = dealt(rows)
    assert (
        len(place_of(splits)) == sum(len(found) for found in splits.values()) == 300 - sum(map(len, dropped.values()))
    )
    assert dropped["train"]
    assert leaked(splits) == {"exact": 0, "near": 0}


@pytest.mark.parametrize("seed", range(5))
def test_added_rows_move_no_old_row_and_order_moves_none(seed: int) -> None:
    rows, chance = random_rows(200, seed), random.Random(seed)
    all_places = place_of(dealt(rows)[0])
    assert place_of(dealt(chance.sample(rows, 200))[0]) == all_places
    for size in (20, 80, 180):
        splits, dropped = dealt(chance.sample(rows, size))
        some = place_of(splits)
        assert {number for number in some if all_places.get(number, some[number]) != some[number]} == set()
        assert not {each.id for found in dropped.values() for each in found} & set(all_places)


QUESTIONS = strategies.lists(strategies.sampled_from(VOCABULARY[:4]), min_size=7, max_size=10).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    questions=strategies.lists(QUESTIONS, min_size=2, max_size=30),
    order=strategies.randoms(use_true_random=False),
    share=strategies.floats(0, 1),
    seed=strategies.integers(0, 2**32 - 1),
)
def test_whatever_the_rows_the_split_keeps_its_word(
    questions: list[str], order: random.Random, share: float, seed: int
) -> None:
    """Few words make many twins. No row is lost, none is in two, none leaks; order and added rows move none."""
    options = OPTIONS.model_copy(update={"seed": seed, "near": Near(threshold=0.5, min_words=2)})
    rows = [row(number, question) for number, question in enumerate(questions)]
    fates = fates_of(rows, options)
    assert sorted(fates) == list(range(len(rows)))
    assert fates_of(order.sample(rows, len(rows)), options) == fates
    for number, before in fates_of(rows[: max(1, int(share * len(rows)))], options).items():
        assert fates[number] in (before, "dropped")
    for one, other in itertools.combinations(rows, 2):
        places = {fates[one.id], fates[other.id]}
        if len(places) == 2 and "dropped" not in places:
            assert similarity(one.question, other.question) < 0.5


def fates_of(rows: list[Conversation], options: Format) -> dict[int, str]:
    splits, dropped = split_rows(rows, options, TwinSearch(rows, options.near))
    return place_of(splits) | dict.fromkeys((each.id for found in dropped.values() for each in found), "dropped")


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of two texts' word bigrams."""
    first, second = ({*itertools.pairwise(text.split())} for text in (one, other))
    return len(first & second) / len(first | second)


@pytest.mark.parametrize("folds", [2, 5])
def test_folds_hold_every_row_once_and_keep_questions_together(folds: int) -> None:
    rows = random_rows(300, seed=0)
    rows += [row(300 + each.id, each.question.upper() + "?", "Or not.") for each in rows[:50]]
    tests = []
    for fold in range(folds):
        options = OPTIONS.model_copy(update={"folds": folds, "fold": fold})
        splits, dropped = dealt(rows, options)
        tests.append({each.id for each in splits["test"]})
        assert {number for number in tests[-1] if number < 50} == {
            number - 300 for number in tests[-1] if number >= 300
        }
        assert leaked(splits) == {"exact": 0, "near": 0}
        assert sum(map(len, (*splits.values(), *dropped.values()))) == 350
        assert splits["validation"]
    assert sorted(number for test in tests for number in test) == list(range(350))


def test_validation_rows_are_other_ones_than_the_next_folds_test_rows() -> None:
    chosen = [
        {number for number in range(2000) if placed(f"question {number}", options) == "validation"}
        for options in (OPTIONS.model_copy(update={"folds": 5, "fold": fold}) for fold in range(5))
    ]
    assert all(len(found) / 1600 == pytest.approx(0.1, abs=0.03) for found in chosen)


def test_a_split_by_row_parts_rows_that_ask_the_same_and_the_gate_says_so() -> None:
    rows = [row(number, f"Why do I sneeze on day {number % 50}?") for number in range(500)]
    naive = OPTIONS.model_copy(update={"split": "row"})
    splits, dropped = dealt(rows, naive)
    assert (sum(map(len, splits.values())), dropped) == (500, {"train": [], "validation": []})
    twins = leaked(splits)
    assert twins["exact"] > 0.9
    message = r"format.max_leakage: .*% of the test rows have an exact twin in train, .* format.max_leakage=(0\.\d+|1)$"
    with pytest.raises(DataError, match=message) as error:
        require_no_more_leakage(twins, naive)
    allowed = float(str(error.value).rsplit("=", 1)[1])
    require_no_more_leakage(twins, naive.model_copy(update={"max_leakage": allowed}))
    require_no_more_leakage({"exact": 0.0, "near": 0.0}, OPTIONS)


@pytest.mark.parametrize(("folds", "fold"), [(None, 1), (5, 5)])
def test_a_fold_that_is_none_is_refused(folds: int | None, fold: int) -> None:
    with pytest.raises(ValueError, match=f"fold {fold} must be less than folds"):
        Format.model_validate({**OPTIONS.model_dump(), "folds": folds, "fold": fold})


def test_leakage_is_measured() -> None:
    asked = "What can I do at home for a sore throat?"
    splits = {
        "train": [row(0, asked, "Tea."), row(1, "What is flu?", "It is an infection of the nose and the throat.")],
        "validation": [],
        "test": [
            row(2, asked.upper() + "!!", "Rest."),
            row(3, "Pray, " + asked, "Rest."),
            row(4, "Which infection is the flu?", "It is an infection of the nose and the throat!"),
            row(5, "Who treats gout?", "Tea."),
        ],
    }
    assert leaked(splits) == {"exact": 0.5, "near": 0.75}


def test_different_questions_without_words_are_no_leak() -> None:
    assert (placed("😀"), placed("😢")) == ("validation", "train")
    splits = {"train": [row(0, "😢")], "validation": [], "test": [row(1, "😀")]}
    assert leaked(splits) == {"exact": 0, "near": 0}


def test_empty_splits_are_named_with_the_counts() -> None:
    message = r"the split validation, test would be empty \(train 1, validation 0, test 0; .* rows: 1,002\)"
    with pytest.raises(DataError, match=message):
        require_rows(
            {"train": [row(0, "q")], "validation": [], "test": []},
            {"train": [row(0, "q")] * 1000, "validation": [row(0, "q")] * 2},
        )
    require_rows({"train": [row(0, "q")], "validation": [row(1, "q")], "test": [row(2, "q")]}, {"train": []})


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9])
def test_similarity_equal_to_the_threshold_is_near(threshold: float) -> None:
    """The first n + 1 of eleven different words have n of their 10 bigrams: similarity n / 10."""
    at = round(10 * threshold) + 1
    texts = [" ".join("abcdefghijk"[:count]) for count in (at - 1, at, at + 1)]
    assert find_near_duplicates(texts, ["a b c d e f g h i j k"], threshold, min_words=2) == [False, True, True]
    assert find_near_duplicates(["a b c d e f g h i j k"], texts[:1], threshold, min_words=2) == [False]


def test_short_texts_are_never_near() -> None:
    references = ["A b, c", "a b c d!", "", "a"]
    assert find_near_duplicates(["a b c", "a b c d", "", "a"], references, 0.5, min_words=4) == [
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("threshold", ["0.3", "0.5", "0.7", "0.9"])
def test_near_any_finds_just_what_comparing_all_pairs_finds(threshold: str) -> None:
    texts, references = ([each.question for each in random_rows(300, seed)] for seed in (1, 2))
    references += [text.upper() + " bum" for text in texts[::7]]

    def pairs(text: str) -> set[str]:
        words = text.lower().split()
        return {f"{words[at]} {words[at + 1]}" for at in range(len(words) - 1)}

    held = [pairs(text) for text in references]
    nearest = [max(Fraction(len(found & each), len(found | each)) for each in held) for found in map(pairs, texts)]
    expected = [similarity >= Fraction(threshold) for similarity in nearest]
    assert 0 < sum(expected) < 300
    assert find_near_duplicates(texts, references, float(threshold), min_words=2) == expected


def test_an_earlier_turn_of_a_training_chat_is_no_held_out_answer() -> None:
    def chat(i: int, turns: int) -> dict[str, Any]:
        answer = " ".join(f"word{i}x{k}" for k in range(12))
        said = [
            ("user", f"What is case {i}?"),
            ("assistant", answer),
            ("user", f"And then {i}?"),
            ("assistant", f"Rest {i}."),
        ]
        return {"id": 2 * i + turns, "messages": [{"role": role, "content": text} for role, text in said[: 2 * turns]]}

    rows = list(conversations_of(chat(i, turns) for i in range(60) for turns in (1, 2)))
    splits, dropped = dealt(rows)
    held = {row.answer for row in splits["test"] if len(row.answer.split()) == 12}
    assert held
    assert not held & {text for row in splits["train"] for text in row.compared("answer")}
    assert dropped["train"]


@settings(max_examples=200, deadline=None)
@given(
    strategies.lists(
        strategies.text(strategies.sampled_from("aZ09_ é'ß\u200b\u0301中.\n\ud800"), max_size=12), max_size=8
    )
)
def test_word_hashes_are_those_of_the_words(texts: list[str]) -> None:
    hashes, counts = word_hashes(texts)
    assert counts.tolist() == [len(words(text)) for text in texts]
    of_word = dict(zip((word for text in texts for word in words(text)), hashes.tolist(), strict=True))
    assert [of_word[word] for text in texts for word in words(text)] == hashes.tolist()
    assert len({*of_word.values()}) == len(of_word)
    _, same = bigrams(texts, min_words=2)
    for one, other in itertools.combinations(range(len(texts)), 2):
        assert (same[one] == same[other]) == (comparison_key(texts[one]) == comparison_key(texts[other]))
