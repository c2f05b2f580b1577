"""Sets of word bigrams as NumPy arrays of hashes, for the near-duplicate search.

A hash has 50 bits: among 20 million bigrams, less than one collision is expected, and a collision matters only for texts that
differ in just those bigrams. The hashes are the same in every process.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.records.text import words

BLOCK_TEXTS = 4096  # hashed at a time; less than 2**14, see tag_with_owner
BLOCK_CHARACTERS = 1 << 22  # in a block, unless a single text has more
HASH_BITS = 50
BITMAP_BITS = 512
HASH_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd; its powers weight the bytes of a word and the words of a text
IS_WORD_BYTE = np.zeros(256, bool)  # of the bytes that `_searchable_bytes` returns
IS_WORD_BYTE[np.frombuffer(b"abcdefghijklmnopqrstuvwxyz0123456789_", np.uint8)] = True
IS_WORD_BYTE[128:] = True
Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class BigramSets:
    """The distinct bigrams of texts. Those of text i are hashes[offsets[i] : offsets[i + 1]], in ascending order."""

    hashes: Hashes
    offsets: Indices

    @cached_property
    def sizes(self) -> Indices:
        return np.diff(self.offsets)

    @cached_property
    def bitmaps(self) -> Hashes:
        """(texts, BITMAP_BITS / 64): each bigram sets the bit that its hash selects. They rule out most pairs quickly."""
        bitmaps = [np.zeros((0, BITMAP_BITS // 64), np.uint64)]
        for start in range(0, len(self.sizes), BLOCK_TEXTS):
            sizes = self.sizes[start : start + BLOCK_TEXTS]
            hashes = self.hashes[self.offsets[start] : self.offsets[start] + sizes.sum()]
            bits = (hashes % np.uint64(BITMAP_BITS)).astype(np.int64)
            positions = np.repeat(np.arange(len(sizes)) * BITMAP_BITS, sizes) + bits
            is_set = np.bincount(positions, minlength=len(sizes) * BITMAP_BITS) > 0
            bitmaps.append(np.packbits(is_set).view(np.uint64).reshape(len(sizes), -1))
        return np.concatenate(bitmaps)


def bigram_sets(texts: Iterable[str], min_words: int) -> tuple[BigramSets, Hashes]:
    """(the texts' sets of adjacent word pairs, the texts' hashes). Texts of fewer than `min_words` words get an empty set.

    Texts have the same hash if their words are the same, or if they have no words and are the same strings.
    """
    bigrams, sizes, text_hashes = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)], [np.zeros(0, np.uint64)]
    for block in _blocks(texts):
        hashes, counts = word_hashes(block)
        text_hashes.append(_text_hashes(block, hashes, counts))
        pairs, owners = _word_pairs(hashes, counts, min_words)
        tagged = sorted_unique(tag_with_owner(owners, pairs))
        bigrams.append(tagged & np.uint64(2**HASH_BITS - 1))
        sizes.append(np.bincount((tagged >> np.uint64(HASH_BITS)).astype(np.int64), minlength=len(block)))
    return BigramSets(np.concatenate(bigrams), np.cumsum(np.concatenate(sizes))), np.concatenate(text_hashes)


def ordered_bigrams(texts: list[str]) -> tuple[Hashes, Hashes]:
    """(the bigrams of the texts in their order, repeated ones included, the position in `texts` of each one's text)."""
    return _word_pairs(*word_hashes(texts), min_words=2)


def _word_pairs(hashes: Hashes, counts: Indices, min_words: int) -> tuple[Hashes, Hashes]:
    owners = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    is_pair = (owners[:-1] == owners[1:]) & np.repeat(counts >= min_words, counts)[1:]
    pairs = splitmix64((splitmix64(hashes[:-1]) + hashes[1:])[is_pair]) >> np.uint64(64 - HASH_BITS)
    return pairs, owners[1:][is_pair]


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    block: list[str] = []
    characters = 0
    for text in texts:
        block.append(text)
        characters += len(text)
        if len(block) == BLOCK_TEXTS or characters > BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def word_hashes(texts: list[str]) -> tuple[Hashes, Indices]:
    """(the hashes of all words of all texts, the number of words of each text); words as pipeline.records.text has them."""
    encoded = [_searchable_bytes(text) for text in texts]
    buffer = np.frombuffer(b" ".join([*encoded, b""]), np.uint8)
    in_word = IS_WORD_BYTE[buffer]
    is_start = in_word.copy()
    is_start[1:] &= ~in_word[:-1]
    word_bytes = np.flatnonzero(in_word)
    starts = np.flatnonzero(is_start[word_bytes])  # first byte of each word, as an index into word_bytes
    positions = concatenated_ranges(np.diff(np.append(starts, len(word_bytes))))  # of each byte in its word
    weighted = buffer[word_bytes] * _powers(positions)[positions]
    hashes = np.add.reduceat(weighted, starts) if len(word_bytes) else np.zeros(0, np.uint64)
    ends = np.cumsum([len(text) + 1 for text in encoded])
    return hashes, np.bincount(np.searchsorted(ends, np.flatnonzero(is_start), "right"), minlength=len(texts))


def _searchable_bytes(text: str) -> bytes:
    """The text as bytes, in which words are the runs of ASCII letters, digits, _ and all bytes above ASCII."""
    normalized = text.lower() if text.isascii() else " ".join(words(text))
    return normalized.encode("utf-8", "surrogatepass")


def _text_hashes(texts: list[str], hashes: Hashes, counts: Indices) -> Hashes:
    """One hash for each text, from the hashes of its words, or from its bytes if it has none."""
    positions = concatenated_ranges(counts)
    text_hashes = np.zeros(len(texts), np.uint64)
    starts = np.cumsum(counts) - counts
    has_words = counts > 0
    if has_words.any():
        weighted = splitmix64(hashes) * _powers(positions)[positions]
        text_hashes[has_words] = np.add.reduceat(weighted, starts[has_words])
    for index in np.flatnonzero(~has_words):
        buffer = np.frombuffer(texts[index].encode("utf-8", "surrogatepass"), np.uint8)
        weighted = buffer * _powers(np.arange(len(buffer)))
        text_hashes[index] = splitmix64(weighted.sum(dtype=np.uint64, keepdims=True))[0]
    return text_hashes


def _powers(positions: Indices) -> Hashes:
    """HASH_BASE to the power of 1, 2, … up to the greatest position + 1."""
    return np.cumprod(np.full(int(positions.max(initial=0)) + 1, HASH_BASE), dtype=np.uint64)


def sorted_unique(values: Hashes) -> Hashes:
    """The distinct values in ascending order. (np.unique hashes since NumPy 2.3, which takes ten times as long here.)"""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def splitmix64(values: Hashes) -> Hashes:
    """Mix the bits of each value over all 64 (the finalizer of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def tag_with_owner(owners: Hashes, hashes: Hashes) -> Hashes:
    """50-bit hashes with the 14-bit index of their text above them: sorting groups them by text."""
    return (owners << np.uint64(HASH_BITS)) | hashes


def concatenated_ranges(sizes: Indices) -> Indices:
    """
    >>> concatenated_ranges(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
