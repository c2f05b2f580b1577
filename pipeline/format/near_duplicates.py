"""Near-duplicate texts: all pairs whose word bigrams have a Jaccard similarity of at least a threshold.

Jaccard similarity of two sets: the size of their intersection over that of their union. A pair at or above the
threshold t must share one of the first |x| - ceil(t |x|) + 1 elements of either set, in any fixed order of all
elements; with the rarest first, few other pairs do. This prefix filter (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and
Srikant 2007, "Scaling Up All Pairs Similarity Search") only saves work: unlike MinHash it misses no pair.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.format.bigrams import HASH_BITS, Numbers, Places, Sets, bigrams, concatenated_ranges, tag_with_owner

BLOCK = 8192  # texts compared with all references at a time
PAIRS = 2**19  # candidate pairs looked at together
COUNT_BITS, SIZE_BITS = 12, 14


class ComparedTexts:
    """Texts to be compared among each other, each known by its place; those of fewer than `min_words` words are near to none."""

    def __init__(self, texts: Iterable[str], threshold: float, min_words: int) -> None:
        self.threshold = threshold
        self.sets, self.same = bigrams(texts, min_words)
        self.first = rarest_prefixes(self.sets, threshold)

    def near(self, wanted: Places, references: Places) -> NDArray[np.bool_]:
        """For each wanted text whether one of the references is near to it; both are places."""
        index = PrefixIndex(self.sets, self.first, references)
        blocks = range(0, len(wanted), BLOCK)
        found = [
            index.has_near(wanted[start : start + BLOCK], self.threshold)
            for start in tqdm(blocks, desc="near-duplicates", unit="block", disable=None, leave=False)
        ]
        return np.concatenate([np.zeros(0, bool), *found])


def find_near_duplicates(
    texts: Sequence[str], references: Iterable[str], threshold: float, min_words: int
) -> list[bool]:
    """For each text whether one of the references is near to it. Texts of fewer than `min_words` words never are."""
    held = sorted(set(references))
    compared = ComparedTexts([*texts, *held], threshold, min_words)
    return compared.near(np.arange(len(texts)), np.arange(len(texts), len(texts) + len(held))).tolist()


def _bucket(hashes: Numbers) -> Places:
    return (hashes >> np.uint64(HASH_BITS - 22)).astype(np.int64)


def rarest_prefixes(sets: Sets, threshold: float) -> Sets:
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
        ordered = np.sort(tag_with_owner(owners.astype(np.uint64), ranked))
        place = concatenated_ranges(sizes[start:stop])
        keys.append((ordered & np.uint64(2**HASH_BITS - 1))[place < kept[start:stop][owners]])
    return Sets(np.concatenate(keys), np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)]))


class PrefixIndex:
    """The references, found by the bigrams of their prefixes; those that share one are ordered by their size."""

    def __init__(self, sets: Sets, first: Sets, references: Places) -> None:
        self.sets, self.first = sets, first
        sizes = first.sizes[references]
        place, owners = concatenated_ranges(sizes), np.repeat(references, sizes)
        keys = _sized(first.hashes[np.repeat(first.starts[references], sizes) + place], sets.sizes[owners])
        order = np.argsort(keys, kind="stable")
        self.keys, self.place, self.owners = keys[order], place[order], owners[order]

    def has_near(self, rows: Places, threshold: float) -> NDArray[np.bool_]:
        """For each of the rows whether a reference is near to it."""
        found = np.zeros(len(rows), bool)
        lengths = self.first.sizes[rows]
        for place in range(int(lengths.max(initial=0))):
            active = np.flatnonzero(~found & (lengths > place))
            low, high = self._entries(rows[active], place, threshold)
            for some, entries in _pieces(active, low, high, found):
                likely = self._may_be_near(rows[some], place, entries, threshold)
                some, y = some[likely], self.owners[entries[likely]]
                alike = self._look_alike(rows[some], y, threshold)
                some, y = some[alike], y[alike]
                found[some[jaccard(self.sets, rows[some], y) >= threshold - 1e-9]] = True
        return found

    def _entries(self, x: Places, place: int, t: float) -> tuple[Places, Places]:
        """(first, last + 1) of the entries that share the bigram at `place` and are neither too short nor too long."""
        keys, sizes = self.first.hashes[self.first.starts[x] + place], self.sets.sizes[x]
        shortest = np.ceil(t * sizes - 1e-9).astype(np.int64)
        longest = np.floor((sizes - place) * (1 + t) / t - sizes + 1e-9).astype(np.int64)
        low = np.searchsorted(self.keys, _sized(keys, shortest), "left")
        return low, np.maximum(low, np.searchsorted(self.keys, _sized(keys, np.maximum(longest, 0)), "right"))

    def _may_be_near(self, x: Places, place: int, entries: Places, t: float) -> NDArray[np.bool_]:
        """Whether what both sets hold from the shared bigram on leaves room for the overlap that t asks for."""
        a, b = self.sets.sizes[x], self.sets.sizes[self.owners[entries]]
        return np.minimum(a - place, b - self.place[entries]) >= _overlap(a, b, t)

    def _look_alike(self, x: Places, y: Places, t: float) -> NDArray[np.bool_]:
        """Whether the bitmaps differ in no more bits than the sets may in bigrams (each has a bit, some share one)."""
        a, b = self.sets.sizes[x], self.sets.sizes[y]
        differing = np.bitwise_count(self.sets.bitmaps[x] ^ self.sets.bitmaps[y]).sum(axis=1, dtype=np.int64)
        return differing <= a + b - 2 * _overlap(a, b, t)


def _sized(hashes: Numbers, sizes: Places) -> Numbers:
    return (hashes << np.uint64(SIZE_BITS)) | np.minimum(sizes, 2**SIZE_BITS - 1).astype(np.uint64)


def _overlap(a: Places, b: Places, t: float) -> NDArray[np.float64]:
    """What sets of these sizes must have in common for a similarity of t."""
    return np.ceil(t / (1 + t) * (a + b) - 1e-9)


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
            yield np.repeat(active[some], takes), np.repeat(low[some] + depth, takes) + concatenated_ranges(takes)
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
    return tag_with_owner(owners.astype(np.uint64), sets.hashes[sets.starts[rows][owners] + concatenated_ranges(sizes)])
