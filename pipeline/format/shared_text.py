"""Finds text that makes many rows near-duplicates of each other although they differ in content: prompt templates.

If every question begins with the same long instruction, comparing whole questions makes one component of all rows, which
cannot be split. Within such a component, the bigrams that most of its texts share are left out, and the rest decides.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.format.bigrams import BigramSets, Hashes, Indices, concatenated_ranges, ordered_bigrams, tag_with_owner
from pipeline.format.cluster_size import MIN_OTHER_ROWS, large_clusters
from pipeline.records.text import words

if TYPE_CHECKING:
    from pipeline.format.field_texts import FieldTexts

MIN_TEXTS = 3  # different texts that a template has at least: one for each split
BLOCK_TEXTS = 8192  # less than 2**14, see tag_with_owner


class SharedText(NamedTuple):
    """Text that was left out of the comparison of some rows."""

    rows: int
    text: str  # an example of the words that were left out


def without_shared_text(
    field: "FieldTexts", labels: Indices, texts: Sequence[Sequence[str]]
) -> tuple[BigramSets, list[SharedText]]:
    """(the field's sets of bigrams without those that a template makes up, the templates); (its sets, []) without any.

    A component is a template with contents if it is too large to be held out (cluster_size.py), or has more than half of
    the rows, and most of its texts have a content of their own: a run of at least format.near.min_words bigrams that most
    do not share. Texts that differ in shorter runs, such as a date or a name, are variants of one text instead. Only if
    the large components leave too few rows to split, short contents count as well: texts with less content than min_words
    are then compared for equality only.
    """
    large, accepts_short = large_clusters(labels, field.near.max_cluster_rows)
    counts = np.bincount(labels, minlength=len(labels))
    if not len(large) and 2 * counts.max() > len(labels):  # of fewer rows than a large one has at least
        large = np.array([counts.argmax()])
        accepts_short = bool(counts.max() > (1 - MIN_OTHER_ROWS) * len(labels))
    is_kept = np.ones(len(field.sets.hashes), bool)
    found = []
    for label in large:
        members = field.texts_of(np.flatnonzero(labels == label))
        members = members[field.sets.sizes[members] > 0]
        if len(np.unique(field.hashes[members])) < MIN_TEXTS:
            continue
        shared = _shared_bigrams(field.sets, members)
        places = _places(field.sets, members)
        is_shared = np.isin(field.sets.hashes[places], shared)
        if 2 * is_shared.sum() < len(places) or not (
            accepts_short or _most_have_content(field, members, shared, texts)
        ):
            continue  # linked by something else, or variants of one text
        is_kept[places[is_shared]] = False
        found.append(SharedText(int(counts[label]), _example(texts, field, int(members[0]), shared)))
    return (_filtered(field, is_kept), found) if found else (field.sets, [])


def _places(sets: BigramSets, texts: Indices) -> Indices:
    """The places of the bigrams of the texts in sets.hashes."""
    sizes = sets.sizes[texts]
    places: Indices = np.repeat(sets.offsets[texts], sizes) + concatenated_ranges(sizes)
    return places


def _shared_bigrams(sets: BigramSets, texts: Indices) -> Hashes:
    """The bigrams that more than half of the texts have, ascending."""
    bigrams, counts = np.unique(sets.hashes[_places(sets, texts)], return_counts=True)
    shared: Hashes = bigrams[2 * counts > len(texts)]
    return shared


def _most_have_content(field: "FieldTexts", members: Indices, shared: Hashes, texts: Sequence[Sequence[str]]) -> bool:
    """Whether more than half of the texts have a run of at least min_words bigrams of their own."""
    with_content = 0
    for start in range(0, len(members), BLOCK_TEXTS):
        block = members[start : start + BLOCK_TEXTS]
        bigrams, owners = ordered_bigrams([_text_at(field, texts, int(index)) for index in block])
        compared = tag_with_owner(
            np.repeat(np.arange(len(block), dtype=np.uint64), field.sets.sizes[block]),
            field.sets.hashes[_places(field.sets, block)],
        )
        is_own = np.isin(tag_with_owner(owners, bigrams), compared) & ~np.isin(bigrams, shared)
        is_break = ~is_own
        is_break[1:] |= owners[1:] != owners[:-1]
        runs = np.bincount(np.cumsum(is_break), weights=is_own, minlength=1)
        owner_of_run = np.zeros(len(runs), np.int64)
        owner_of_run[np.cumsum(is_break)] = owners.astype(np.int64)
        with_content += len(np.unique(owner_of_run[runs >= field.near.min_words]))
    return 2 * with_content > len(members)


def _text_at(field: "FieldTexts", texts: Sequence[Sequence[str]], index: int) -> str:
    row = int(field.row_of[index])
    return texts[row][index - int(field.offsets[row])]


def _example(texts: Sequence[Sequence[str]], field: "FieldTexts", index: int, shared: Hashes) -> str:
    """The longest run of words in the text of which all bigrams are shared."""
    text = _text_at(field, texts, index)
    tokens = words(text)
    is_shared = np.isin(ordered_bigrams([text])[0], shared)
    best, start = (0, 0), 0
    for position, shares in enumerate([*is_shared.tolist(), False]):
        if not shares:
            best = max(best, (position - start, -start))
            start = position + 1
    return " ".join(tokens[-best[1] : best[0] - best[1] + 1])


def _filtered(field: "FieldTexts", is_kept: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> BigramSets:
    """The field's sets with the kept bigrams only; texts that have lost some and have fewer than min_words get none."""
    sets = field.sets
    owners = np.repeat(np.arange(len(sets.sizes)), sets.sizes)
    left = np.bincount(owners[is_kept], minlength=len(sets.sizes))
    is_too_short = (left < sets.sizes) & (left < field.near.min_words)
    is_kept &= ~is_too_short[owners]
    sizes = np.bincount(owners[is_kept], minlength=len(sets.sizes))
    return BigramSets(sets.hashes[is_kept], np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]))
