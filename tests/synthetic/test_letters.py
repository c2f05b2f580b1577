"""pipeline/synthetic/letters.py: dialogues of the real data's lengths, repeats and faults."""

import hashlib
import itertools
import json
import random
from collections import Counter
from pathlib import Path
from statistics import quantiles

import pytest

from pipeline.synthetic import phrases
from pipeline.synthetic.dialogues import WORDINGS, read_knowledge
from pipeline.synthetic.letters import ADVICE, CASES, TOLD, Slots, _length, _sentence, _sentences, generate_letters

SHIPPED = Path(__file__).resolve().parents[2] / "data/knowledge/conditions.yaml"
FACTS = ("definition", "symptoms", "cause", "self_care", "treatment", "doctor", "urgent")
SMALL = {name: {fact: f"the {fact} told of {name}" for fact in FACTS} for name in ("gout", "hay fever")}
Dialogues = list[dict[str, str]]


@pytest.fixture(scope="module")
def many() -> Dialogues:
    return list(generate_letters(read_knowledge(SHIPPED), rows=6000, seed=0))


def test_the_rows_are_the_same_on_every_machine() -> None:
    rows = json.dumps(list(generate_letters(SMALL, 200, seed=0))).encode()
    assert hashlib.sha256(rows).hexdigest() == "12c65a152961a54a0812c8759ab201f33227d7d37a04d35bc88c3d954ec76110"


def test_other_seed_gives_other_rows() -> None:
    assert list(generate_letters(SMALL, 60, seed=5)) != list(generate_letters(SMALL, 60, seed=6))


@pytest.mark.parametrize("rows", [1, 2, 3, 199, 200, 1000])
def test_as_many_rows_as_asked_for(rows: int) -> None:
    assert len(list(generate_letters(SMALL, rows, seed=0))) == rows


def test_a_third_are_repeats_of_a_few_dialogues_that_come_67_times(many: Dialogues) -> None:
    often = [count for count in Counter(tuple(each.values()) for each in many).values() if count > 1]
    assert often.count(67) + often.count(68) == len(often) == 30
    assert sum(often) - len(often) == 2000


def test_rows_come_one_by_one() -> None:
    endless = generate_letters(SMALL, 10**6, seed=0)
    assert set(next(endless)) == {"Description", "Patient", "Doctor"}


@pytest.mark.parametrize(
    ("column", "expected"),
    [  # words at 5, 25, 50, 75 and 95% of the first 1000 real rows, each once
        pytest.param("Description", (7, 10, 12, 15, 18), id="Description"),
        pytest.param("Patient", (17, 39, 68, 116, 234), id="Patient"),
        pytest.param("Doctor", (11, 56, 97, 138, 236), id="Doctor"),
    ],
)
def test_lengths_spread_as_the_real_ones(many: Dialogues, column: str, expected: tuple[int, ...]) -> None:
    once = {tuple(each.values()): each for each in many}.values()
    found = quantiles([len(each[column].split()) for each in once], n=20)
    assert [found[at] for at in (0, 4, 9, 14, 18)] == pytest.approx(expected, rel=0.2, abs=1)


def test_endings_are_advertised_and_cells_empty_at_the_real_rates(many: Dialogues) -> None:
    advertised = sum(each["Doctor"].endswith(" -->") for each in many)
    empty = sum(not each[column].strip() for each in many for column in ("Description", "Doctor"))
    assert advertised / len(many) == pytest.approx(0.483, abs=0.03)
    assert 5 < empty < 60


def test_the_patient_repeats_the_question_and_the_answer_is_about_the_same_condition(many: Dialogues) -> None:
    asked = [each for each in many if each["Description"].strip()]
    assert sum(each["Description"].split()[-1] in each["Patient"] for each in asked) == len(asked)


def test_no_slot_is_left_unfilled(many: Dialogues) -> None:
    assert [each for each in many if any(sign in text for text in each.values() for sign in "{}|")] == []


def test_every_slot_of_every_sentence_has_options() -> None:
    known = {*phrases.SLOTS, *phrases.LISTS, *FACTS, "name", "other"}
    blocks = (
        phrases.LEADS,
        phrases.ASKS,
        phrases.STORY,
        phrases.OPENINGS,
        phrases.ENUMERATED,
        phrases.ADVICE,
        phrases.CLOSINGS,
    )
    for block in (*blocks, phrases.ADVERTISEMENTS, phrases.BOILERPLATE):
        block.format_map(dict.fromkeys(known, ""))


def test_braces_in_a_knowledge_file_are_text() -> None:
    knowledge = {"gout": dict.fromkeys(FACTS, "a {brace} and a | bar")}
    assert any("a {brace} and a | bar" in each["Doctor"] for each in generate_letters(knowledge, 100, seed=0))


def test_a_sentence_counts_the_words_that_its_slots_will_have() -> None:
    assert _sentence("I am {age} and have {name}.").words == pytest.approx(6.8)


def test_a_list_has_two_to_seven_items() -> None:
    chance = random.Random(0)
    lists = [Slots({}, chance)["foods"] for _ in range(200)]
    assert {len(each.replace(" and ", ", ").split(", ")) for each in lists} == {2, 3, 4, 5, 6, 7}


def test_a_slot_has_the_same_value_throughout_a_row() -> None:
    slots = Slots({"name": "gout"}, random.Random(0))
    first, second = ("{name} at {age} with {labs}".format_map(slots) for _ in range(2))
    assert first == second


def test_a_letter_has_one_variant_of_a_sentence_at_most() -> None:
    all_of_them = list(_sentences(10**6, {0.5: list(TOLD), 1: list(ADVICE)}, random.Random(0)))
    assert len(all_of_them) == len(WORDINGS) + len(ADVICE)
    assert all(sum(each.text in all_of_them for each in variants) == 1 for variants in TOLD + ADVICE)


def test_descriptions_are_found_for_every_length_from_six_words_on() -> None:
    assert sorted(CASES) == list(range(6, 24))
    texts = itertools.chain.from_iterable(CASES.values())
    assert all(lead.endswith("?") != bool(ask) for lead, ask in texts)


def test_lengths_are_drawn_between_the_quantiles() -> None:
    chance = random.Random(0)
    drawn = sorted(_length((0, 5, 25, 50, 75, 95, 99, 100), chance) for _ in range(10_000))
    assert [drawn[at] for at in (500, 5000, 9500)] == pytest.approx([5, 50, 95], abs=2)
