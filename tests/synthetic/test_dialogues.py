"""pipeline/synthetic/dialogues.py: generated rows with their defects, and errors in a knowledge file."""

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
    generate_dialogues,
    question_answer_pairs,
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


def condition_and_fact(pair: Wording, knowledge: Knowledge) -> tuple[str, str]:
    """Those that the answer contains."""
    (found,) = [(name, fact) for name, facts in knowledge.items() for fact in facts if facts[fact] in pair.answer]
    return found


def is_boilerplate(dialogue: dict[str, str]) -> bool:
    return dialogue["Doctor"].endswith(" online -->")


def test_same_seed_gives_the_same_rows() -> None:
    assert generate_dialogues(SMALL, 60, seed=5) == generate_dialogues(SMALL, 60, seed=5)


def test_other_seed_gives_other_rows() -> None:
    assert generate_dialogues(SMALL, 60, seed=5) != generate_dialogues(SMALL, 60, seed=6)


@pytest.mark.parametrize("rows", [1, 2, 3, 49, 50, 1000])
def test_number_of_rows_is_exact(rows: int) -> None:
    assert len(generate_dialogues(SMALL, rows, seed=0)) == rows


def test_thousand_rows_hold_333_duplicates_40_boilerplate_answers_20_empty_cells(thousand: Dialogues) -> None:
    empty = [row for row in thousand if row["Description"] in BLANK or row["Doctor"] in BLANK]
    boilerplate = [row for row in thousand if is_boilerplate(row)]
    complete = Counter(tuple(row.values()) for row in thousand if row not in empty and not is_boilerplate(row))
    assert (len(empty), len(boilerplate), complete.total(), len(complete)) == (20, 40, 940, 607)


def test_duplicates_are_scattered_among_the_rows(thousand: Dialogues) -> None:
    first: dict[tuple[str, ...], int] = {}
    repeated = [number for number, row in enumerate(thousand) if first.setdefault(tuple(row.values()), number) < number]
    assert min(repeated) < 200
    assert max(repeated) > 900


def test_every_row_has_the_columns_of_the_real_rows(thousand: Dialogues) -> None:
    assert {tuple(row) for row in thousand} == {("Description", "Patient", "Doctor")}


def test_every_question_has_the_prefix_and_the_patient_repeats_it(thousand: Dialogues) -> None:
    with_question = [row for row in thousand if row["Description"] not in BLANK]
    assert all(row["Description"].startswith("Q. ") for row in with_question)
    assert all(row["Description"].removeprefix("Q. ") in row["Patient"] for row in with_question)


@pytest.mark.parametrize("space", ["\u00a0", "  ", " \n", "\t"], ids=["no-break", "double", "line break", "tab"])
def test_some_answers_contain_irregular_spaces(thousand: Dialogues, space: str) -> None:
    assert 20 < sum(space in row["Doctor"] for row in thousand) < 300


def test_half_the_greetings_end_in_a_no_break_space(thousand: Dialogues) -> None:
    assert 400 < sum(",\u00a0" in row["Patient"] for row in thousand) < 600


@pytest.mark.parametrize("cell", BLANK, ids=["nothing", "space", "no-break space"])
@pytest.mark.parametrize("column", ["Description", "Doctor"])
def test_there_are_empty_cells_of_every_kind(thousand: Dialogues, column: str, cell: str) -> None:
    assert any(row[column] == cell for row in thousand)


@pytest.mark.parametrize("specialist", SPECIALISTS)
def test_boilerplate_mentions_every_specialist(thousand: Dialogues, specialist: str) -> None:
    article = "an" if specialist == "internal medicine physician" else "a"
    ending = f"consult {article} {specialist} online -->"
    assert any(row["Doctor"].endswith(ending) for row in thousand)


def test_every_fact_is_asked_once_before_any_in_another_wording() -> None:
    every = {(name, fact) for name in SMALL for fact in FACTS}
    pairs = list(islice(question_answer_pairs(SMALL, random.Random(0)), 5 * len(every)))
    rounds = [pairs[start : start + len(every)] for start in range(0, len(pairs), len(every))]
    assert [{condition_and_fact(pair, SMALL) for pair in round_} for round_ in rounds] == [every] * 5
    assert len({pair.question for pair in pairs}) == 5 * len(every)


def test_question_and_answer_are_about_the_same_condition_and_fact() -> None:
    for pair in islice(question_answer_pairs(SMALL, random.Random(0)), 100):
        name, fact = condition_and_fact(pair, SMALL)
        assert name in pair.question
        questions = [wording.question.format(name=name) for wording in WORDINGS[fact]]
        assert any(pair.question.startswith(question) for question in questions)


def test_once_all_wordings_are_used_an_age_makes_questions_distinct() -> None:
    pairs = list(islice(question_answer_pairs(SMALL, random.Random(0)), 84))
    assert not any(" I am " in pair.question for pair in pairs[:70])
    assert all(" I am " in pair.question for pair in pairs[70:])


def test_shipped_knowledge_has_a_phrase_for_every_fact() -> None:
    knowledge = read_knowledge(SHIPPED)
    assert len(knowledge) == 136
    assert {tuple(sorted(facts)) for facts in knowledge.values()} == {tuple(sorted(FACTS))}
    assert all(isinstance(phrase, str) and phrase.strip() for facts in knowledge.values() for phrase in facts.values())


def test_shipped_phrases_have_no_full_stop_as_the_wordings_add_it() -> None:
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
def test_invalid_knowledge_file_is_a_data_error(tmp_path: Path, content: str | bytes, message: str) -> None:
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
def test_knowledge_value_that_is_not_text_is_a_data_error(tmp_path: Path, name: str, phrase: str) -> None:
    path = tmp_path / "knowledge.yaml"
    path.write_text(f"{name}:\n" + "".join(f"  {fact}: {phrase}\n" for fact in FACTS), encoding="utf-8")
    with pytest.raises(DataError):
        read_knowledge(path)


def test_default_rows_never_change() -> None:
    rows = json.dumps(generate_dialogues(read_knowledge(SHIPPED), rows=1500, seed=0)).encode()
    assert hashlib.sha256(rows).hexdigest() == "528bc4c6a0b15ce1b24f29be55a960af1757f0fb4484bab24c3e7a3f3ef12a30"
