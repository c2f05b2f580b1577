"""Generates articles from the knowledge file: the text on which the base model `nano` is pretrained.

An article states two or three facts about one condition. Which facts, their order and their wording change from one edition to
the next, because a model can only learn to answer about a fact that it has read in several wordings (Allen-Zhu and Li, Physics of
Language Models, part 3.1, https://arxiv.org/abs/2309.14316). The first sentence names the condition; later ones may say "it", so
that the model has to link the fact to a name further back, as in the answer to a question. No sentence has the form of an answer
in `pipeline/synthetic/dialogues.py`.
"""

import random
from collections.abc import Iterator

from pipeline.synthetic.dialogues import Knowledge

FACT_TEMPLATES: dict[str, tuple[str, ...]] = {
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


def generate_edition(knowledge: Knowledge, rng: random.Random) -> Iterator[str]:
    """Yield articles with every fact once: three for each condition, of two or three facts, in random order and wordings."""
    articles = []
    for name, facts in knowledge.items():
        order = list(facts)
        rng.shuffle(order)
        articles += [(name, order[start::3]) for start in range(3)]
    rng.shuffle(articles)
    for name, facts_in_article in articles:
        yield " ".join(
            _fact_sentence(name, fact, knowledge[name][fact], index == 0, rng)
            for index, fact in enumerate(facts_in_article)
        )


def _fact_sentence(name: str, fact: str, phrase: str, first: bool, rng: random.Random) -> str:
    """A sentence that states a fact and names the condition; after the first one, half of them say "it", as answers do."""
    subject = name if first or rng.random() < 0.5 else "it"
    template = rng.choice(FACT_TEMPLATES[fact])
    return template.format(name=subject, Name=subject[0].upper() + subject[1:], phrase=phrase)
