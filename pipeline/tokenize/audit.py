"""What training would see, measured before any is done: counts for metrics/tokenize.json, and the gates that stop the run.

A gate `tokenize.gates.max_X` is a limit to the share of what `Audit.findings` counts as X. Nothing here loops over
tokens, and of a row no more is kept than its length and a hash, so that a quarter of a million rows cost seconds.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config.params import Gates, Tokenize
from pipeline.errors import DataError
from pipeline.modeling.encoding import IGNORE_INDEX
from pipeline.tokenize.blocks import Block

PARCEL = 50  # batches that the Trainer sorts by length among themselves (LengthGroupedSampler)
Lengths = NDArray[np.int64]

# X → (what is counted, what is wrong with it, what to do)
FAULTS = {
    "unlabelled": ("rows", "have no label in the loss, so that nothing is learned from them", "Leave them out"),
    "unended": (
        "rows",
        "have no end of text in the loss, as their answer is cut: from such rows a model learns not to stop",
        "Raise tokenize.max_length, leave out the rows with the longest answers (clean.answer.max_tokens)",
    ),
    "truncated": ("rows", "are longer than tokenize.max_length and were cut", "Raise it, leave out the longest rows"),
    "answer_tokens_lost": (
        "answer tokens",
        "were cut off rows that are longer than tokenize.max_length",
        "Raise it, leave out the rows with the longest answers (clean.answer.max_tokens)",
    ),
    "duplicates": ("rows", "have the token ids of an earlier row, of train or of their own split", "Leave them out"),
    "prefix_mismatch": (
        "rows checked",
        "have a prompt that tokenizes differently alone than with its answer",
        "Have the template end the prompt, or begin the completion, with a line break",
    ),
    "padding": ("places in batches", "are padding", "Set train.group_by_length=true, lower train.batch_size"),
}


class Finding(NamedTuple):
    count: int
    of: int
    first: Any = None  # the id of the first row that it is true of; None where it is of no row

    @property
    def share(self) -> float:
        return self.count / self.of if self.of else 0.0

    def more(self, count: int, of: int, first: Any = None) -> "Finding":
        return Finding(self.count + count, self.of + of, first if self.first is None else self.first)


class Audit:
    """Counts over the blocks of one split. `seen` holds the hashes of earlier rows: give train's to validation's."""

    def __init__(self, eos: int, seen: set[bytes]) -> None:
        self.eos, self.seen = eos, seen
        self.learned = 0  # tokens in the loss
        self.cut = np.zeros(2, np.int64)  # tokens cut off prompts and off completions
        self.found = {name: Finding(0, 0) for name in FAULTS if name != "padding"}
        self._lengths: list[NDArray[np.int32]] = []

    @property
    def rows(self) -> int:
        return self.found["unended"].of

    @property
    def lengths(self) -> Lengths:
        """(rows,), tokens a row."""
        return np.concatenate(self._lengths, dtype=np.int64)

    def add(self, block: Block, checked: Sequence[tuple[Any, bool]] = ()) -> None:
        """Count a block; `checked`: (a row's id, whether its prompt tokenizes differently alone) of those checked."""
        starts, ends = block.bounds[:-1], block.bounds[1:]
        learned = block.labels != IGNORE_INDEX
        learned[starts] = False  # a model predicts the next token, so none predicts the first
        counts = np.add.reduceat(learned, starts, dtype=np.int64)
        self.learned += int(counts.sum())
        self.cut += block.cut.sum(axis=0)
        self._lengths.append(block.lengths)
        self._count("unlabelled", block.ids, counts == 0)
        self._count("unended", block.ids, ~(learned[ends - 1] & (block.labels[ends - 1] == self.eos)))
        self._count("truncated", block.ids, block.cut.any(axis=1))
        self._count("duplicates", block.ids, np.fromiter(map(self._is_seen, block.row_bytes()), bool, len(block.ids)))
        self._count("prefix_mismatch", [each[0] for each in checked], np.array([each[1] for each in checked], bool))
        shortened = block.cut[:, 1] > 0
        first = block.ids[shortened.argmax()] if shortened.any() else None
        self._add("answer_tokens_lost", int(block.cut[:, 1].sum()), int(block.answers.sum()), first)

    def _count(self, name: str, ids: list[Any], is_true: NDArray[np.bool_]) -> None:
        self._add(name, int(is_true.sum()), len(ids), ids[is_true.argmax()] if is_true.any() else None)

    def _add(self, name: str, count: int, of: int, first: Any) -> None:
        self.found[name] = self.found[name].more(count, of, first)

    def _is_seen(self, row: bytes) -> bool:
        digest = hashlib.blake2b(row, digest_size=16).digest()
        if digest in self.seen:
            return True
        self.seen.add(digest)
        return False

    def metrics(self, max_length: int) -> dict[str, Any]:
        """The split's part of metrics/tokenize.json."""
        lengths = self.lengths
        rows = {name: self.found[name].count for name in ("unlabelled", "unended", "truncated", "duplicates")}
        return {
            "rows": self.rows,
            "tokens": int(lengths.sum()),
            "supervised_share": self.learned / int(lengths.sum()),
            **{f"rows_{name}": count for name, count in rows.items()},
            "prompt_tokens_lost": int(self.cut[0]),
            "answer_tokens_lost": int(self.cut[1]),
            "prefixes": {
                "rows_checked": self.found["prefix_mismatch"].of,
                "rows_different": self.found["prefix_mismatch"].count,
            },
            "share": {name: finding.share for name, finding in self.found.items()},
            "length": quantiles(lengths),
            "histogram": histogram(lengths, max_length),
        }


def quantiles(lengths: Lengths) -> dict[str, float]:
    """
    >>> quantiles(np.array([10, 20, 60]))
    {'mean': 30.0, 'p50': 20, 'p90': 60, 'p99': 60, 'longest': 60}
    """
    shown = {f"p{part}": int(np.percentile(lengths, part, method="inverted_cdf")) for part in (50, 90, 99)}
    return {"mean": float(lengths.mean()), **shown, "longest": int(lengths.max())}


def histogram(lengths: Lengths, max_length: int) -> dict[str, int]:
    """Rows by length, each bin up to a power of two, the last up to max_length; a dict, as DVC's diff drops lists.

    >>> histogram(np.array([3, 16, 17, 40]), max_length=40)
    {'up_to_16': 2, 'up_to_32': 1, 'up_to_40': 1}
    """
    powers = itertools.takewhile(lambda bound: bound < max_length, (2**power for power in itertools.count(4)))
    bounds = [*powers, max_length]
    counts = np.bincount(np.searchsorted(bounds, lengths), minlength=len(bounds))
    return {f"up_to_{bound}": int(count) for bound, count in zip(bounds, counts, strict=True)}


def padding_in(lengths: Lengths, batch_size: int) -> Finding:
    """The places of an epoch's batches that are padding when rows of these lengths come in this order.

    >>> padding_in(np.array([1, 3, 4, 4]), batch_size=2)
    Finding(count=2, of=14, first=None)
    """
    starts = np.arange(0, len(lengths), batch_size)
    sizes = np.diff(np.append(starts, len(lengths)))
    places = int((np.maximum.reduceat(lengths, starts) * sizes).sum())
    return Finding(places - int(lengths.sum()), places)


def ordered(lengths: Lengths, batch_size: int, by_length: bool) -> Lengths:
    """The lengths in an order that the Trainer may take them in: shuffled, and parcels of it sorted if by length."""
    shuffled = np.random.default_rng(0).permutation(lengths)
    if not by_length:
        return shuffled
    size = batch_size * max(1, min(len(lengths) // (4 * batch_size), PARCEL))
    return np.concatenate([np.sort(shuffled[at : at + size])[::-1] for at in range(0, len(lengths), size)])


def epoch_stats(audit: Audit, options: Tokenize) -> tuple[Finding, dict[str, Any]]:
    """(what is padding in training as it is configured, the metrics of an epoch: tokens, batches, padding)."""
    lengths, size = audit.lengths, options.batch_size
    orders = {name: padding_in(ordered(lengths, size, name == "by_length"), size) for name in ("shuffled", "by_length")}
    padding = orders["by_length" if options.group_by_length else "shuffled"]
    shares = {name: finding.share for name, finding in orders.items()}
    return padding, {
        "tokens": int(lengths.sum()),
        "tokens_in_loss": audit.learned,
        "batch_size": size,
        "batches": math.ceil(len(lengths) / size),
        "padding": {"tokens": padding.count, "share": padding.share, **shares},
    }


def require_gates(found: dict[str, dict[str, Finding]], gates: Gates) -> None:
    """Raise DataError that lists every gate that is exceeded; `found`: split → X → what was counted."""
    faults = []
    for key, limit in gates:
        name = key.removeprefix("max_")
        counted = {split: each[name] for split, each in found.items() if name in each}
        over = {split: finding for split, finding in counted.items() if limit is not None and finding.share > limit}
        if over:
            enough = math.ceil(1000 * max(finding.share for finding in over.values())) / 1000
            unit, wrong, remedy = FAULTS[name]
            where = " and ".join(_described(split, unit, finding) for split, finding in over.items())
            faults.append(
                f"tokenize.gates.{key}: {where} {wrong}; allowed are {limit:.2%}. {remedy}, "
                f"or allow it: tokenize.gates.{key}={enough:g}"
            )
    if faults:
        raise DataError("\n".join(["training would not go well on these rows:", *(f"  {fault}" for fault in faults)]))


def _described(split: str, unit: str, finding: Finding) -> str:
    first = "" if finding.first is None else f", the first has id {finding.first}"
    return f"{finding.count:,} of {finding.of:,} {unit} of {split} ({finding.share:.2%}{first})"
