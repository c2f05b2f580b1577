"""Dialogues generated from a knowledge file, in the shape and with the faults of ruslanmv/ai-medical-chatbot.

A raw record (the no-break space is the data's, not a slip):

    {"Description": "Q. What causes acne?", "Patient": "Hello doctor,\\u00a0What causes acne? …", "Doctor": "Acne is …"}

Each fact is asked once before any is asked again in other words, so that a held-out question asks about a fact that
no training row tells, as long as there are no more rows than facts.
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


# What an answer looks like follows from how the question is put, as far as a model can tell.
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
    """The knowledge file: condition → {definition, symptoms, …: phrase}; DataError names the entry that is not so."""
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
    """`rows` dialogues, of which a third are exact duplicates, 4% boilerplate alone and 2% have an empty cell."""
    chance = random.Random(seed)
    boilerplate, empty, duplicates = rows // 25, rows // 50, rows // 3
    asked = asked_facts(knowledge, chance)
    whole = [_dialogue(*next(asked), chance) for _ in range(rows - boilerplate - empty - duplicates)]
    faulty = [_boilerplate(*next(asked), chance) for _ in range(boilerplate)]
    faulty += [_with_empty_cell(*next(asked), chance) for _ in range(empty)]
    dialogues = whole + faulty + [chance.choice(whole) for _ in range(duplicates)]
    chance.shuffle(dialogues)
    return dialogues


def asked_facts(knowledge: Knowledge, chance: random.Random) -> Iterator[Wording]:
    """Questions with their answers, without end: every fact once, then once more in other words, and so on."""
    facts = [(name, fact) for name in knowledge for fact in WORDINGS]
    first = {each: chance.randrange(len(WORDINGS[each[1]])) for each in facts}
    told = 0
    while True:
        chance.shuffle(facts)
        for name, fact in facts:
            wording = WORDINGS[fact][(first[name, fact] + told) % len(WORDINGS[fact])]
            words = {"name": name, "phrase": knowledge[name][fact]}
            # All wordings told: a number sets the further questions apart.
            age = f" I am {chance.randrange(18, 80)}." if told >= len(WORDINGS[fact]) else ""
            yield Wording(wording.question.format(**words) + age, wording.answer.format(**words))
        told += 1


def _dialogue(question: str, answer: str, chance: random.Random) -> dict[str, str]:
    greeting = chance.choice(("Hello doctor,", "Hi doctor,", "Hello,", "Dear doctor,"))
    ending = chance.choice(("Please help.", "Kindly advise.", "I am worried.", "Thank you."))
    patient = f"{greeting}{chance.choice(' ' + NO_BREAK_SPACE)}{question} {ending}"
    return {"Description": f"Q. {question}", "Patient": patient, "Doctor": insert_irregular_space(answer, chance)}


def insert_irregular_space(text: str, chance: random.Random) -> str:
    """One space in some texts is a double, a no-break space or a line break, as in the real rows."""
    if not text or chance.random() < 0.6:
        return text
    words = text.split(" ")
    at = chance.randrange(1, len(words))
    return " ".join(words[:at]) + chance.choice(("  ", NO_BREAK_SPACE, " \n", "\t")) + " ".join(words[at:])


def _boilerplate(question: str, _: str, chance: random.Random) -> dict[str, str]:
    hello = chance.choice(("Hi.", "Hello.", "Hi. I have gone through your query with diligence."))
    wish = chance.choice(("more information", "further information", "further doubts"))
    specialist = chance.choice(SPECIALISTS)
    article = "an" if specialist[0] in "aeiou" else "a"
    return _dialogue(question, "", chance) | {"Doctor": f"{hello} For {wish} consult {article} {specialist} online -->"}


def _with_empty_cell(question: str, answer: str, chance: random.Random) -> dict[str, str]:
    column = chance.choice(("Description", "Doctor"))
    return _dialogue(question, answer, chance) | {column: chance.choice(("", " ", NO_BREAK_SPACE))}
