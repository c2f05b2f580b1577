"""The texts of one field, question or answer, of all rows, and their exact and near-duplicates."""

from collections.abc import Sequence

import numpy as np

from pipeline.config.params import NearDuplicates
from pipeline.format.bigrams import Indices, bigram_sets, concatenated_ranges
from pipeline.format.components import Components
from pipeline.format.near_duplicates import Mask, NearDuplicateSearch
from pipeline.format.shared_text import SharedText, without_shared_text


class FieldTexts:
    """The texts of a field. Text i belongs to row `row_of[i]`; `offsets` has each row's first text.

    Only texts of at least format.near.min_words words are compared by bigrams. Texts with the same words are equal; of
    shorter texts, only the first one of a row's question is compared for equality: short answers and follow-ups, such as
    "Yes.", repeat by nature.
    """

    def __init__(self, texts: Sequence[Sequence[str]], is_question: bool, near: NearDuplicates) -> None:
        sizes = np.array([len(own) for own in texts], np.int64)
        self.near = near
        self.offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        self.row_of = np.repeat(np.arange(len(texts)), sizes)
        self.sets, self.hashes = bigram_sets((text for own in texts for text in own), near.min_words)
        self.compares_equal = self.sets.sizes > 0
        if is_question:
            self.compares_equal |= concatenated_ranges(sizes) == 0
        self.shared: list[SharedText] = []
        self._search: NearDuplicateSearch | None = None

    @property
    def search(self) -> NearDuplicateSearch:
        if self._search is None:
            self._search = NearDuplicateSearch(self.sets, self.near.threshold)
        return self._search

    def components(self) -> Components:
        """The components of rows that are linked by equal texts and, with format.near.enabled, by near ones."""
        return self.components_of(np.arange(len(self.offsets) - 1))

    def components_of(self, rows: Indices) -> Components:
        """The same of some rows. The labels are of all rows; each other row is a component of its own."""
        found = Components(len(self.offsets) - 1)
        texts = self.texts_of(rows)
        equal = texts[self.compares_equal[texts]]
        found.unite_equal(self.hashes[equal], self.row_of[equal])
        if self.near.enabled:
            _, firsts = np.unique(self.hashes[texts], return_index=True)  # equal texts need one search
            distinct = texts[np.sort(firsts)]
            distinct = distinct[self.sets.sizes[distinct] > 0]
            found.unite_near(self.search, distinct, self.row_of[distinct])
        return found

    def leave_out_shared_text(self, texts: Sequence[Sequence[str]]) -> Components:
        """The components of all rows, after text that makes most rows near-duplicates of each other is left out.

        Such text, the instruction of a task for example, is from then on left out of all comparisons by bigrams.
        """
        found = self.components()
        while self.near.enabled:
            sets, shared = without_shared_text(self, found.labels, texts)
            if not shared:
                break
            self.shared += shared
            # What is left of a follow-up turn, such as "Please answer in JSON", is then no question of its own.
            is_first = np.zeros(len(self.hashes), bool)
            is_first[self.offsets[:-1][np.diff(self.offsets) > 0]] = True
            self.compares_equal &= is_first | (sets.sizes > 0)
            self.sets, self._search = sets, None
            found = self.components()
        return found

    def texts_of(self, rows: Indices) -> Indices:
        """The indices of the texts of the rows."""
        sizes = self.offsets[rows + 1] - self.offsets[rows]
        texts: Indices = np.repeat(self.offsets[rows], sizes) + concatenated_ranges(sizes)
        return texts

    def find_near(self, rows: Indices, others: Indices) -> Indices:
        """For each of the rows, one of `others` that has a near-duplicate of one of its texts; -1: there is none."""
        texts = self.texts_of(rows)
        return self._rows_of_matches(rows, texts, self.search.find_near(texts, self.texts_of(others)))

    def find_equal(self, rows: Indices, others: Indices) -> Indices:
        """For each of the rows, one of `others` that has a text of the same words; -1: there is none."""
        texts, references = self.texts_of(rows), self.texts_of(others)
        texts, references = texts[self.compares_equal[texts]], references[self.compares_equal[references]]
        matches = np.full(len(texts), -1, np.int64)
        if len(references):
            hashes, firsts = np.unique(self.hashes[references], return_index=True)
            places = np.minimum(np.searchsorted(hashes, self.hashes[texts]), len(hashes) - 1)
            is_equal: Mask = hashes[places] == self.hashes[texts]
            matches[is_equal] = references[firsts[places[is_equal]]]
        return self._rows_of_matches(rows, texts, matches)

    def _rows_of_matches(self, rows: Indices, texts: Indices, matches: Indices) -> Indices:
        """For each of the rows, the row of the text that matches one of its own texts; -1: there is none."""
        found = np.full(len(self.offsets) - 1, -1, np.int64)
        has_match = matches >= 0
        found[self.row_of[texts[has_match]]] = self.row_of[matches[has_match]]
        return found[rows]
