"""Texts as sets of word bigrams, in NumPy arrays of hashes: what near-duplicates are told by.

A bigram is 50 bits: among 20 million less than one pair is expected to collide, and a collision matters only where two
texts differ by just that. The hashes are the same in every process.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.records.text import words

BLOCK = 4096  # texts hashed at a time
CHARACTERS = 1 << 22  # in them, unless one text alone has more
HASH_BITS = 50
MAP_BITS = 512  # of a text's bitmap
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd; its powers weigh the places in a word, and of words in a text
IN_WORDS = np.zeros(256, bool)  # bytes, of what `_bytes_of` makes
IN_WORDS[np.frombuffer(b"abcdefghijklmnopqrstuvwxyz0123456789_", np.uint8)] = True
IN_WORDS[128:] = True
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

    @cached_property
    def bitmaps(self) -> Numbers:
        """(texts, MAP_BITS / 64): a bit for every bigram, by its hash; they show most pairs to be far apart at once."""
        maps = [np.zeros((0, MAP_BITS // 64), np.uint64)]
        for start in range(0, len(self.sizes), BLOCK):
            sizes = self.sizes[start : start + BLOCK]
            bits = self.hashes[self.starts[start] : self.starts[start] + sizes.sum()] % np.uint64(MAP_BITS)
            places = np.repeat(np.arange(len(sizes)) * MAP_BITS, sizes) + bits.astype(np.int64)
            found = np.bincount(places, minlength=len(sizes) * MAP_BITS) > 0
            maps.append(np.packbits(found).view(np.uint64).reshape(len(sizes), -1))
        return np.concatenate(maps)


def bigrams(texts: Iterable[str], min_words: int) -> tuple[Sets, Numbers]:
    """(the sets of pairs of adjacent words, empty for texts of fewer than `min_words`; a number that equal texts share).

    Texts are equal if their words are, or if they have none and are equal as they stand.
    """
    hashes, sizes, same = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)], [np.zeros(0, np.uint64)]
    for block in _blocks(texts):
        each, counts = word_hashes(block)
        same.append(_identities(block, each, counts))
        owners = np.repeat(np.arange(len(block), dtype=np.uint64), counts)
        adjacent = (owners[:-1] == owners[1:]) & np.repeat(counts >= min_words, counts)[1:]
        pairs = splitmix64((splitmix64(each[:-1]) + each[1:])[adjacent]) >> np.uint64(64 - HASH_BITS)
        found = sorted_unique(tag_with_owner(owners[1:][adjacent], pairs))
        hashes.append(found & np.uint64(2**HASH_BITS - 1))
        sizes.append(np.bincount((found >> np.uint64(HASH_BITS)).astype(np.int64), minlength=len(block)))
    return Sets(np.concatenate(hashes), np.cumsum(np.concatenate(sizes))), np.concatenate(same)


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    block: list[str] = []
    characters = 0
    for text in texts:
        block.append(text)
        characters += len(text)
        if len(block) == BLOCK or characters > CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def word_hashes(texts: list[str]) -> tuple[Numbers, Places]:
    """(a hash for each word of each text, as pipeline.text.words has them; how many words each text has)."""
    encoded = [_bytes_of(text) for text in texts]
    signs = np.frombuffer(b" ".join([*encoded, b""]), np.uint8)
    in_words = IN_WORDS[signs]
    begins = in_words.copy()
    begins[1:] &= ~in_words[:-1]
    at = np.flatnonzero(in_words)
    first = np.flatnonzero(begins[at])  # sign of each word, among those in words
    place = concatenated_ranges(np.diff(np.append(first, len(at))))
    hashes = np.add.reduceat(signs[at] * _powers(place)[place], first) if len(at) else np.zeros(0, np.uint64)
    ends = np.cumsum([len(each) + 1 for each in encoded])
    return hashes, np.bincount(np.searchsorted(ends, np.flatnonzero(begins), "right"), minlength=len(texts))


def _bytes_of(text: str) -> bytes:
    """The text such that its words are its runs of ASCII letters, digits, _ and of all bytes above ASCII."""
    plain = text.lower() if text.isascii() else " ".join(words(text))
    return plain.encode("utf-8", "surrogatepass")


def _identities(texts: list[str], hashes: Numbers, counts: Places) -> Numbers:
    place = concatenated_ranges(counts)
    same = np.zeros(len(texts), np.uint64)
    starts = np.cumsum(counts) - counts
    some = counts > 0
    if some.any():
        same[some] = np.add.reduceat(splitmix64(hashes) * _powers(place)[place], starts[some])
    for number in np.flatnonzero(~some):
        signs = np.frombuffer(texts[number].encode("utf-8", "surrogatepass"), np.uint8)
        same[number] = splitmix64((signs * _powers(np.arange(len(signs)))).sum(dtype=np.uint64, keepdims=True))[0]
    return same


def _powers(places: Places) -> Numbers:
    """BASE to the power of 1, 2, … up to the greatest place + 1."""
    return np.cumprod(np.full(int(places.max(initial=0)) + 1, BASE), dtype=np.uint64)


def sorted_unique(numbers: Numbers) -> Numbers:
    """In ascending order, each once (np.unique hashes since NumPy 2.3, which takes ten times as long here)."""
    ordered = np.sort(numbers)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def splitmix64(numbers: Numbers) -> Numbers:
    """Each number's bits spread over all 64 (the finalizer of splitmix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def tag_with_owner(owners: Numbers, numbers: Numbers) -> Numbers:
    """Numbers of 50 bits with their owner's (14 bits) before them: sorted, they stand text by text."""
    return (owners << np.uint64(HASH_BITS)) | numbers


def concatenated_ranges(sizes: Places) -> Places:
    """0, 1, … up to each size, one after the other."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
