"""Dialogues as long and as varied as those of ruslanmv/ai-medical-chatbot, in any number: data.length=real.

A letter is put together from sentences (pipeline/synthetic/phrases.py) about one patient, whose numbers, medicines and illnesses
are drawn anew for each, until it has as many words as one drawn from the real rows' lengths. Rates and lengths are
measured on the first 1000 real rows; there, too, a third of the rows are a few dialogues that come again and again.
"""

import itertools
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from string import Formatter
from typing import Any, NamedTuple, TypeVar

from pipeline.synthetic import phrases
from pipeline.synthetic.dialogues import NO_BREAK_SPACE, WORDINGS, Knowledge, insert_irregular_space

Option = TypeVar("Option")

BOILERPLATE_ALONE, ADVERTISED, EMPTY_CELL = 0.11, 0.25, 0.005  # shares of the rows that come once
REPEATED = 200  # in as many rows, one is a dialogue that makes up for all of a third's repeats: each comes 67 times
BARE_QUESTION = 0.05  # of the descriptions: the condition is named, nothing of the patient
PARTICULARS = 2  # slots beside the condition that the others have at least, or too many would be the same
FACTS, ENUMERATIONS = 0.25, 0.35  # of the sentences of an answer; the others advise
OVERSHOOT = 6  # words by which the last sentence exceeds what is missing, on average
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
DESCRIPTION_WORDS = (5, 7, 10, 12, 15, 18, 21, 23)  # "Q." among them, as in all that follows
PATIENT_WORDS = (9, 17, 39, 68, 116, 234, 355, 675)
DOCTOR_WORDS = (9, 26, 69, 105, 145, 244, 334, 481)  # answers that are not boilerplate alone


OPTIONS = {slot: tuple(map(str, options)) for slot, options in phrases.SLOTS.items()}


class Sentence(NamedTuple):
    text: str  # with {slots}
    words: float  # expected, its slots filled


class Slots(dict[str, str]):
    """What fills the slots of one row: facts that it is given, and what is drawn when it is first asked for."""

    def __init__(self, given: dict[str, str], chance: random.Random) -> None:
        super().__init__(given)
        self.draw = chance.random

    def __missing__(self, slot: str) -> str:
        options = OPTIONS.get(slot)
        value = self[slot] = options[int(self.draw() * len(options))] if options else self._listed(slot)
        return value

    def _listed(self, slot: str) -> str:
        options, amount = phrases.LISTS[slot]
        draw, count = self.draw, len(options)
        items = [options[int(draw() * count)] for _ in range(int(2 + draw() * 6))]
        if amount:
            items = [item + amount % int(5 + draw() * 400) for item in items]
        return f"{', '.join(items[:-1])} and {items[-1]}"


Variants = tuple[Sentence, ...]  # of which a letter has one at most


def _sentence(text: str) -> Sentence:
    slots = [name for _, name, _, _ in Formatter().parse(text) if name]
    return Sentence(text, len(text.split()) + sum(_expected_words(name) - 1 for name in slots))


def _expected_words(slot: str) -> float:
    if slot in WORDINGS:
        return 11.6  # words a fact in the shipped knowledge file; 1.8 a condition's name
    if slot in phrases.LISTS:
        return 4.5 * (1 + len(phrases.LISTS[slot][1].split())) + 1  # two to seven, with "and"
    options = OPTIONS.get(slot)
    return sum(len(option.split()) for option in options) / len(options) if options else 1.8


def _variants(block: str) -> tuple[Variants, ...]:
    return tuple(tuple(map(_sentence, line.split(" | "))) for line in block.strip().splitlines())


def _all(block: str) -> tuple[str, ...]:
    return tuple(sentence.text for variants in _variants(block) for sentence in variants)


def _cases() -> dict[int, list[tuple[str, str]]]:
    """Expected number of words → (how the case is put, what is asked, if it is not asked there) that have as many."""
    cases: dict[int, list[tuple[str, str]]] = {words: [] for words in range(int(DESCRIPTION_WORDS[-1]) + 1)}
    for lead, ask in itertools.product(_all(phrases.LEADS), ("", *_all(phrases.ASKS))):
        both = _sentence(f"Q. {lead} {ask}")
        if lead.endswith("?") == (not ask) and both.text.count("{") > PARTICULARS and int(both.words) in cases:
            cases[int(both.words)].append((lead, ask))
    return {words: found for words, found in cases.items() if found}


STORY, ADVICE, ENUMERATED = map(_variants, (phrases.STORY, phrases.ADVICE, phrases.ENUMERATED))
TOLD = tuple(
    tuple(_sentence(wording.answer.replace("{phrase}", f"{{{fact}}}")) for wording in wordings)
    for fact, wordings in WORDINGS.items()
)
CASES = _cases()
QUESTIONS = tuple(wording.question for wordings in WORDINGS.values() for wording in wordings)
OPENINGS = _all(phrases.OPENINGS)
CLOSINGS, ADVERTISEMENTS, BOILERPLATE = _all(phrases.CLOSINGS), _all(phrases.ADVERTISEMENTS), _all(phrases.BOILERPLATE)


class Dialogue(NamedTuple):
    description: str
    patient: str
    doctor: str

    def row(self) -> dict[str, str]:
        return {"Description": self.description, "Patient": self.patient, "Doctor": self.doctor}


def generate_letters(knowledge: Knowledge, rows: int, seed: int) -> Iterator[dict[str, str]]:
    """`rows` dialogues one by one, of which rows // 3 are exact duplicates; the same for the same seed everywhere."""
    chance = random.Random(seed)
    names = tuple(knowledge)
    answers = (_boilerplate, _boilerplate, _boilerplate, _advertised, _answer)
    often = [
        _dialogue(knowledge, names, answers[number % len(answers)], chance)
        for number in range(max(1, rows // REPEATED))
    ]
    repeats, turns = rows // 3 + len(often), itertools.cycle(often)
    for left in range(rows, 0, -1):
        if chance.random() * left < repeats:
            repeats -= 1
            yield next(turns).row()
        else:
            yield _single(knowledge, names, chance).row()


def _single(knowledge: Knowledge, names: tuple[str, ...], chance: random.Random) -> Dialogue:
    """A dialogue that comes once."""
    number = chance.random()
    if number < BOILERPLATE_ALONE:
        return _dialogue(knowledge, names, _boilerplate, chance)
    advertised = chance.random() < ADVERTISED
    dialogue = _dialogue(knowledge, names, _advertised if advertised else _answer, chance)
    if number < BOILERPLATE_ALONE + EMPTY_CELL:
        return dialogue._replace(**{_one(("description", "doctor"), chance): _one(("", " ", NO_BREAK_SPACE), chance)})
    return dialogue


def _dialogue(knowledge: Knowledge, names: tuple[str, ...], answer: Any, chance: random.Random) -> Dialogue:
    slots = _patient(knowledge, names, chance)
    if chance.random() < BARE_QUESTION:
        lead, ask = _one(QUESTIONS, chance).format_map(slots), ""
    else:
        words = max(min(CASES), int(_length(DESCRIPTION_WORDS, chance)))
        lead, ask = (part.format_map(slots) for part in _one(CASES[words], chance))
    return Dialogue(f"Q. {lead} {ask}".rstrip(), _letter(lead, ask, slots, chance), answer(slots, chance))


def _patient(knowledge: Knowledge, names: tuple[str, ...], chance: random.Random) -> Slots:
    """A patient with a condition and its facts, and with another condition."""
    name = _one(names, chance)
    return Slots(knowledge[name] | {"name": name, "other": _one(names, chance)}, chance)


def _letter(lead: str, ask: str, slots: Slots, chance: random.Random) -> str:
    greeting, wish = _one(phrases.GREETINGS, chance), _one(phrases.WISHES, chance)
    missing = _length(PATIENT_WORDS, chance) - sum(len(part.split()) for part in (greeting, lead, ask, wish))
    story = " ".join(_sentences(missing - OVERSHOOT, {1: list(STORY)}, chance)).format_map(slots)
    said = " ".join(part for part in (lead, story, ask, wish) if part)
    return f"{greeting}{_one(' ' + NO_BREAK_SPACE, chance)}{said}"


def _answer(slots: Slots, chance: random.Random, ending: str = "") -> str:
    opening, closing = _one(OPENINGS, chance), _one(CLOSINGS, chance) if chance.random() < 0.4 else ""
    missing = _length(DOCTOR_WORDS, chance) - sum(len(part.split()) for part in (opening, closing, ending))
    pools = {FACTS: list(TOLD), FACTS + ENUMERATIONS: list(ENUMERATED), 1: list(ADVICE)}
    body = _sentences(max(1, missing - OVERSHOOT), pools, chance)
    text = " ".join(part for part in (opening, *body, closing, ending) if part)
    return insert_irregular_space(text.format_map(slots), chance)


def _advertised(slots: Slots, chance: random.Random) -> str:
    return _answer(slots, chance, _one(ADVERTISEMENTS, chance))


def _boilerplate(slots: Slots, chance: random.Random) -> str:
    return f"{_one(BOILERPLATE, chance)} {_one(ADVERTISEMENTS, chance)}".format_map(slots)


def _sentences(words: float, pools: dict[float, list[Variants]], chance: random.Random) -> Iterator[str]:
    """Texts of about as many words, no variants of one sentence twice, from the pools by their cumulated shares.

    Where a pool is empty the next one serves.
    """
    draw = chance.random
    while words > 0:
        share = draw()
        for limit, pool in pools.items():
            if pool and share < limit:
                break
        else:
            return
        variants = pool.pop(int(draw() * len(pool)))
        sentence = variants[int(draw() * len(variants))]
        words -= sentence.words
        yield sentence.text


def _length(quantiles: Sequence[float], chance: random.Random) -> float:
    """A number of words, distributed by its quantiles at QUANTILES."""
    share = chance.random()
    at = bisect_right(QUANTILES, share) - 1
    within = (share - QUANTILES[at]) / (QUANTILES[at + 1] - QUANTILES[at])
    return quantiles[at] + within * (quantiles[at + 1] - quantiles[at])


def _one(options: Sequence[Option], chance: random.Random) -> Option:
    """As chance.choice, in a third of the time."""
    return options[int(chance.random() * len(options))]
