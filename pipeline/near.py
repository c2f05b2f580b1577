"""Near-duplicate texts: all pairs whose word bigrams have a Jaccard similarity of at least a threshold, exactly.

Jaccard similarity of two sets: the size of their intersection over that of their union. A pair at or above the
threshold t must share one of the first |x| - ceil(t |x|) + 1 elements of either set, in any fixed order of all
elements; with the rarest first, few other pairs do. This prefix filter (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and
Srikant 2007, "Scaling Up All Pairs Similarity Search") only saves work: unlike MinHash it misses no pair.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from pipeline.text import words

Bigrams = frozenset[tuple[str, str]]


def bigrams(text: str) -> Bigrams:
    """The set of pairs of adjacent words.

    >>> sorted(bigrams("Drink water, drink WATER!"))
    [('drink', 'water'), ('water', 'drink')]
    """
    found = words(text)
    return frozenset(itertools.pairwise(found))


def jaccard(a: Bigrams, b: Bigrams) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def near_any(texts: Sequence[str], references: Iterable[str], threshold: float, min_words: int) -> list[bool]:
    """For each text whether one of the references is near to it. Texts of fewer than `min_words` words never are."""
    wanted = [_bigrams_if_long(text, min_words) for text in texts]
    held = [found for found in {_bigrams_if_long(text, min_words) for text in references} if found]
    frequency = Counter(pair for found in (*wanted, *held) for pair in found)
    index: dict[tuple[str, str], list[Bigrams]] = {}
    for found in held:
        for pair in _prefix(found, threshold, frequency):
            index.setdefault(pair, []).append(found)
    return [_has_near(found, index, threshold, frequency) for found in wanted]


def _bigrams_if_long(text: str, min_words: int) -> Bigrams:
    return bigrams(text) if len(words(text)) >= min_words else frozenset()


def _prefix(found: Bigrams, threshold: float, frequency: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    length = len(found) - math.ceil(threshold * len(found) - 1e-9) + 1
    return sorted(found, key=lambda pair: (frequency[pair], pair))[:length]


def _has_near(
    found: Bigrams, index: dict[tuple[str, str], list[Bigrams]], threshold: float, frequency: Counter[tuple[str, str]]
) -> bool:
    if not found:
        return False
    tried: set[int] = set()
    for pair in _prefix(found, threshold, frequency):
        for candidate in index.get(pair, ()):
            if id(candidate) not in tried:
                tried.add(id(candidate))
                if jaccard(found, candidate) >= threshold:
                    return True
    return False
