"""Near-duplicate search: all pairs of texts with a Jaccard similarity of word bigrams at or above a threshold.

The Jaccard similarity of two sets is the size of their intersection over the size of their union. A pair at or above the
threshold t must share one of the first |x| - ceil(t |x|) + 1 elements of either set, in any fixed order of all elements. With
the rarest elements first, few other pairs do. This prefix filter (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant
2007, "Scaling Up All Pairs Similarity Search") only saves work: unlike MinHash, it misses no pair.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.format.bigrams import (
    HASH_BITS,
    BigramSets,
    Hashes,
    Indices,
    bigram_sets,
    concatenated_ranges,
    tag_with_owner,
)

BLOCK_TEXTS = 8192  # compared with all references at a time; less than 2**14, see tag_with_owner
CHUNK_PAIRS = 2**19  # candidate pairs checked at a time
COUNT_BITS, SIZE_BITS = 12, 14
ROUNDING = 1e-9  # tolerance of comparisons with products of the threshold
Mask = NDArray[np.bool_]


class NearDuplicateSearch:
    """Texts to compare with each other, by index. Texts with an empty set of bigrams have no near-duplicates."""

    def __init__(self, sets: BigramSets, threshold: float) -> None:
        self.sets, self.threshold = sets, threshold
        self.prefixes = rarest_prefixes(sets, threshold)

    def find_near(self, indices: Indices, reference_indices: Indices) -> Indices:
        """For each of the texts at `indices`, the index of a reference that is a near-duplicate of it; -1: there is none."""
        index = PrefixIndex(self.sets, self.prefixes, reference_indices)
        blocks = range(0, len(indices), BLOCK_TEXTS)
        matches = [
            index.find_near(indices[start : start + BLOCK_TEXTS], self.threshold)
            for start in tqdm(blocks, desc="near-duplicates", unit="block", disable=None, leave=False)
        ]
        return np.concatenate([np.zeros(0, np.int64), *matches])


def find_near_duplicates(
    texts: Sequence[str], references: Iterable[str], threshold: float, min_words: int
) -> list[bool]:
    """For each text, whether one of the references is a near-duplicate of it; never for fewer than `min_words` words."""
    distinct = sorted(set(references))
    sets, _ = bigram_sets([*texts, *distinct], min_words)
    search = NearDuplicateSearch(sets, threshold)
    matches = search.find_near(np.arange(len(texts)), np.arange(len(texts), len(texts) + len(distinct)))
    is_near: list[bool] = (matches >= 0).tolist()
    return is_near


def _bucket(hashes: Hashes) -> Indices:
    return (hashes >> np.uint64(HASH_BITS - 22)).astype(np.int64)


def rarest_prefixes(sets: BigramSets, threshold: float) -> BigramSets:
    """For each text, its |x| - ceil(t |x|) + 1 rarest bigrams, rarest first. Bigrams are counted by 22 bits of their hash."""
    counts = np.bincount(_bucket(sets.hashes), minlength=2**22)
    sizes = sets.sizes
    lengths = np.where(sizes > 0, sizes - np.ceil(threshold * sizes - ROUNDING).astype(np.int64) + 1, 0)
    prefixes = [np.zeros(0, np.uint64)]
    for start in range(0, len(sizes), BLOCK_TEXTS):
        stop = min(start + BLOCK_TEXTS, len(sizes))
        hashes = sets.hashes[sets.offsets[start] : sets.offsets[stop]]
        frequencies = np.minimum(counts[_bucket(hashes)], 2**COUNT_BITS - 1).astype(np.uint64)
        ranked = (frequencies << np.uint64(HASH_BITS - COUNT_BITS)) | (hashes >> np.uint64(COUNT_BITS))
        owners = np.repeat(np.arange(stop - start), sizes[start:stop])
        ordered = np.sort(tag_with_owner(owners.astype(np.uint64), ranked))
        positions = concatenated_ranges(sizes[start:stop])
        prefixes.append((ordered & np.uint64(2**HASH_BITS - 1))[positions < lengths[start:stop][owners]])
    return BigramSets(np.concatenate(prefixes), np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))


class PrefixIndex:
    """An inverted index from the bigrams in prefixes to the references. Entries of one bigram are ordered by set size."""

    def __init__(self, sets: BigramSets, prefixes: BigramSets, reference_indices: Indices) -> None:
        self.sets, self.prefixes = sets, prefixes
        lengths = prefixes.sizes[reference_indices]
        positions, owners = concatenated_ranges(lengths), np.repeat(reference_indices, lengths)
        hashes = prefixes.hashes[np.repeat(prefixes.offsets[reference_indices], lengths) + positions]
        keys = sort_keys(hashes, sets.sizes[owners])
        order = np.argsort(keys, kind="stable")
        self.keys, self.positions, self.owners = keys[order], positions[order], owners[order]

    def find_near(self, indices: Indices, threshold: float) -> Indices:
        """For each of the texts at `indices`, a reference that is a near-duplicate of it; -1: there is none."""
        matches = np.full(len(indices), -1, np.int64)
        lengths = self.prefixes.sizes[indices]
        for position in range(int(lengths.max(initial=0))):
            active = np.flatnonzero((matches < 0) & (lengths > position))
            low, high = self._entry_ranges(indices[active], position, threshold)
            for rows, entries in _candidate_chunks(active, low, high, matches):
                x, y = indices[rows], self.owners[entries]
                is_near = are_near(self.sets, threshold, x, y, position, self.positions[entries])
                matches[rows[is_near]] = y[is_near]
        return matches

    def _entry_ranges(self, x: Indices, position: int, t: float) -> tuple[Indices, Indices]:
        """(first, last + 1) of the entries that share the bigram at `position` and have a set of possible size."""
        hashes, sizes = self.prefixes.hashes[self.prefixes.offsets[x] + position], self.sets.sizes[x]
        smallest, largest = possible_sizes(sizes, position, t)
        low = np.searchsorted(self.keys, sort_keys(hashes, smallest), "left")
        return low, np.maximum(low, np.searchsorted(self.keys, sort_keys(hashes, largest), "right"))


def sort_keys(hashes: Hashes, sizes: Indices) -> Hashes:
    """Sort keys: by bigram, then by the size of the set."""
    capped = np.minimum(sizes, 2**SIZE_BITS - 1).astype(np.uint64)
    keys: Hashes = (hashes << np.uint64(SIZE_BITS)) | capped
    return keys


def possible_sizes(sizes: Indices, positions: Indices | int, t: float) -> tuple[Indices, Indices]:
    """(least, greatest) size of a set that can have a similarity of t with one of `sizes` and shares no earlier bigram.

    `positions` are those of the shared bigram in the prefix.
    """
    smallest = np.ceil(t * sizes - ROUNDING).astype(np.int64)
    largest = np.floor((sizes - positions) * (1 + t) / t - sizes + ROUNDING).astype(np.int64)
    return smallest, np.maximum(largest, 0)


def are_near(
    sets: BigramSets, t: float, x: Indices, y: Indices, x_positions: Indices | int, y_positions: Indices
) -> Mask:
    """Whether each pair x[i], y[i] has a similarity of at least t. The cheap tests rule out most pairs first.

    The positions are those of a bigram in the pair's prefixes, before which the pair shares none.
    """
    a, b = sets.sizes[x], sets.sizes[y]
    required = _required_overlap(a, b, t)
    pairs = np.flatnonzero(np.minimum(a - x_positions, b - y_positions) >= required)  # enough bigrams are left
    differing = np.bitwise_count(sets.bitmaps[x[pairs]] ^ sets.bitmaps[y[pairs]]).sum(axis=1, dtype=np.int64)
    # Each bigram sets one bit, some the same: bitmaps differ in no more bits than the sets may in bigrams.
    pairs = pairs[differing <= (a + b - 2 * required)[pairs]]
    is_near = np.zeros(len(x), bool)
    is_near[pairs[jaccard_similarity(sets, x[pairs], y[pairs]) >= t - ROUNDING]] = True
    return is_near


def _required_overlap(a: Indices, b: Indices, t: float) -> NDArray[np.float64]:
    """The least size of the intersection of sets of sizes a and b that have a similarity of t."""
    overlap: NDArray[np.float64] = np.ceil(t / (1 + t) * (a + b) - ROUNDING)
    return overlap


def _candidate_chunks(
    active: Indices, low: Indices, high: Indices, matches: Indices
) -> Iterator[tuple[Indices, Indices]]:
    """Yield (rows, entries) pairs for the index entries low to high of each active row.

    Each row starts with a few entries. More follow only while the caller has found no match for it.
    """
    step, depth = 8, 0
    while len(active):
        is_open = (matches[active] < 0) & (low + depth < high)
        active, low, high = active[is_open], low[is_open], high[is_open]
        width = max(1, CHUNK_PAIRS // step)
        for start in range(0, len(active), width):
            rows = slice(start, start + width)
            counts = np.minimum(high[rows] - low[rows] - depth, step)
            yield np.repeat(active[rows], counts), np.repeat(low[rows] + depth, counts) + concatenated_ranges(counts)
        depth, step = depth + step, min(8 * step, 4096)


def jaccard_similarity(sets: BigramSets, x: Indices, y: Indices) -> NDArray[np.float64]:
    """The similarity of each pair x[i], y[i]."""
    similarity = np.zeros(len(x))
    for start in range(0, len(x), BLOCK_TEXTS):
        pairs = slice(start, start + BLOCK_TEXTS)
        both = np.sort(np.concatenate([_tagged_hashes(sets, x[pairs]), _tagged_hashes(sets, y[pairs])]))
        owners = (both[1:][both[1:] == both[:-1]] >> np.uint64(HASH_BITS)).astype(np.int64)
        shared = np.bincount(owners, minlength=len(x[pairs]))
        similarity[pairs] = shared / (sets.sizes[x[pairs]] + sets.sizes[y[pairs]] - shared)
    return similarity


def _tagged_hashes(sets: BigramSets, indices: Indices) -> Hashes:
    """The bigrams of the texts at `indices`, each tagged with its text's position in `indices`."""
    sizes = sets.sizes[indices]
    owners = np.repeat(np.arange(len(indices)), sizes)
    hashes = sets.hashes[sets.offsets[indices][owners] + concatenated_ranges(sizes)]
    return tag_with_owner(owners.astype(np.uint64), hashes)
