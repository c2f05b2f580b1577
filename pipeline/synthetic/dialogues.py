"""Generates dialogues from a knowledge file, with the columns and the defects of ruslanmv/ai-medical-chatbot.

A raw record (the no-break space is intended, as in the real data):

    {"Description": "Q. What causes acne?", "Patient": "Hello doctor,\\u00a0What causes acne? …", "Doctor": "Acne is …"}

Every fact is asked once before any is asked again in another wording. So as long as there are no more rows than facts, a
held-out question asks for a fact that no training row contains.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from pipeline.errors import DataError

Knowledge = dict[str, dict[str, str]]  # condition → fact → phrase


class Wording(NamedTuple):
    question: str
    answer: str


# The wording of the question determines that of the answer, so that a model can learn which one is expected.
WORDINGS: dict[str, tuple[Wording, ...]] = {
    "definition": (
        Wording("What is {name}?", "It is {phrase}."),
        Wording("What does it mean to have {name}?", "To have {name} means to live with {phrase}."),
        Wording("My report says {name}. What is that?", "The report speaks of {phrase}."),
        Wording("Can you explain {name} to me?", "In plain words, {name} is {phrase}."),
        Wording("I was told that I have {name}. What does that mean?", "That means {phrase}."),
    ),
    "symptoms": (
        Wording("What are the usual symptoms of {name}?", "The usual symptoms of {name} are {phrase}."),
        Wording("How would I notice {name}?", "Most people notice {phrase}."),
        Wording("Which signs point to {name}?", "The signs of {name} are {phrase}."),
        Wording("What does {name} feel like?", "With {name} you would have {phrase}."),
        Wording("Could this be {name}? What should I look for?", "Look for {phrase}."),
    ),
    "cause": (
        Wording("What causes {name}?", "It is caused by {phrase}."),
        Wording("Why do people get {name}?", "The cause of {name} is {phrase}."),
        Wording("Where does {name} come from?", "It comes from {phrase}."),
        Wording("How did I get {name}?", "Behind it is usually {phrase}."),
        Wording("What is the reason for {name}?", "The reason is {phrase}."),
    ),
    "self_care": (
        Wording("What can I do at home for {name}?", "At home you can {phrase}."),
        Wording("How do I look after myself with {name}?", "It helps to {phrase}."),
        Wording("Is there anything that eases {name}?", "To ease it, {phrase}."),
        Wording("I have {name}. What do you advise?", "I advise you to {phrase}."),
        Wording("Any advice on living with {name}?", "My advice is to {phrase}."),
    ),
    "treatment": (
        Wording("How is {name} treated?", "It is usually treated with {phrase}."),
        Wording("Which treatment is there for {name}?", "The usual treatment is {phrase}."),
        Wording("What will the doctor give me for {name}?", "Doctors usually turn to {phrase}."),
        Wording("Is there a cure or a medicine for {name}?", "What we have for {name} is {phrase}."),
        Wording("Someone close to me has {name}. How can doctors help?", "Doctors can help with {phrase}."),
    ),
    "doctor": (
        Wording("Which doctor should I see for {name}?", "For {name} you should see {phrase}."),
        Wording("Who treats {name}?", "The right person is {phrase}."),
        Wording("Where do I go with {name}?", "Make an appointment with {phrase}."),
        Wording("Do I need a specialist for {name}?", "Please see {phrase}."),
        Wording("Whom can I ask about {name}?", "You can ask {phrase}."),
    ),
    "urgent": (
        Wording("When is {name} an emergency?", "Go to an emergency room if {phrase}."),
        Wording("When does {name} become dangerous?", "It becomes dangerous when {phrase}."),
        Wording("When should I hurry to hospital with {name}?", "Hurry if {phrase}."),
        Wording("Can {name} wait until Monday?", "It cannot wait if {phrase}."),
        Wording("How do I know that {name} is getting serious?", "It is serious once {phrase}."),
    ),
}
SPECIALISTS = (
    "neurologist",
    "dermatologist",
    "sexologist",
    "general surgeon",
    "internal medicine physician",
    "dentist",
)
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


def read_knowledge(path: Path) -> Knowledge:
    """Read the knowledge file: condition → {definition, symptoms, …: phrase}. Raises DataError that names the invalid entry."""
    try:
        knowledge = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not YAML: {error}") from None
    if not isinstance(knowledge, dict) or not knowledge:
        raise DataError(f"{path}: expected a mapping of conditions")
    for name, facts in knowledge.items():
        if not isinstance(facts, dict) or set(facts) != set(WORDINGS):
            raise DataError(f"{path}: {name} must have exactly the facts {', '.join(WORDINGS)}")
        for key, text in (("name", name), *facts.items()):
            if not isinstance(text, str) or not text:
                raise DataError(f"{path}: {name}, {key}: {text!r} is not text; put it in quotes")
    return knowledge


def generate_dialogues(knowledge: Knowledge, rows: int, seed: int) -> list[dict[str, str]]:
    """Generate `rows` dialogues: a third are exact duplicates, 4% have a boilerplate answer, 2% an empty cell."""
    rng = random.Random(seed)
    boilerplate, empty, duplicates = rows // 25, rows // 50, rows // 3
    pairs = question_answer_pairs(knowledge, rng)
    complete = [_dialogue(*next(pairs), rng) for _ in range(rows - boilerplate - empty - duplicates)]
    defective = [_boilerplate(*next(pairs), rng) for _ in range(boilerplate)]
    defective += [_with_empty_cell(*next(pairs), rng) for _ in range(empty)]
    dialogues = complete + defective + [rng.choice(complete) for _ in range(duplicates)]
    rng.shuffle(dialogues)
    return dialogues


def question_answer_pairs(knowledge: Knowledge, rng: random.Random) -> Iterator[Wording]:
    """Yield questions with their answers, without end. Each round asks for every fact once, in another wording."""
    facts = [(name, fact) for name in knowledge for fact in WORDINGS]
    first = {(name, fact): rng.randrange(len(WORDINGS[fact])) for name, fact in facts}
    rounds = 0
    while True:
        rng.shuffle(facts)
        for name, fact in facts:
            wording = WORDINGS[fact][(first[name, fact] + rounds) % len(WORDINGS[fact])]
            slots = {"name": name, "phrase": knowledge[name][fact]}
            # Once all wordings are used, an age makes further questions distinct.
            age = f" I am {rng.randrange(18, 80)}." if rounds >= len(WORDINGS[fact]) else ""
            yield Wording(wording.question.format(**slots) + age, wording.answer.format(**slots))
        rounds += 1


def _dialogue(question: str, answer: str, rng: random.Random) -> dict[str, str]:
    greeting = rng.choice(("Hello doctor,", "Hi doctor,", "Hello,", "Dear doctor,"))
    ending = rng.choice(("Please help.", "Kindly advise.", "I am worried.", "Thank you."))
    patient = f"{greeting}{rng.choice(' ' + NO_BREAK_SPACE)}{question} {ending}"
    return {"Description": f"Q. {question}", "Patient": patient, "Doctor": insert_irregular_space(answer, rng)}


def insert_irregular_space(text: str, rng: random.Random) -> str:
    """The text, in 40% of cases with one space replaced by a double space, no-break space, line break or tab, as in real rows."""
    if not text or rng.random() < 0.6:
        return text
    words = text.split(" ")
    index = rng.randrange(1, len(words))
    return " ".join(words[:index]) + rng.choice(("  ", NO_BREAK_SPACE, " \n", "\t")) + " ".join(words[index:])


def _boilerplate(question: str, _: str, rng: random.Random) -> dict[str, str]:
    greeting = rng.choice(("Hi.", "Hello.", "Hi. I have gone through your query with diligence."))
    offer = rng.choice(("more information", "further information", "further doubts"))
    specialist = rng.choice(SPECIALISTS)
    article = "an" if specialist[0] in "aeiou" else "a"
    return _dialogue(question, "", rng) | {
        "Doctor": f"{greeting} For {offer} consult {article} {specialist} online -->"
    }


def _with_empty_cell(question: str, answer: str, rng: random.Random) -> dict[str, str]:
    column = rng.choice(("Description", "Doctor"))
    return _dialogue(question, answer, rng) | {column: rng.choice(("", " ", NO_BREAK_SPACE))}
