"""Generates dialogues as long and as varied as those of ruslanmv/ai-medical-chatbot, in any number: data.length=real.

A letter is composed of sentences (pipeline/synthetic/phrases.py) about one patient, with numbers, medicines and illnesses drawn
for this patient, until it has a number of words drawn from the distribution of the real rows. Shares and lengths are measured on
the first 1000 real rows, where a third of the rows are also a few dialogues that recur again and again.
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

BOILERPLATE_SHARE, AD_SHARE, EMPTY_CELL_SHARE = 0.11, 0.25, 0.005  # of the rows that are not repeated
ROWS_PER_REPEATED = 200  # one repeated dialogue for so many rows; together they fill a third, each occurs 67 times
BARE_QUESTION_SHARE = 0.05  # of the descriptions: only the condition is mentioned, not the patient
MIN_DETAILS = 2  # slots that all other descriptions have in addition to the condition, or too many would be equal
FACT_SHARE, ENUMERATION_SHARE = 0.25, 0.35  # of the sentences of an answer; the others give advice
OVERSHOOT = 6  # words by which the last sentence exceeds the drawn length, on average
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
DESCRIPTION_WORDS = (5, 7, 10, 12, 15, 18, 21, 23)  # "Q." counts as a word, here and below
PATIENT_WORDS = (9, 17, 39, 68, 116, 234, 355, 675)
DOCTOR_WORDS = (9, 26, 69, 105, 145, 244, 334, 481)  # of answers that are not just boilerplate

OPTIONS = {slot: tuple(map(str, options)) for slot, options in phrases.SLOTS.items()}


class Sentence(NamedTuple):
    text: str  # with {slots}
    words: float  # expected number once the slots are filled


class Slots(dict[str, str]):
    """The values of one row's slots: its facts, and values that are drawn at their first use."""

    def __init__(self, facts: dict[str, str], rng: random.Random) -> None:
        super().__init__(facts)
        self.draw = rng.random

    def __missing__(self, slot: str) -> str:
        options = OPTIONS.get(slot)
        value = self[slot] = options[int(self.draw() * len(options))] if options else self._enumeration(slot)
        return value

    def _enumeration(self, slot: str) -> str:
        options, amount = phrases.LISTS[slot]
        draw, count = self.draw, len(options)
        items = [options[int(draw() * count)] for _ in range(int(2 + draw() * 6))]
        if amount:
            items = [item + amount % int(5 + draw() * 400) for item in items]
        return f"{', '.join(items[:-1])} and {items[-1]}"


Variants = tuple[Sentence, ...]  # a letter has at most one of them


def _parse_sentence(text: str) -> Sentence:
    slots = [name for _, name, _, _ in Formatter().parse(text) if name]
    return Sentence(text, len(text.split()) + sum(_expected_words(name) - 1 for name in slots))


def _expected_words(slot: str) -> float:
    if slot in WORDINGS:
        return 11.6  # of a fact in the shipped knowledge file; a condition's name has 1.8
    if slot in phrases.LISTS:
        return 4.5 * (1 + len(phrases.LISTS[slot][1].split())) + 1  # two to seven items, and "and"
    options = OPTIONS.get(slot)
    return sum(len(option.split()) for option in options) / len(options) if options else 1.8


def _parse_variants(block: str) -> tuple[Variants, ...]:
    return tuple(tuple(map(_parse_sentence, line.split(" | "))) for line in block.strip().splitlines())


def _texts(block: str) -> tuple[str, ...]:
    return tuple(sentence.text for variants in _parse_variants(block) for sentence in variants)


def _descriptions_by_words() -> dict[int, list[tuple[str, str]]]:
    """Expected number of words → the (lead, question) pairs of that length; the question is empty if the lead is one."""
    descriptions: dict[int, list[tuple[str, str]]] = {words: [] for words in range(int(DESCRIPTION_WORDS[-1]) + 1)}
    for lead, ask in itertools.product(_texts(phrases.LEADS), ("", *_texts(phrases.ASKS))):
        both = _parse_sentence(f"Q. {lead} {ask}")
        if lead.endswith("?") == (not ask) and both.text.count("{") > MIN_DETAILS and int(both.words) in descriptions:
            descriptions[int(both.words)].append((lead, ask))
    return {words: pairs for words, pairs in descriptions.items() if pairs}


STORY_SENTENCES, ADVICE_SENTENCES, ENUMERATION_SENTENCES = map(
    _parse_variants, (phrases.STORY, phrases.ADVICE, phrases.ENUMERATED)
)
FACT_SENTENCES = tuple(
    tuple(_parse_sentence(wording.answer.replace("{phrase}", f"{{{fact}}}")) for wording in wordings)
    for fact, wordings in WORDINGS.items()
)
DESCRIPTIONS = _descriptions_by_words()
QUESTIONS = tuple(wording.question for wordings in WORDINGS.values() for wording in wordings)
OPENINGS = _texts(phrases.OPENINGS)
CLOSINGS, ADVERTISEMENTS, BOILERPLATE = (
    _texts(phrases.CLOSINGS),
    _texts(phrases.ADVERTISEMENTS),
    _texts(phrases.BOILERPLATE),
)


class LetterRow(NamedTuple):
    description: str
    patient: str
    doctor: str

    def row(self) -> dict[str, str]:
        return {"Description": self.description, "Patient": self.patient, "Doctor": self.doctor}


def generate_letters(knowledge: Knowledge, rows: int, seed: int) -> Iterator[dict[str, str]]:
    """Yield `rows` dialogues, of which rows // 3 are exact duplicates. A seed gives the same ones on every machine."""
    rng = random.Random(seed)
    names = tuple(knowledge)
    answers = (_boilerplate, _boilerplate, _boilerplate, _answer_with_ad, _answer)
    repeated = [
        _dialogue(knowledge, names, answers[number % len(answers)], rng)
        for number in range(max(1, rows // ROWS_PER_REPEATED))
    ]
    repeats, cycle = rows // 3 + len(repeated), itertools.cycle(repeated)
    for remaining in range(rows, 0, -1):
        if rng.random() * remaining < repeats:
            repeats -= 1
            yield next(cycle).row()
        else:
            yield _unique_dialogue(knowledge, names, rng).row()


def _unique_dialogue(knowledge: Knowledge, names: tuple[str, ...], rng: random.Random) -> LetterRow:
    """A dialogue that is not repeated."""
    draw = rng.random()
    if draw < BOILERPLATE_SHARE:
        return _dialogue(knowledge, names, _boilerplate, rng)
    has_ad = rng.random() < AD_SHARE
    dialogue = _dialogue(knowledge, names, _answer_with_ad if has_ad else _answer, rng)
    if draw < BOILERPLATE_SHARE + EMPTY_CELL_SHARE:
        return dialogue._replace(**{_choice(("description", "doctor"), rng): _choice(("", " ", NO_BREAK_SPACE), rng)})
    return dialogue


def _dialogue(knowledge: Knowledge, names: tuple[str, ...], answer: Any, rng: random.Random) -> LetterRow:
    slots = _patient(knowledge, names, rng)
    if rng.random() < BARE_QUESTION_SHARE:
        lead, ask = _choice(QUESTIONS, rng).format_map(slots), ""
    else:
        words = max(min(DESCRIPTIONS), int(_draw_length(DESCRIPTION_WORDS, rng)))
        lead, ask = (part.format_map(slots) for part in _choice(DESCRIPTIONS[words], rng))
    return LetterRow(f"Q. {lead} {ask}".rstrip(), _letter(lead, ask, slots, rng), answer(slots, rng))


def _patient(knowledge: Knowledge, names: tuple[str, ...], rng: random.Random) -> Slots:
    """The slots of a patient with a condition, its facts, and another condition."""
    name = _choice(names, rng)
    return Slots(knowledge[name] | {"name": name, "other": _choice(names, rng)}, rng)


def _letter(lead: str, ask: str, slots: Slots, rng: random.Random) -> str:
    greeting, wish = _choice(phrases.GREETINGS, rng), _choice(phrases.WISHES, rng)
    missing = _draw_length(PATIENT_WORDS, rng) - sum(len(part.split()) for part in (greeting, lead, ask, wish))
    story = " ".join(_draw_sentences(missing - OVERSHOOT, {1: list(STORY_SENTENCES)}, rng)).format_map(slots)
    text = " ".join(part for part in (lead, story, ask, wish) if part)
    return f"{greeting}{_choice(' ' + NO_BREAK_SPACE, rng)}{text}"


def _answer(slots: Slots, rng: random.Random, ending: str = "") -> str:
    opening, closing = _choice(OPENINGS, rng), _choice(CLOSINGS, rng) if rng.random() < 0.4 else ""
    missing = _draw_length(DOCTOR_WORDS, rng) - sum(len(part.split()) for part in (opening, closing, ending))
    pools = {
        FACT_SHARE: list(FACT_SENTENCES),
        FACT_SHARE + ENUMERATION_SHARE: list(ENUMERATION_SENTENCES),
        1: list(ADVICE_SENTENCES),
    }
    body = _draw_sentences(max(1, missing - OVERSHOOT), pools, rng)
    text = " ".join(part for part in (opening, *body, closing, ending) if part)
    return insert_irregular_space(text.format_map(slots), rng)


def _answer_with_ad(slots: Slots, rng: random.Random) -> str:
    return _answer(slots, rng, _choice(ADVERTISEMENTS, rng))


def _boilerplate(slots: Slots, rng: random.Random) -> str:
    return f"{_choice(BOILERPLATE, rng)} {_choice(ADVERTISEMENTS, rng)}".format_map(slots)


def _draw_sentences(words: float, pools: dict[float, list[Variants]], rng: random.Random) -> Iterator[str]:
    """Yield sentences until they have about so many words, at most one variant of each.

    pools: cumulative share → sentences to draw from. If a pool is empty, the next one is used.
    """
    draw = rng.random
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


def _draw_length(quantiles: Sequence[float], rng: random.Random) -> float:
    """A number of words from the distribution that has these quantiles at QUANTILES."""
    share = rng.random()
    index = bisect_right(QUANTILES, share) - 1
    within = (share - QUANTILES[index]) / (QUANTILES[index + 1] - QUANTILES[index])
    return quantiles[index] + within * (quantiles[index + 1] - quantiles[index])


def _choice(options: Sequence[Option], rng: random.Random) -> Option:
    """Like rng.choice, in a third of the time."""
    return options[int(rng.random() * len(options))]
