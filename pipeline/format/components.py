"""Connected components of near-duplicates: rows that are linked by a chain of near-duplicate texts.

Every pair that could be near is verified, unless a chain already links it, so that many copies of one text take no longer than
as many different ones.
"""

from collections.abc import Iterator

import numpy as np

from pipeline.format.bigrams import Hashes, Indices, concatenated_ranges
from pipeline.format.near_duplicates import (
    CHUNK_PAIRS,
    SIZE_BITS,
    NearDuplicateSearch,
    PrefixIndex,
    are_near,
    possible_sizes,
    sort_keys,
)

BLOCK_ENTRIES = 2**20  # of the index, searched at a time, unless a single bigram has more


class Components:
    """A partition of rows. `labels` (rows,) has the lowest row of each row's component.

    `linked_to` (rows,) has a row that `unite` was given together with the row; -1: there is none.
    """

    def __init__(self, count: int) -> None:
        self.labels = np.arange(count)
        self.linked_to = np.full(count, -1, np.int64)

    def unite(self, first: Indices, second: Indices) -> None:
        """Join the components of first[i] and second[i], for each i."""
        for one, other in ((first, second), (second, first)):
            is_new = (self.linked_to[one] < 0) & (one != other)
            self.linked_to[one[is_new]] = other[is_new]
        while True:
            roots, others = self.labels[first], self.labels[second]
            differ = roots != others
            if not differ.any():
                return
            first, second, roots, others = first[differ], second[differ], roots[differ], others[differ]
            np.minimum.at(self.labels, np.maximum(roots, others), np.minimum(roots, others))
            while (self.labels != (parents := self.labels[self.labels])).any():
                self.labels = parents

    def unite_equal(self, keys: Hashes | Indices, rows: Indices) -> None:
        """Join the components of all rows with the same key: keys[i] is a key of rows[i]."""
        order = np.argsort(keys, kind="stable")
        is_same = keys[order[1:]] == keys[order[:-1]]
        self.unite(rows[order[:-1][is_same]], rows[order[1:][is_same]])

    def unite_near(self, search: NearDuplicateSearch, texts: Indices, rows: Indices) -> None:
        """Join the components of all rows that have near-duplicates among `texts`: texts[i] is a text of rows[i]."""
        index = PrefixIndex(search.sets, search.prefixes, texts)
        row_of = np.full(len(search.sets.sizes), -1, np.int64)
        row_of[texts] = rows
        for start, stop in _blocks(index.keys >> np.uint64(SIZE_BITS)):
            self._unite_near_in_block(search, index, start, stop, row_of)

    def _unite_near_in_block(
        self, search: NearDuplicateSearch, index: PrefixIndex, start: int, stop: int, row_of: Indices
    ) -> None:
        """Search the entries start to stop of the index. Each is compared with the earlier ones of its bigram."""
        keys, texts, positions = index.keys[start:stop], index.owners[start:stop], index.positions[start:stop]
        rows, bigrams = row_of[texts], keys >> np.uint64(SIZE_BITS)
        smallest, largest = possible_sizes(search.sets.sizes[texts], positions, search.threshold)
        low = np.searchsorted(keys, sort_keys(bigrams, smallest), "left")
        high = np.minimum(np.arange(len(keys)), np.searchsorted(keys, sort_keys(bigrams, largest), "right"))
        entries = np.flatnonzero(low < high)
        step = 8
        while len(entries):
            high[entries] = self._skip_own_component(entries, high[entries], rows, bigrams)
            entries = entries[low[entries] < high[entries]]
            width = max(1, CHUNK_PAIRS // step)
            for part in (entries[first : first + width] for first in range(0, len(entries), width)):
                counts = np.minimum(high[part] - low[part], step)
                x = np.repeat(part, counts)
                y = np.repeat(high[part], counts) - 1 - concatenated_ranges(counts)
                differ = self.labels[rows[x]] != self.labels[rows[y]]
                x, y = x[differ], y[differ]
                is_near = are_near(search.sets, search.threshold, texts[x], texts[y], positions[x], positions[y])
                self.unite(rows[x[is_near]], rows[y[is_near]])
                high[part] -= counts
            entries = entries[low[entries] < high[entries]]
            step = min(8 * step, 4096)

    def _skip_own_component(self, entries: Indices, high: Indices, rows: Indices, bigrams: Hashes) -> Indices:
        """`high`, or, where the entries just before it are of the component of the entry itself, the first of these."""
        labels = self.labels[rows]
        is_start = np.ones(len(rows), bool)
        is_start[1:] = (labels[1:] != labels[:-1]) | (bigrams[1:] != bigrams[:-1])
        run_starts = np.maximum.accumulate(np.where(is_start, np.arange(len(rows)), 0))
        is_own = labels[high - 1] == labels[entries]
        skipped: Indices = np.where(is_own, run_starts[high - 1], high)
        return skipped


def _blocks(bigrams: Hashes) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of blocks of about BLOCK_ENTRIES sorted values; equal values are in the same block."""
    start = 0
    while start < len(bigrams):
        stop = min(start + BLOCK_ENTRIES, len(bigrams))
        stop = int(np.searchsorted(bigrams, bigrams[stop - 1], "right"))
        yield start, stop
        start = stop
