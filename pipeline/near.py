"""Near-duplicate texts: all pairs whose word bigrams have a Jaccard similarity of at least a threshold.

Jaccard similarity of two sets: the size of their intersection over that of their union. A pair at or above the
threshold t must share one of the first |x| - ceil(t |x|) + 1 elements of either set, in any fixed order of all
elements; with the rarest first, few other pairs do. This prefix filter (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and
Srikant 2007, "Scaling Up All Pairs Similarity Search") only saves work: unlike MinHash it misses no pair.

Texts are compared in NumPy arrays of hashed bigrams (50 bits: among 20 million, less than one pair is expected to
collide, and a collision matters only where two texts differ by just that).
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.text import words

BLOCK = 8192  # texts hashed, or compared with all references, at a time
PAIRS = 2**19  # candidate pairs looked at together
HASH_BITS, COUNT_BITS = 50, 12
Numbers = NDArray[np.uint64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Sets:
    """The distinct bigrams of texts: those of text i are hashes[starts[i] : starts[i + 1]], in ascending order."""

    hashes: Numbers
    starts: Places

    @cached_property
    def sizes(self) -> Places:
        return np.diff(self.starts)


class Texts:
    """Texts to be compared among each other, each known by its place; those of fewer than `min_words` words are near to none."""

    def __init__(self, texts: Iterable[str], threshold: float, min_words: int) -> None:
        self.threshold = threshold
        self.sets, self.same = bigrams(texts, min_words)
        self.first = prefixes(self.sets, threshold)

    def near(self, wanted: Places, references: Places) -> NDArray[np.bool_]:
        """For each wanted text whether one of the references is near to it; both are places."""
        index = Index(self.sets, self.first, references)
        blocks = range(0, len(wanted), BLOCK)
        found = [
            index.has_near(wanted[start : start + BLOCK], self.threshold)
            for start in tqdm(blocks, desc="near-duplicates", unit="block", disable=None, leave=False)
        ]
        return np.concatenate([np.zeros(0, bool), *found])


def near_any(texts: Sequence[str], references: Iterable[str], threshold: float, min_words: int) -> list[bool]:
    """For each text whether one of the references is near to it. Texts of fewer than `min_words` words never are."""
    held = sorted(set(references))
    compared = Texts([*texts, *held], threshold, min_words)
    return compared.near(np.arange(len(texts)), np.arange(len(texts), len(texts) + len(held))).tolist()


def bigrams(texts: Iterable[str], min_words: int) -> tuple[Sets, NDArray[np.int64]]:
    """(the sets of pairs of adjacent words, empty for texts of fewer than `min_words`; a number that equal texts share).

    Texts are equal if their words are, or if they have none and are equal as they stand (the numbers are 64 bits,
    and others in another process).
    """
    hashes, sizes, same = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)], array("q")
    rest = iter(texts)
    while block := list(islice(rest, BLOCK)):
        numbers, lengths = array("q"), []
        for text in block:
            found = words(text)
            same.append(hash(tuple(found) or text))
            numbers.extend(map(hash, found if len(found) >= min_words else ()))
            lengths.append(len(found) if len(found) >= min_words else 0)
        owners = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
        each = np.frombuffer(numbers, np.int64).view(np.uint64)
        pairs = (_mixed(each[:-1]) + each[1:])[owners[:-1] == owners[1:]]
        tagged = _distinct(_tagged(owners[:-1][owners[:-1] == owners[1:]], _mixed(pairs) >> np.uint64(64 - HASH_BITS)))
        hashes.append(tagged & np.uint64(2**HASH_BITS - 1))
        sizes.append(np.bincount((tagged >> np.uint64(HASH_BITS)).astype(np.int64), minlength=len(lengths)))
    return Sets(np.concatenate(hashes), np.cumsum(np.concatenate(sizes))), np.frombuffer(same, np.int64)


def _distinct(numbers: Numbers) -> Numbers:
    """In ascending order, each once (np.unique hashes since NumPy 2.3, which takes ten times as long here)."""
    ordered = np.sort(numbers)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def _mixed(numbers: Numbers) -> Numbers:
    """Each number's bits spread over all 64 (the finalizer of splitmix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _tagged(owners: Numbers, numbers: Numbers) -> Numbers:
    """Numbers of 50 bits with their owner's (14 bits) before them: sorted, they stand text by text."""
    return (owners << np.uint64(HASH_BITS)) | numbers


def _bucket(hashes: Numbers) -> Places:
    return (hashes >> np.uint64(HASH_BITS - 22)).astype(np.int64)


def prefixes(sets: Sets, threshold: float) -> Sets:
    """Per text its |x| - ceil(t |x|) + 1 rarest bigrams, rarest first; how rare one is, is counted to 22 bits of its hash."""
    counts = np.bincount(_bucket(sets.hashes), minlength=2**22)
    sizes = sets.sizes
    kept = np.where(sizes > 0, sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1, 0)
    keys = [np.zeros(0, np.uint64)]
    for start in range(0, len(sizes), BLOCK):
        stop = min(start + BLOCK, len(sizes))
        hashes = sets.hashes[sets.starts[start] : sets.starts[stop]]
        often = np.minimum(counts[_bucket(hashes)], 2**COUNT_BITS - 1).astype(np.uint64)
        ranked = (often << np.uint64(HASH_BITS - COUNT_BITS)) | (hashes >> np.uint64(COUNT_BITS))
        owners = np.repeat(np.arange(stop - start), sizes[start:stop])
        tagged = np.sort(_tagged(owners.astype(np.uint64), ranked))
        place = np.arange(len(tagged)) - (sets.starts[start:stop] - sets.starts[start])[owners]
        keys.append((tagged & np.uint64(2**HASH_BITS - 1))[place < kept[start:stop][owners]])
    return Sets(np.concatenate(keys), np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)]))


class Index:
    """The references, found by the bigrams of their prefixes."""

    def __init__(self, sets: Sets, first: Sets, references: Places) -> None:
        self.sets, self.first = sets, first
        sizes = first.sizes[references]
        place = counted(sizes)
        keys = first.hashes[np.repeat(first.starts[references], sizes) + place]
        order = np.argsort(keys, kind="stable")
        self.keys, self.place, self.owners = keys[order], place[order], np.repeat(references, sizes)[order]

    def has_near(self, rows: Places, threshold: float) -> NDArray[np.bool_]:
        """For each of the rows whether a reference is near to it."""
        found = np.zeros(len(rows), bool)
        tried = np.zeros(0, np.uint64)
        lengths = self.first.sizes[rows]
        for place in range(int(lengths.max(initial=0))):
            active = np.flatnonzero(~found & (lengths > place))
            keys = self.first.hashes[self.first.starts[rows[active]] + place]
            low, high = np.searchsorted(self.keys, keys, "left"), np.searchsorted(self.keys, keys, "right")
            for some, entries in _pieces(active, low, high, found):
                likely = self._may_be_near(rows[some], place, entries, threshold)
                owners = self.owners[entries[likely]].astype(np.uint64)
                codes = _distinct((some[likely].astype(np.uint64) << np.uint64(40)) | owners)
                codes = codes[~np.isin(codes, tried, assume_unique=True)]
                tried = _distinct(np.concatenate([tried, codes]))
                some, y = (codes >> np.uint64(40)).astype(np.int64), (codes & np.uint64(2**40 - 1)).astype(np.int64)
                found[some[jaccard(self.sets, rows[some], y) >= threshold - 1e-9]] = True
        return found

    def _may_be_near(self, x: Places, place: int, entries: Places, t: float) -> NDArray[np.bool_]:
        """Whether what both sets hold from the shared bigram on leaves room for the overlap that t asks for."""
        a, b = self.sets.sizes[x], self.sets.sizes[self.owners[entries]]
        return np.minimum(a - place, b - self.place[entries]) >= np.ceil(t / (1 + t) * (a + b) - 1e-9)


def _pieces(active: Places, low: Places, high: Places, found: NDArray[np.bool_]) -> Iterator[tuple[Places, Places]]:
    """(row, entry) pairs of the index entries low to high of each active row: a few of each first, more where none was near."""
    step, depth = 8, 0
    while len(active):
        going = ~found[active] & (low + depth < high)
        active, low, high = active[going], low[going], high[going]
        width = max(1, PAIRS // step)
        for start in range(0, len(active), width):
            some = slice(start, start + width)
            takes = np.minimum(high[some] - low[some] - depth, step)
            yield np.repeat(active[some], takes), np.repeat(low[some] + depth, takes) + counted(takes)
        depth, step = depth + step, min(8 * step, 4096)


def jaccard(sets: Sets, x: Places, y: Places) -> NDArray[np.float64]:
    """The similarity of each text x to the text y beside it."""
    similarity = np.zeros(len(x))
    for start in range(0, len(x), BLOCK):
        pair = slice(start, start + BLOCK)
        both = np.sort(np.concatenate([_gathered(sets, x[pair]), _gathered(sets, y[pair])]))
        owners = (both[1:][both[1:] == both[:-1]] >> np.uint64(HASH_BITS)).astype(np.int64)
        shared = np.bincount(owners, minlength=len(x[pair]))
        similarity[pair] = shared / (sets.sizes[x[pair]] + sets.sizes[y[pair]] - shared)
    return similarity


def _gathered(sets: Sets, rows: Places) -> Numbers:
    """The bigrams of the rows, each tagged with its row's place among them."""
    sizes = sets.sizes[rows]
    owners = np.repeat(np.arange(len(rows)), sizes)
    return _tagged(owners.astype(np.uint64), sets.hashes[sets.starts[rows][owners] + counted(sizes)])


def counted(sizes: Places) -> Places:
    """0, 1, … up to each size, one after the other."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
