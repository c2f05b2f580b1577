"""The audit of the tokenized rows before training, for metrics/tokenize.json and for the gates that stop the run.

A gate `tokenize.gates.max_X` limits the share of finding X. Nothing here loops over tokens, and the audit keeps only the
length and a hash of each row, so that a quarter of a million rows take seconds.
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
from pipeline.train.sample_order import even_batches, sample_order

Lengths = NDArray[np.int64]  # (rows,), tokens

# finding → (unit, problem, remedy), the parts of its error message
MESSAGES = {
    "unlabelled": ("rows", "have no labeled tokens, so the model learns nothing from them", "Leave them out"),
    "unended": (
        "rows",
        "have a truncated answer, so their labels lack the end-of-text token: such rows teach the model not to stop",
        "Raise tokenize.max_length, leave out the rows with the longest answers (clean.answer.max_tokens)",
    ),
    "truncated": (
        "rows",
        "are longer than tokenize.max_length and were truncated",
        "Raise it, leave out the longest rows",
    ),
    "answer_tokens_lost": (
        "answer tokens",
        "were truncated from rows that are longer than tokenize.max_length",
        "Raise it, leave out the rows with the longest answers (clean.answer.max_tokens)",
    ),
    "duplicates": (
        "rows",
        "have the same token ids as an earlier row of their own split or the training set",
        "Leave them out",
    ),
    "prefix_mismatch": (
        "rows checked",
        "have a prompt whose tokens change when the answer is appended",
        "Have the template end the prompt, or begin the completion, with a line break",
    ),
    "padding": (
        "token positions in batches",
        "are padding",
        "Set train.group_by_length=true or train.packing=true, lower train.batch_size",
    ),
}


class Finding(NamedTuple):
    """How many of `total` rows, tokens or token positions have a problem."""

    matches: int
    total: int
    first_id: Any = None  # the id of the first row with the problem; None if there is none or no single row has it

    @property
    def share(self) -> float:
        return self.matches / self.total if self.total else 0.0

    def updated(self, matches: int, total: int, first_id: Any = None) -> "Finding":
        """The finding with the counts of further rows added."""
        return Finding(self.matches + matches, self.total + total, first_id if self.first_id is None else self.first_id)


class Audit:
    """Counts over the blocks of one split.

    seen_hashes: the hashes of earlier rows, which the audit extends. Validation gets the set that train has filled.
    """

    def __init__(self, eos_id: int, seen_hashes: set[bytes]) -> None:
        self.eos_id, self.seen_hashes = eos_id, seen_hashes
        self.labeled_tokens = 0
        self.dropped_tokens = np.zeros(2, np.int64)  # from prompts and from completions
        self.findings = {name: Finding(0, 0) for name in MESSAGES if name != "padding"}
        self._block_lengths: list[NDArray[np.int32]] = []

    @property
    def rows(self) -> int:
        return self.findings["unended"].total

    @property
    def lengths(self) -> Lengths:
        return np.concatenate(self._block_lengths, dtype=np.int64)

    def add(self, block: Block, prefix_checks: Sequence[tuple[Any, bool]] = ()) -> None:
        """Count a block. prefix_checks: for each checked row (id, whether appending the answer changes its prompt tokens)."""
        starts, ends = block.offsets[:-1], block.offsets[1:]
        is_labeled = block.labels != IGNORE_INDEX
        is_labeled[starts] = False  # each token predicts the next, so none predicts the first
        labeled_per_row = np.add.reduceat(is_labeled, starts, dtype=np.int64)
        self.labeled_tokens += int(labeled_per_row.sum())
        self.dropped_tokens += block.dropped_tokens.sum(axis=0)
        self._block_lengths.append(block.lengths)
        is_seen = np.fromiter(map(self._is_seen, block.row_bytes()), bool, len(block.row_ids))
        self._count("unlabelled", block.row_ids, labeled_per_row == 0)
        self._count("unended", block.row_ids, ~(is_labeled[ends - 1] & (block.labels[ends - 1] == self.eos_id)))
        self._count("truncated", block.row_ids, block.dropped_tokens.sum(axis=1) > 0)
        self._count("duplicates", block.row_ids, is_seen)
        self._count("prefix_mismatch", [id for id, _ in prefix_checks], np.array([c for _, c in prefix_checks], bool))
        is_shortened = block.dropped_tokens[:, 1] > 0
        first_id = block.row_ids[is_shortened.argmax()] if is_shortened.any() else None
        tokens = int(block.dropped_tokens[:, 1].sum()), int(block.completion_tokens.sum())
        self._update("answer_tokens_lost", *tokens, first_id)

    def _count(self, name: str, row_ids: list[Any], is_match: NDArray[np.bool_]) -> None:
        first_id = row_ids[is_match.argmax()] if is_match.any() else None
        self._update(name, int(is_match.sum()), len(row_ids), first_id)

    def _update(self, name: str, matches: int, total: int, first_id: Any) -> None:
        self.findings[name] = self.findings[name].updated(matches, total, first_id)

    def _is_seen(self, row: bytes) -> bool:
        digest = hashlib.blake2b(row, digest_size=16).digest()
        if digest in self.seen_hashes:
            return True
        self.seen_hashes.add(digest)
        return False

    def metrics(self, max_length: int) -> dict[str, Any]:
        """The section of this split in metrics/tokenize.json."""
        lengths = self.lengths
        rows = {name: self.findings[name].matches for name in ("unlabelled", "unended", "truncated", "duplicates")}
        return {
            "rows": self.rows,
            "tokens": int(lengths.sum()),
            "supervised_share": self.labeled_tokens / int(lengths.sum()),
            **{f"rows_{name}": count for name, count in rows.items()},
            "prompt_tokens_lost": int(self.dropped_tokens[0]),
            "answer_tokens_lost": int(self.dropped_tokens[1]),
            "prefixes": {
                "rows_checked": self.findings["prefix_mismatch"].total,
                "rows_different": self.findings["prefix_mismatch"].matches,
            },
            "share": {name: finding.share for name, finding in self.findings.items()},
            "length": quantiles(lengths),
            "histogram": histogram(lengths, max_length),
        }


def quantiles(lengths: Lengths) -> dict[str, float]:
    """
    >>> quantiles(np.array([10, 20, 60]))
    {'mean': 30.0, 'p50': 20, 'p90': 60, 'p99': 60, 'longest': 60}
    """
    percentiles = {f"p{rank}": int(np.percentile(lengths, rank, method="inverted_cdf")) for rank in (50, 90, 99)}
    return {"mean": float(lengths.mean()), **percentiles, "longest": int(lengths.max())}


def histogram(lengths: Lengths, max_length: int) -> dict[str, int]:
    """Rows by length. Bins end at the powers of two, the last at max_length. A dict, because DVC's diff drops lists.

    >>> histogram(np.array([3, 16, 17, 40]), max_length=40)
    {'up_to_16': 2, 'up_to_32': 1, 'up_to_40': 1}
    """
    powers = itertools.takewhile(lambda bound: bound < max_length, (2**power for power in itertools.count(4)))
    bounds = [*powers, max_length]
    counts = np.bincount(np.searchsorted(bounds, lengths), minlength=len(bounds))
    return {f"up_to_{bound}": int(count) for bound, count in zip(bounds, counts, strict=True)}


def padding_of(lengths: Lengths, batch_size: int) -> Finding:
    """The token positions of batches that are padding, where rows of these lengths are batched in this order.

    >>> padding_of(np.array([1, 3, 4, 4]), batch_size=2)
    Finding(matches=2, total=14, first_id=None)
    """
    starts = np.arange(0, len(lengths), batch_size)
    rows_per_batch = np.diff(np.append(starts, len(lengths)))
    positions = int((np.maximum.reduceat(lengths, starts) * rows_per_batch).sum())
    return Finding(positions - int(lengths.sum()), positions)


def epoch_lengths(lengths: Lengths, options: Tokenize, by_length: bool) -> Lengths:
    """The lengths of an epoch's rows in an order that training may draw: by `sample_order`, or at random.

    With several processes some rows are repeated at the end. Consecutive rows, `options.batch_size` each, are a batch.
    """
    generator, processes = np.random.default_rng(0), options.processes * options.nodes

    def permutation(count: int) -> list[int]:
        order: list[int] = generator.permutation(count).tolist()
        return order

    if by_length:
        rows_per_step = options.batch_size * options.gradient_accumulation * processes
        order = sample_order(lengths.tolist(), rows_per_step, permutation)
    else:
        order = permutation(len(lengths))
    return lengths[even_batches(order, options.batch_size, processes)]


def epoch_stats(audit: Audit, options: Tokenize) -> tuple[Finding, dict[str, Any]]:
    """(the padding of training as it is configured, the metrics of an epoch: tokens, batches, padding).

    The metrics also hold the share of padding that either order of rows has without packing.
    """
    size = options.batch_size
    orders = {
        name: epoch_lengths(audit.lengths, options, by_length=name == "by_length") for name in ("shuffled", "by_length")
    }
    findings = {name: padding_of(lengths, size) for name, lengths in orders.items()}
    configured = "by_length" if options.group_by_length else "shuffled"
    padding = Finding(0, int(orders[configured].sum())) if options.packing else findings[configured]
    return padding, {
        "tokens": int(audit.lengths.sum()),
        "tokens_in_loss": audit.labeled_tokens,
        "batch_size": size,
        "batches": math.ceil(len(orders[configured]) / size),
        "padding": {
            "tokens": padding.matches,
            "share": padding.share,
            **{name: finding.share for name, finding in findings.items()},
        },
    }


def require_gates(findings: dict[str, dict[str, Finding]], gates: Gates) -> None:
    """Raise DataError that lists every gate that is exceeded. findings: split → X → what the audit counted."""
    errors = []
    for key, limit in gates:
        name = key.removeprefix("max_")
        by_split = {split: found[name] for split, found in findings.items() if name in found}
        over = {split: finding for split, finding in by_split.items() if limit is not None and finding.share > limit}
        if over:
            sufficient = math.ceil(1000 * max(finding.share for finding in over.values())) / 1000
            unit, problem, remedy = MESSAGES[name]
            counts = " and ".join(_describe(split, unit, finding) for split, finding in over.items())
            errors.append(
                f"tokenize.gates.{key}: {counts} {problem}; the limit is {limit:.2%}. {remedy}, "
                f"or allow it: tokenize.gates.{key}={sufficient:g}"
            )
    if errors:
        raise DataError("\n".join(["these rows are not fit for training:", *(f"  {error}" for error in errors)]))


def _describe(split: str, unit: str, finding: Finding) -> str:
    first_id = "" if finding.first_id is None else f", the first has id {finding.first_id}"
    return f"{finding.matches:,} of {finding.total:,} {unit} of {split} ({finding.share:.2%}{first_id})"
