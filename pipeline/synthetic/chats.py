"""Generates dialogues of several turns from a knowledge file: a system prompt, then questions about one condition.

    {"messages": [{"role": "system", "content": "You answer questions about health. Be brief."},
                  {"role": "user", "content": "What causes acne?"},
                  {"role": "assistant", "content": "It is caused by …"},
                  {"role": "user", "content": "How is it treated? It is my son, 34, from Cork."},
                  {"role": "assistant", "content": "It is usually treated with …"}]}

Only the first question names the condition, so the others can be answered only from the dialogue. As in dialogues.py, every
fact is asked for once before any is asked for again.
"""

import random
from collections.abc import Iterator
from typing import Any

from pipeline.synthetic.dialogues import WORDINGS, Knowledge, Wording
from pipeline.synthetic.phrases import SLOTS

Chat = dict[str, list[dict[str, str]]]

SYSTEM_PROMPTS = (
    "You answer questions about health. Be brief.",
    "You are a health assistant. Answer in one sentence.",
    "You help people who ask about a condition. Keep it short.",
)
# Questions that refer to the condition of the dialogue, by the fact that they ask for.
FOLLOW_UPS: dict[str, tuple[Wording, ...]] = {
    "definition": (
        Wording("What is it, exactly?", "It is {phrase}."),
        Wording("Can you explain it to me?", "In plain words, it is {phrase}."),
    ),
    "symptoms": (
        Wording("What are its usual symptoms?", "The usual symptoms are {phrase}."),
        Wording("How would I notice it?", "Most people notice {phrase}."),
    ),
    "cause": (
        Wording("What causes it?", "It is caused by {phrase}."),
        Wording("Where does it come from?", "It comes from {phrase}."),
    ),
    "self_care": (
        Wording("What can I do at home for it?", "At home you can {phrase}."),
        Wording("Is there anything that eases it?", "To ease it, {phrase}."),
    ),
    "treatment": (
        Wording("How is it treated?", "It is usually treated with {phrase}."),
        Wording("Which treatment is there for it?", "The usual treatment is {phrase}."),
    ),
    "doctor": (
        Wording("Who treats it?", "The right person is {phrase}."),
        Wording("Where do I go with it?", "Make an appointment with {phrase}."),
    ),
    "urgent": (
        Wording("When is it an emergency?", "Go to an emergency room if {phrase}."),
        Wording("When does it become dangerous?", "It becomes dangerous when {phrase}."),
    ),
}
PATIENTS = ("It is for me", "It is my son", "It is my mother", "It is my neighbor", "It is my sister", "It is my wife")
PLACES = tuple(map(str, SLOTS["place"]))
TURNS = (2, 2, 3)  # questions of the dialogues that ask for all seven facts of a condition


def generate_chats(knowledge: Knowledge, rows: int, seed: int) -> list[Chat]:
    """Generate `rows` dialogues: a tenth are exact duplicates, 2% end with an unanswered turn, 2% have an empty turn."""
    rng = random.Random(seed)
    duplicates, unanswered, empty = rows // 10, rows // 50, rows // 50
    chats = _chats(knowledge, rng)
    complete = [next(chats) for _ in range(rows - duplicates)]
    for chat in complete[:unanswered]:
        chat["messages"].append({"role": "user", "content": rng.choice(("Thank you!", "Thanks, that helps."))})
    for chat in complete[unanswered : unanswered + empty]:
        chat["messages"][0] = {"role": "system", "content": ""}
    generated = complete + [rng.choice(complete) for _ in range(duplicates)]
    rng.shuffle(generated)
    return generated


def _chats(knowledge: Knowledge, rng: random.Random) -> Iterator[Chat]:
    """Yield dialogues without end. Each round asks for every fact once."""
    while True:
        parts = [(name, facts) for name in knowledge for facts in _parts_of([*WORDINGS], rng)]
        rng.shuffle(parts)
        for name, facts in parts:
            yield _chat(name, facts, knowledge[name], rng)


def _parts_of(facts: list[str], rng: random.Random) -> list[list[str]]:
    """The facts in random order, in parts of TURNS."""
    rng.shuffle(facts)
    return [facts[sum(TURNS[:part]) : sum(TURNS[: part + 1])] for part in range(len(TURNS))]


def _chat(name: str, facts: list[str], phrases: dict[str, str], rng: random.Random) -> Chat:
    messages: list[dict[str, Any]] = [{"role": "system", "content": rng.choice(SYSTEM_PROMPTS)}]
    for number, fact in enumerate(facts):
        wording = rng.choice((FOLLOW_UPS if number else WORDINGS)[fact])
        # Without the patient, many dialogues would end with the same question, or nearly so.
        patient = f" {rng.choice(PATIENTS)}, {rng.randrange(18, 90)}, from {rng.choice(PLACES)}." if number else ""
        slots = {"name": name, "phrase": phrases[fact]}
        messages.append({"role": "user", "content": wording.question.format(**slots) + patient})
        messages.append({"role": "assistant", "content": wording.answer.format(**slots)})
    return {"messages": messages}
