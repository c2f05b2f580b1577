"""Measures how many test rows have a duplicate in the training set, after the split."""

import math

import numpy as np

from pipeline.config.params import Format
from pipeline.errors import DataError
from pipeline.format.bigrams import bigram_sets
from pipeline.format.conversations import Conversation
from pipeline.format.duplicates import DuplicateSearch
from pipeline.format.near_duplicates import Mask
from pipeline.format.split import Split


def measure_leakage(split: Split, search: DuplicateSearch, options: Format) -> dict[str, float]:
    """Shares of the test rows, by name.

    exact, near: those with an equal or near text in the training set, by the fields of format.near.fields
    answers_exact, answers_near: those whose answer has an equal or near one in the training set, whatever the fields
    earlier_turns: those whose last question is an earlier question of a training dialogue
    """
    test, train = split.indices("test"), split.indices("train")
    equal = {name: field.find_equal(test, train) >= 0 for name, field in search.fields.items()}
    near = {name: field.find_near(test, train) >= 0 for name, field in search.fields.items()}
    leakage = {
        name: _share(np.any([found[field] for field in found if field in options.near.fields], axis=0))
        for name, found in (("exact", equal), ("near", near))
    }
    if "answer" in search.fields:
        leakage |= {"answers_exact": _share(equal["answer"]), "answers_near": _share(near["answer"])}
    if any(len(row.user_turns) > 1 for row in split.rows):
        leakage["earlier_turns"] = _earlier_turns(split.rows_of("test"), split.rows_of("train"), options.near.min_words)
    return leakage


def _share(is_found: Mask) -> float:
    """The share of true values, or 0 without values."""
    return float(np.mean(is_found)) if len(is_found) else 0.0


def _earlier_turns(test: list[Conversation], train: list[Conversation], min_words: int) -> float:
    questions = [row.user_turns[-1] if row.user_turns else "" for row in test]
    earlier = [turn for row in train for turn in row.user_turns[:-1]]
    sets, hashes = bigram_sets([*questions, *earlier], min_words)
    is_long = sets.sizes > 0
    known = np.unique(hashes[len(test) :][is_long[len(test) :]])
    return _share(np.isin(hashes[: len(test)], known) & is_long[: len(test)])


def require_leakage_within_limit(leakage: dict[str, float], options: Format) -> None:
    """Raise DataError if more test rows have a duplicate in train than format.max_leakage allows.

    With format.near.enabled=false, near-duplicates are allowed.
    """
    worst = max(leakage["exact"], leakage["near"] if options.near.enabled else 0.0)
    if worst > options.max_leakage:
        raise DataError(
            f"format.max_leakage: {leakage['exact']:.1%} of the test rows have an exact duplicate in the training set, "
            f"{leakage['near']:.1%} a near-duplicate; the limit is {options.max_leakage:.1%}. Split by question "
            f"(format.split=question), or allow it: format.max_leakage={math.ceil(1000 * worst) / 1000:g}"
        )
