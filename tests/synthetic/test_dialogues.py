"""pipeline/synthetic/dialogues.py: what is generated, its faults among it, and what a knowledge file must be."""

import hashlib
import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.synthetic.dialogues import (
    SPECIALISTS,
    WORDINGS,
    Knowledge,
    Wording,
    asked_facts,
    generate_dialogues,
    read_knowledge,
)

SHIPPED = Path(__file__).resolve().parents[2] / "data/knowledge/conditions.yaml"
FACTS = ("definition", "symptoms", "cause", "self_care", "treatment", "doctor", "urgent")
SMALL: Knowledge = {name: {fact: f"the {fact} told of {name}" for fact in FACTS} for name in ("gout", "hay fever")}
BLANK = ("", " ", "\u00a0")
Dialogues = list[dict[str, str]]


@pytest.fixture(scope="module")
def thousand() -> Dialogues:
    return generate_dialogues(read_knowledge(SHIPPED), rows=1000, seed=0)


def told(asked: Wording, knowledge: Knowledge) -> tuple[str, str]:
    (found,) = [(name, fact) for name, facts in knowledge.items() for fact in facts if facts[fact] in asked.answer]
    return found


def is_boilerplate(dialogue: dict[str, str]) -> bool:
    return dialogue["Doctor"].endswith(" online -->")


def test_same_seed_gives_the_same_rows() -> None:
    assert generate_dialogues(SMALL, 60, seed=5) == generate_dialogues(SMALL, 60, seed=5)


def test_other_seed_gives_other_rows() -> None:
    assert generate_dialogues(SMALL, 60, seed=5) != generate_dialogues(SMALL, 60, seed=6)


@pytest.mark.parametrize("rows", [1, 2, 3, 49, 50, 1000])
def test_as_many_rows_as_asked_for(rows: int) -> None:
    assert len(generate_dialogues(SMALL, rows, seed=0)) == rows


def test_a_thousand_rows_hold_333_duplicates_40_of_boilerplate_and_20_empty_cells(thousand: Dialogues) -> None:
    empty = [each for each in thousand if each["Description"] in BLANK or each["Doctor"] in BLANK]
    boilerplate = [each for each in thousand if is_boilerplate(each)]
    whole = Counter(tuple(each.values()) for each in thousand if each not in empty and not is_boilerplate(each))
    assert (len(empty), len(boilerplate), whole.total(), len(whole)) == (20, 40, 940, 607)


def test_duplicates_are_scattered_among_the_rows(thousand: Dialogues) -> None:
    first: dict[tuple[str, ...], int] = {}
    repeated = [
        number for number, each in enumerate(thousand) if first.setdefault(tuple(each.values()), number) < number
    ]
    assert min(repeated) < 200
    assert max(repeated) > 900


def test_every_row_has_the_columns_of_the_real_data(thousand: Dialogues) -> None:
    assert {tuple(each) for each in thousand} == {("Description", "Patient", "Doctor")}


def test_every_question_has_the_prefix_and_the_patient_repeats_it(thousand: Dialogues) -> None:
    asked = [each for each in thousand if each["Description"] not in BLANK]
    assert all(each["Description"].startswith("Q. ") for each in asked)
    assert all(each["Description"].removeprefix("Q. ") in each["Patient"] for each in asked)


@pytest.mark.parametrize("space", ["\u00a0", "  ", " \n", "\t"], ids=["no-break", "double", "line break", "tab"])
def test_some_answers_but_not_most_hold_irregular_space(thousand: Dialogues, space: str) -> None:
    assert 20 < sum(space in each["Doctor"] for each in thousand) < 300


def test_half_the_greetings_end_in_a_no_break_space(thousand: Dialogues) -> None:
    assert 400 < sum(",\u00a0" in each["Patient"] for each in thousand) < 600


@pytest.mark.parametrize("cell", BLANK, ids=["nothing", "space", "no-break space"])
@pytest.mark.parametrize("column", ["Description", "Doctor"])
def test_empty_cells_are_of_every_kind(thousand: Dialogues, column: str, cell: str) -> None:
    assert any(each[column] == cell for each in thousand)


@pytest.mark.parametrize("specialist", SPECIALISTS)
def test_boilerplate_sends_to_every_specialist(thousand: Dialogues, specialist: str) -> None:
    article = "an" if specialist == "internal medicine physician" else "a"
    ending = f"consult {article} {specialist} online -->"
    assert any(each["Doctor"].endswith(ending) for each in thousand)


def test_each_fact_is_asked_once_before_any_is_asked_again_in_other_words() -> None:
    every = {(name, fact) for name in SMALL for fact in FACTS}
    asked = list(islice(asked_facts(SMALL, random.Random(0)), 5 * len(every)))
    rounds = [asked[start : start + len(every)] for start in range(0, len(asked), len(every))]
    assert [{told(each, SMALL) for each in round_} for round_ in rounds] == [every] * 5
    assert len({each.question for each in asked}) == 5 * len(every)


def test_question_and_answer_tell_of_the_same_condition_and_fact() -> None:
    for asked in islice(asked_facts(SMALL, random.Random(0)), 100):
        name, fact = told(asked, SMALL)
        assert name in asked.question
        questions = [wording.question.format(name=name) for wording in WORDINGS[fact]]
        assert any(asked.question.startswith(question) for question in questions)


def test_once_all_wordings_are_told_an_age_sets_the_questions_apart() -> None:
    asked = list(islice(asked_facts(SMALL, random.Random(0)), 84))
    assert not any(" I am " in each.question for each in asked[:70])
    assert all(" I am " in each.question for each in asked[70:])


def test_shipped_knowledge_has_a_phrase_for_every_fact() -> None:
    knowledge = read_knowledge(SHIPPED)
    assert len(knowledge) == 136
    assert {tuple(sorted(facts)) for facts in knowledge.values()} == {tuple(sorted(FACTS))}
    assert all(isinstance(phrase, str) and phrase.strip() for facts in knowledge.values() for phrase in facts.values())


def test_shipped_phrases_end_in_no_full_stop_for_the_wordings_bring_it() -> None:
    phrases = [phrase for facts in read_knowledge(SHIPPED).values() for phrase in facts.values()]
    assert [phrase for phrase in phrases if phrase[-1] in ".!?" or "  " in phrase] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("gout: [", "not YAML", id="not YAML"),
        pytest.param(b"gout: \xff\xfe", "not YAML", id="not UTF-8"),
        pytest.param("", "expected a mapping of conditions", id="empty"),
        pytest.param("- gout", "expected a mapping of conditions", id="list"),
        pytest.param("gout: pain", "gout must have exactly the facts definition, symptoms, cause", id="no facts"),
        pytest.param("gout: {definition: pain}", "gout must have exactly the facts", id="facts lack"),
        pytest.param(
            "gout: {" + ", ".join(f"{fact}: x" for fact in FACTS) + ", more: x}",
            "gout must have exactly",
            id="fact too many",
        ),
    ],
)
def test_broken_knowledge_file_is_a_data_error(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "knowledge.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as error:
        read_knowledge(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [("gout", ""), ("gout", "[a, b]"), ("yes", "pain")],
    ids=["null phrase", "list phrase", "name true"],
)
def test_knowledge_that_is_no_text_is_a_data_error(tmp_path: Path, name: str, phrase: str) -> None:
    path = tmp_path / "knowledge.yaml"
    path.write_text(f"{name}:\n" + "".join(f"  {fact}: {phrase}\n" for fact in FACTS), encoding="utf-8")
    with pytest.raises(DataError):
        read_knowledge(path)


def test_the_rows_of_the_default_are_those_of_its_lock() -> None:
    rows = json.dumps(generate_dialogues(read_knowledge(SHIPPED), rows=1500, seed=0)).encode()
    assert hashlib.sha256(rows).hexdigest() == "528bc4c6a0b15ce1b24f29be55a960af1757f0fb4484bab24c3e7a3f3ef12a30"
