"""pipeline/format/components.py: the components are those that comparing all pairs gives."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from support.questions import VOCABULARY, random_questions

from pipeline.format import components as module
from pipeline.format.bigrams import bigram_sets
from pipeline.format.components import Components
from pipeline.format.near_duplicates import NearDuplicateSearch


def near_components(texts: list[str], threshold: float, rows: list[int] | None = None) -> list[int]:
    sets, _ = bigram_sets(texts, min_words=2)
    indices = np.flatnonzero(sets.sizes > 0)
    row_of = np.array(rows if rows is not None else range(len(texts)))
    found = Components(int(row_of.max()) + 1)
    found.unite_near(NearDuplicateSearch(sets, threshold), indices, row_of[indices])
    labels: list[int] = found.labels.tolist()
    return labels


def brute_force(texts: list[str], threshold: float) -> list[int]:
    sets = [{*itertools.pairwise(text.split())} for text in texts]
    labels = list(range(len(texts)))
    for one, other in itertools.combinations(range(len(texts)), 2):
        union = sets[one] | sets[other]
        if sets[one] and sets[other] and len(sets[one] & sets[other]) >= threshold * len(union) - 1e-9:
            low, high = sorted((labels[one], labels[other]))
            labels = [low if label == high else label for label in labels]
    return labels


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("block", [7, 2**20])
def test_components_are_those_of_all_pairs(threshold: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ENTRIES", block)
    texts = random_questions(300, seed=3)
    expected = brute_force(texts, threshold)
    assert near_components(texts, threshold) == expected
    assert 1 < len(set(expected)) < 300


@settings(max_examples=100, deadline=None)
@given(
    texts=strategies.lists(
        strategies.lists(strategies.sampled_from(VOCABULARY[:4]), min_size=2, max_size=10).map(" ".join),
        min_size=1,
        max_size=40,
    ),
    threshold=strategies.sampled_from([0.3, 0.5, 0.7]),
)
def test_components_of_any_texts_are_those_of_all_pairs(texts: list[str], threshold: float) -> None:
    assert near_components(texts, threshold) == brute_force(texts, threshold)


def test_rows_are_linked_by_any_of_their_texts() -> None:
    texts = ["a b c d", "x y z w", "x y z w", "k l m n", "a b c d"]
    assert near_components(texts, 0.7, rows=[0, 0, 1, 2, 3]) == [0, 0, 2, 0]


def test_each_row_is_linked_to_another_of_its_component() -> None:
    found = Components(5)
    found.unite(np.array([3, 4]), np.array([1, 3]))
    assert (found.labels.tolist(), found.linked_to.tolist()) == ([0, 1, 2, 1, 1], [-1, 3, -1, 1, 3])


def test_many_variants_of_one_text_are_one_component(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs that a chain links already are not compared: far fewer pairs than the 4.5 million there are."""
    compared = []
    are_near = module.are_near
    monkeypatch.setattr(module, "are_near", lambda *args: compared.append(len(args[2])) or are_near(*args))
    generator = random.Random(0)
    texts = [
        f"{generator.randint(0, 10**6)} the bar of the import has been at ninety nine percent for an hour now"
        for _ in range(3000)
    ]
    assert set(near_components(texts, 0.7)) == {0}
    assert sum(compared) < 300_000
