"""pipeline/format/near_duplicates.py and bigrams.py: the search misses no pair, and equal words have equal hashes."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings, strategies
from support.questions import random_questions

from pipeline.format.bigrams import bigram_sets, word_hashes
from pipeline.format.near_duplicates import find_near_duplicates
from pipeline.records.text import comparison_key, words


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9])
def test_similarity_equal_to_the_threshold_is_a_near_duplicate(threshold: float) -> None:
    """The first n + 1 of eleven different words have n of their 10 bigrams: similarity n / 10."""
    words = round(10 * threshold) + 1
    texts = [" ".join("abcdefghijk"[:count]) for count in (words - 1, words, words + 1)]
    assert find_near_duplicates(texts, ["a b c d e f g h i j k"], threshold, min_words=2) == [False, True, True]
    assert find_near_duplicates(["a b c d e f g h i j k"], texts[:1], threshold, min_words=2) == [False]


def test_short_texts_are_never_near_duplicates() -> None:
    references = ["A b, c", "a b c d!", "", "a"]
    assert find_near_duplicates(["a b c", "a b c d", "", "a"], references, 0.5, min_words=4) == [
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("threshold", ["0.3", "0.5", "0.7", "0.9"])
def test_search_finds_what_comparing_all_pairs_finds(threshold: str) -> None:
    texts, references = (random_questions(300, seed) for seed in (1, 2))
    references += [text.upper() + " bum" for text in texts[::7]]

    def bigrams(text: str) -> set[tuple[str, str]]:
        return {*itertools.pairwise(text.lower().split())}

    reference_sets = [bigrams(text) for text in references]
    greatest = [
        max(Fraction(len(bigrams(text) & other), len(bigrams(text) | other)) for other in reference_sets)
        for text in texts
    ]
    expected = [similarity >= Fraction(threshold) for similarity in greatest]
    assert 0 < sum(expected) < 300
    assert find_near_duplicates(texts, references, float(threshold), min_words=2) == expected


@settings(max_examples=200, deadline=None)
@given(
    strategies.lists(
        strategies.text(strategies.sampled_from("aZ09_ é'ß\u200b\u0301中.\n\ud800"), max_size=12), max_size=8
    )
)
def test_word_and_text_hashes_are_equal_where_the_words_are(texts: list[str]) -> None:
    hashes, counts = word_hashes(texts)
    assert counts.tolist() == [len(words(text)) for text in texts]
    hash_of = dict(zip((word for text in texts for word in words(text)), hashes.tolist(), strict=True))
    assert [hash_of[word] for text in texts for word in words(text)] == hashes.tolist()
    assert len({*hash_of.values()}) == len(hash_of)
    _, text_hashes = bigram_sets(texts, min_words=2)
    for one, other in itertools.combinations(range(len(texts)), 2):
        assert (text_hashes[one] == text_hashes[other]) == (comparison_key(texts[one]) == comparison_key(texts[other]))
