"""Articles generated from the knowledge file: what the base model `nano` has read before anyone fine-tunes it.

An article is a note of two or three facts about one condition, which ones, in which order and in which wordings changing
from one edition to the next: a model can only be taught to answer about what it has met in several wordings (Allen-Zhu
and Li, Physics of Language Models, part 3.1, https://arxiv.org/abs/2309.14316). The first sentence names the condition,
later ones may say "it", so that the fact has to be found by a name some way back, as in the answer to a question. No
telling has the form of an answer in `dialogues.py`.
"""

import random
from collections.abc import Iterator

from pipeline.synthetic.dialogues import Knowledge

TELLINGS: dict[str, tuple[str, ...]] = {
    "definition": (
        "{Name} is the name for {phrase}.",
        "Doctors use the word {name} for {phrase}.",
        "{Name}, in short, is {phrase}.",
        "In medicine, {name} means {phrase}.",
        "Behind the name {name} stands {phrase}.",
        "Textbooks describe {name} as {phrase}.",
    ),
    "symptoms": (
        "People with {name} complain of {phrase}.",
        "{Name} shows itself by {phrase}.",
        "Someone with {name} may have {phrase}.",
        "The picture of {name} includes {phrase}.",
        "{Name} is recognised by {phrase}.",
        "Typical of {name}: {phrase}.",
    ),
    "cause": (
        "Doctors trace {name} to {phrase}.",
        "{Name} goes back to {phrase}.",
        "{Name} arises from {phrase}.",
        "{Name} can be blamed on {phrase}.",
        "Researchers explain {name} by {phrase}.",
        "At the root of {name}: {phrase}.",
    ),
    "self_care": (
        "Those who have {name} are advised to {phrase}.",
        "With {name} it is wise to {phrase}.",
        "Anyone living with {name} can {phrase}.",
        "Nurses tell people with {name} to {phrase}.",
        "Daily life with {name} is easier for those who {phrase}.",
        "People with {name} do well to {phrase}.",
    ),
    "treatment": (
        "Against {name}, doctors use {phrase}.",
        "Treatment of {name} relies on {phrase}.",
        "{Name} responds to {phrase}.",
        "Medicine fights {name} with {phrase}.",
        "Therapy for {name} consists of {phrase}.",
        "What clinics offer for {name}: {phrase}.",
    ),
    "doctor": (
        "{Name} belongs in the hands of {phrase}.",
        "People with {name} are looked after by {phrase}.",
        "The care of {name} is the task of {phrase}.",
        "Referral for {name} goes to {phrase}.",
        "{Name} is a case for {phrase}.",
        "With {name} one turns to {phrase}.",
    ),
    "urgent": (
        "{Name} needs an ambulance when {phrase}.",
        "{Name} turns into an emergency once {phrase}.",
        "Nobody with {name} should wait at home if {phrase}.",
        "{Name} cannot wait if {phrase}.",
        "An emergency with {name} is at hand when {phrase}.",
        "Alarm signs in {name}: {phrase}.",
    ),
}


def edition(knowledge: Knowledge, chance: random.Random) -> Iterator[str]:
    """Every fact once: three notes a condition, in any order, of two or three facts each in one of their wordings."""
    notes = []
    for name, facts in knowledge.items():
        order = list(facts)
        chance.shuffle(order)
        notes += [(name, order[start::3]) for start in range(3)]
    chance.shuffle(notes)
    for name, told in notes:
        yield " ".join(_told(name, fact, knowledge[name][fact], i == 0, chance) for i, fact in enumerate(told))


def _told(name: str, fact: str, phrase: str, first: bool, chance: random.Random) -> str:
    """A fact in a sentence that names the condition; after the first, half of them say "it", as answers do."""
    subject = name if first or chance.random() < 0.5 else "it"
    telling = chance.choice(TELLINGS[fact])
    return telling.format(name=subject, Name=subject[0].upper() + subject[1:], phrase=phrase)
