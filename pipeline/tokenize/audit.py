"""The audit of the tokenized rows before training, for metrics/details/tokenize.json and for the gates (gates.py).

Nothing here loops over tokens, and the audit keeps only the length and a hash of each row, so that a quarter of a million rows
take seconds.
"""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.params import Tokenize
from pipeline.modeling.encoding import IGNORE_INDEX
from pipeline.tokenize.blocks import Block
from pipeline.tokenize.borders import RowBorders, is_learned_from_prompt
from pipeline.tokenize.gates import MESSAGES, Finding
from pipeline.tokenize.unknown import UnknownText
from pipeline.train.sample_order import even_batches, sample_order

Lengths = NDArray[np.int64]  # (rows,), tokens


class Audit:
    """Counts over the blocks of one split.

    borders: the tokens at which rows begin and answers end.
    seen_hashes: the hashes of earlier rows, which the audit extends. Validation gets the set that train has filled.
    """

    def __init__(self, borders: RowBorders, seen_hashes: set[bytes]) -> None:
        self.borders, self.seen_hashes = borders, seen_hashes
        self.labeled_tokens = 0
        self.dropped_tokens = np.zeros(2, np.int64)  # from prompts and from completions
        self.findings = {name: Finding(0, 0) for name in MESSAGES if name != "padding"}
        self.unknown_in_prompts = Finding(0, 0)
        self._block_lengths: list[NDArray[np.int32]] = []

    @property
    def rows(self) -> int:
        return self.findings["unended"].total

    @property
    def lengths(self) -> Lengths:
        return np.concatenate(self._block_lengths, dtype=np.int64)

    def add(
        self,
        block: Block,
        prefix_checks: Sequence[tuple[Any, bool]] = (),
        unknown: Mapping[str, UnknownText] = MappingProxyType({}),
    ) -> None:
        """Count a block. prefix_checks: for each checked row (id, whether appending the answer changes its prompt tokens).

        unknown: the unknown text in the block's "prompts" and "answers".
        """
        starts = block.offsets[:-1]
        is_labeled = block.labels != IGNORE_INDEX
        is_labeled[starts] = False  # each token predicts the next, so none predicts the first
        labeled_per_row = np.add.reduceat(is_labeled, starts, dtype=np.int64)
        self.labeled_tokens += int(labeled_per_row.sum())
        self.dropped_tokens += block.dropped_tokens.sum(axis=0)
        self._block_lengths.append(block.lengths)
        is_seen = np.fromiter(map(self._is_seen, block.row_bytes()), bool, len(block.row_ids))
        self._count("unlabelled", block.row_ids, labeled_per_row == 0)
        self._count("unended", block.row_ids, ~self.borders.are_answers_ended(block))
        self._count("wrong_start", block.row_ids, ~self.borders.are_started_once(block))
        self._count("prompt_mismatch", block.row_ids, ~(block.is_prompted & is_learned_from_prompt(block)))
        self._count("truncated", block.row_ids, block.dropped_tokens.sum(axis=1) > 0)
        self._count("duplicates", block.row_ids, is_seen)
        self._count("prefix_mismatch", [id for id, _ in prefix_checks], np.array([c for _, c in prefix_checks], bool))
        is_shortened = block.dropped_tokens[:, 1] > 0
        first_id = block.row_ids[is_shortened.argmax()] if is_shortened.any() else None
        tokens = int(block.dropped_tokens[:, 1].sum()), int(block.completion_tokens.sum())
        self._update("answer_tokens_lost", *tokens, first_id)
        if unknown:
            self.findings["unknown"] = self.findings["unknown"].updated(*unknown["answers"])
            self.unknown_in_prompts = self.unknown_in_prompts.updated(*unknown["prompts"])

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
        """The section of this split in metrics/details/tokenize.json."""
        lengths = self.lengths
        counted = ("unlabelled", "unended", "wrong_start", "prompt_mismatch", "truncated", "duplicates")
        rows = {name: self.findings[name].matches for name in counted}
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
            "unknown": {
                "answer_tokens": self.findings["unknown"].matches,
                "prompt_tokens": self.unknown_in_prompts.matches,
                "prompt_share": self.unknown_in_prompts.share,
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

    >>> padding_of(np.array([1, 3, 4, 4]), batch_size=2)[:2]
    (2, 14)
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
