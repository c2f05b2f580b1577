"""Dialogues as long and as varied as those of ruslanmv/ai-medical-chatbot, in any number: data.length=real.

A letter is put together from sentences (pipeline/phrases.py) about one patient, whose numbers, medicines and illnesses
are drawn anew for each, until it has as many words as one drawn from the real rows' lengths. Rates and lengths are
measured on the first 1000 real rows; there, too, a third of the rows are a few dialogues that come again and again.
"""

import itertools
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from string import Formatter
from typing import Any, NamedTuple, TypeVar

from pipeline import phrases
from pipeline.dialogues import NO_BREAK_SPACE, WORDINGS, Knowledge, irregular

Option = TypeVar("Option")
Slots = dict[str, Any]

BOILERPLATE_ALONE, ADVERTISED, EMPTY_CELL = 0.11, 0.25, 0.005  # shares of the rows that come once
REPEATED = 200  # in as many rows, one is a dialogue that makes up for all of a third's repeats: each comes 67 times
BARE_QUESTION = 0.05  # of the descriptions: the condition is named, nothing of the patient
PARTICULARS = 2  # slots beside the condition that the others have at least, or too many would be the same
FACTS = 0.4  # of the sentences of an answer tell a fact of the condition, the others advise
OVERSHOOT = 6  # words by which the last sentence exceeds what is missing, on average
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
DESCRIPTION_WORDS = (5, 7, 10, 12, 15, 18, 21, 23)  # "Q." among them, as in all that follows
PATIENT_WORDS = (9, 17, 39, 68, 116, 234, 355, 675)
DOCTOR_WORDS = (9, 26, 69, 105, 145, 244, 334, 481)  # answers that are not boilerplate alone


class Sentence(NamedTuple):
    text: str  # with {slots}
    words: float  # expected, its slots filled


Variants = tuple[Sentence, ...]  # of which a letter has one at most


def _sentence(text: str) -> Sentence:
    slots = [name for _, name, _, _ in Formatter().parse(text) if name]
    return Sentence(text, len(text.split()) + sum(_expected_words(name) - 1 for name in slots))


def _expected_words(slot: str) -> float:
    if slot in WORDINGS:
        return 11.6  # words a fact in the shipped knowledge file; 1.8 a condition's name
    options = phrases.SLOTS.get(slot)
    return sum(len(str(option).split()) for option in options) / len(options) if options else 1.8


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


STORY, ADVICE = _variants(phrases.STORY), _variants(phrases.ADVICE)
TOLD = tuple(
    tuple(_sentence(wording.answer.replace("{phrase}", f"{{{fact}}}")) for wording in wordings)
    for fact, wordings in WORDINGS.items()
)
CASES = _cases()
DRAWN = tuple((slot, tuple(map(str, options)), len(options)) for slot, options in phrases.SLOTS.items())
QUESTIONS = tuple(wording.question for wordings in WORDINGS.values() for wording in wordings)
OPENINGS = _all(phrases.OPENINGS)
CLOSINGS, ADVERTISEMENTS, BOILERPLATE = _all(phrases.CLOSINGS), _all(phrases.ADVERTISEMENTS), _all(phrases.BOILERPLATE)


class Dialogue(NamedTuple):
    description: str
    patient: str
    doctor: str

    def row(self) -> dict[str, str]:
        return {"Description": self.description, "Patient": self.patient, "Doctor": self.doctor}


def generate(knowledge: Knowledge, rows: int, seed: int) -> Iterator[dict[str, str]]:
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
    """What fills the slots: a condition with its facts, another one, and a patient's particulars."""
    name = _one(names, chance)
    draw = chance.random
    drawn = {slot: options[int(draw() * count)] for slot, options, count in DRAWN}
    return drawn | knowledge[name] | {"name": name, "other": _one(names, chance)}


def _letter(lead: str, ask: str, slots: Slots, chance: random.Random) -> str:
    greeting, wish = _one(phrases.GREETINGS, chance), _one(phrases.WISHES, chance)
    missing = _length(PATIENT_WORDS, chance) - sum(len(part.split()) for part in (greeting, lead, ask, wish))
    story = " ".join(_sentences(missing - OVERSHOOT, (list(STORY),), chance)).format_map(slots)
    said = " ".join(part for part in (lead, story, ask, wish) if part)
    return f"{greeting}{_one(' ' + NO_BREAK_SPACE, chance)}{said}"


def _answer(slots: Slots, chance: random.Random, ending: str = "") -> str:
    opening, closing = _one(OPENINGS, chance), _one(CLOSINGS, chance) if chance.random() < 0.4 else ""
    missing = _length(DOCTOR_WORDS, chance) - sum(len(part.split()) for part in (opening, closing, ending))
    body = _sentences(max(1, missing - OVERSHOOT), (list(TOLD), list(ADVICE)), chance)
    text = " ".join(part for part in (opening, *body, closing, ending) if part)
    return irregular(text.format_map(slots), chance)


def _advertised(slots: Slots, chance: random.Random) -> str:
    return _answer(slots, chance, _one(ADVERTISEMENTS, chance))


def _boilerplate(slots: Slots, chance: random.Random) -> str:
    return f"{_one(BOILERPLATE, chance)} {_one(ADVERTISEMENTS, chance)}".format_map(slots)


def _sentences(words: float, pools: tuple[list[Variants], ...], chance: random.Random) -> Iterator[str]:
    """Texts of about as many words, none twice, from the first pool in FACTS of the cases, else from the last."""
    while words > 0 and any(pools):
        pool = pools[0] if pools[0] and (chance.random() < FACTS or not pools[-1]) else pools[-1]
        sentence = _one(pool.pop(int(chance.random() * len(pool))), chance)
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
