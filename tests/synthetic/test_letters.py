"""pipeline/synthetic/letters.py: dialogues with the lengths, repeats and defects of the real rows."""

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
from pipeline.synthetic.letters import (
    ADVICE_SENTENCES,
    DESCRIPTIONS,
    FACT_SENTENCES,
    Slots,
    _draw_length,
    _draw_sentences,
    _parse_sentence,
    generate_letters,
)

SHIPPED = Path(__file__).resolve().parents[2] / "data/knowledge/conditions.yaml"
FACTS = ("definition", "symptoms", "cause", "self_care", "treatment", "doctor", "urgent")
SMALL = {name: {fact: f"the {fact} told of {name}" for fact in FACTS} for name in ("gout", "hay fever")}
Dialogues = list[dict[str, str]]


@pytest.fixture(scope="module")
def many() -> Dialogues:
    return list(generate_letters(read_knowledge(SHIPPED), rows=6000, seed=0))


def test_rows_are_the_same_on_every_machine() -> None:
    rows = json.dumps(list(generate_letters(SMALL, 200, seed=0))).encode()
    assert hashlib.sha256(rows).hexdigest() == "12c65a152961a54a0812c8759ab201f33227d7d37a04d35bc88c3d954ec76110"


def test_other_seed_gives_other_rows() -> None:
    assert list(generate_letters(SMALL, 60, seed=5)) != list(generate_letters(SMALL, 60, seed=6))


@pytest.mark.parametrize("rows", [1, 2, 3, 199, 200, 1000])
def test_number_of_rows_is_exact(rows: int) -> None:
    assert len(list(generate_letters(SMALL, rows, seed=0))) == rows


def test_a_third_are_a_few_dialogues_that_occur_67_times(many: Dialogues) -> None:
    repeated = [count for count in Counter(tuple(row.values()) for row in many).values() if count > 1]
    assert repeated.count(67) + repeated.count(68) == len(repeated) == 30
    assert sum(repeated) - len(repeated) == 2000


def test_rows_are_generated_lazily() -> None:
    rows = generate_letters(SMALL, 10**6, seed=0)
    assert set(next(rows)) == {"Description", "Patient", "Doctor"}


@pytest.mark.parametrize(
    ("column", "expected"),
    [  # words at 5, 25, 50, 75 and 95% of the distinct rows among the first 1000 real ones
        pytest.param("Description", (7, 10, 12, 15, 18), id="Description"),
        pytest.param("Patient", (17, 39, 68, 116, 234), id="Patient"),
        pytest.param("Doctor", (11, 56, 97, 138, 236), id="Doctor"),
    ],
)
def test_lengths_are_distributed_like_the_real_ones(many: Dialogues, column: str, expected: tuple[int, ...]) -> None:
    distinct = {tuple(row.values()): row for row in many}.values()
    found = quantiles([len(row[column].split()) for row in distinct], n=20)
    assert [found[index] for index in (0, 4, 9, 14, 18)] == pytest.approx(expected, rel=0.2, abs=1)


def test_advertisements_and_empty_cells_have_the_real_rates(many: Dialogues) -> None:
    advertised = sum(row["Doctor"].endswith(" -->") for row in many)
    empty = sum(not row[column].strip() for row in many for column in ("Description", "Doctor"))
    assert advertised / len(many) == pytest.approx(0.483, abs=0.03)
    assert 5 < empty < 60


def test_patient_repeats_the_end_of_the_question(many: Dialogues) -> None:
    with_question = [row for row in many if row["Description"].strip()]
    assert all(row["Description"].split()[-1] in row["Patient"] for row in with_question)


def test_no_slot_is_left_unfilled(many: Dialogues) -> None:
    assert [row for row in many if any(character in text for text in row.values() for character in "{}|")] == []


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
    assert any("a {brace} and a | bar" in row["Doctor"] for row in generate_letters(knowledge, 100, seed=0))


def test_sentence_counts_the_expected_words_of_its_slots() -> None:
    assert _parse_sentence("I am {age} and have {name}.").words == pytest.approx(6.8)


def test_a_list_has_two_to_seven_items() -> None:
    rng = random.Random(0)
    lists = [Slots({}, rng)["foods"] for _ in range(200)]
    assert {len(text.replace(" and ", ", ").split(", ")) for text in lists} == {2, 3, 4, 5, 6, 7}


def test_a_slot_has_the_same_value_throughout_a_row() -> None:
    slots = Slots({"name": "gout"}, random.Random(0))
    first, second = ("{name} at {age} with {labs}".format_map(slots) for _ in range(2))
    assert first == second


def test_letter_has_at_most_one_variant_of_a_sentence() -> None:
    sentences = list(_draw_sentences(10**6, {0.5: list(FACT_SENTENCES), 1: list(ADVICE_SENTENCES)}, random.Random(0)))
    assert len(sentences) == len(WORDINGS) + len(ADVICE_SENTENCES)
    assert all(
        sum(variant.text in sentences for variant in variants) == 1 for variants in FACT_SENTENCES + ADVICE_SENTENCES
    )


def test_there_are_descriptions_of_every_length_from_six_words_on() -> None:
    assert sorted(DESCRIPTIONS) == list(range(6, 24))
    pairs = itertools.chain.from_iterable(DESCRIPTIONS.values())
    assert all(lead.endswith("?") != bool(ask) for lead, ask in pairs)


def test_drawn_lengths_have_the_quantiles() -> None:
    rng = random.Random(0)
    lengths = sorted(_draw_length((0, 5, 25, 50, 75, 95, 99, 100), rng) for _ in range(10_000))
    assert [lengths[index] for index in (500, 5000, 9500)] == pytest.approx([5, 50, 95], abs=2)
