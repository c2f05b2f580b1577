"""Assigns the rows to train, validation and test.

The unit of the split is a cluster: rows that are linked by equal or near-duplicate texts, or by the same group
(format.group). The split of a cluster is decided by a hash of its earliest row's group or normalized question, and the seed.
So adding rows after the others moves an old row only if a new row joins its cluster, as long as the splits have about their
shares of the rows (balance.py) and no text becomes one that most rows share (shared_text.py).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pipeline.config.params import Format
from pipeline.errors import ConfigError, DataError
from pipeline.format.balance import balance, is_balanced
from pipeline.format.bigrams import Indices
from pipeline.format.cluster_size import large_clusters
from pipeline.format.components import Components
from pipeline.format.conversations import Conversation
from pipeline.format.duplicates import DuplicateSearch
from pipeline.format.groups import Groups
from pipeline.records.text import comparison_key

SPLITS = ("train", "validation", "test")
REASONS = (
    "near_held_out",  # a training row near to a validation or test row, or a validation row near to a test row
    "near_test",  # near to a row of the user's own test set
    "group_in_test",  # of the same group as a row of the user's own test set
)


class Drop(NamedTuple):
    """Why a row is in no split."""

    reason: str
    split: str  # that the row would be in
    near: int | None = None  # index of the row that it is near to


@dataclass
class Split:
    """The result for rows by their index in `rows`, which are in the order of their ids."""

    rows: list[Conversation]
    clusters: Indices  # the first row of each row's cluster
    has_own_test: bool = False  # the test set is the user's own
    sides: list[str] = field(default_factory=list)  # the split that each row was assigned to
    dropped: dict[int, Drop] = field(default_factory=dict)
    moved: dict[int, str] = field(default_factory=dict)  # cluster that `balance` moved → its split by the hash alone

    def indices(self, *names: str) -> Indices:
        """The indices of the rows in the splits."""
        kept = [index for index, side in enumerate(self.sides) if side in names and index not in self.dropped]
        return np.array(kept, np.int64)

    def rows_moved(self) -> int:
        """The number of rows in the clusters that `balance` moved."""
        return int(np.isin(self.clusters, list(self.moved)).sum())

    def rows_of(self, name: str) -> list[Conversation]:
        return [self.rows[index] for index in self.indices(name)]

    def counts(self) -> dict[str, int]:
        """Split → its number of rows."""
        return {name: len(self.indices(name)) for name in SPLITS}

    def drop(self, indices: Iterable[int], near: Iterable[int], reason: str) -> None:
        """Drop the rows that have a match in `near`; -1: no match. A row that was dropped before keeps its reason."""
        for index, match in zip(indices, near, strict=True):
            if match >= 0:
                self.dropped.setdefault(int(index), Drop(reason, self.sides[index], int(match)))


def split_key(row: Conversation, options: Format, groups: Groups) -> str:
    """The text that is hashed for the cluster of which a row is the earliest: its group, its normalized question, or its id."""
    if row.id in groups:
        return f"group\0{groups[row.id]}"
    return " ".join(comparison_key(row.question)) if options.split == "question" else str(row.id)


def hash_numbers(key: str, seed: int) -> tuple[float, float]:
    """Two numbers that are uniform in [0, 1), from the SHA-256 of the seed and the key."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest()
    first, second = (int.from_bytes(digest[start : start + 8], "big") / 2**64 for start in (0, 8))
    return first, second


def assign_split(key: str, options: Format, has_own_test: bool = False) -> str:
    """The split of a key (see `split_key`), which does not depend on other rows.

    Without folds, the first number of the hash decides: test below test_fraction, validation below test_fraction +
    validation_fraction, else train. With folds, the first number selects the fold, and the second one selects
    validation_fraction of the other folds for validation. With a test set of the user's own, no row is assigned to test.
    """
    first, second = hash_numbers(key, options.seed)
    if options.folds:
        is_test, is_validation = int(first * options.folds) == options.fold, second < options.validation_fraction
    else:
        test_fraction = 0.0 if has_own_test else options.test_fraction
        is_test, is_validation = first < test_fraction, first < test_fraction + options.validation_fraction
    return "test" if is_test else "validation" if is_validation else "train"


def split_rows(
    rows: list[Conversation],
    options: Format,
    search: DuplicateSearch,
    groups: Groups | None = None,
    first_test_row: int | None = None,
) -> Split:
    """Assign the rows, whose ids ascend, to the splits, and drop those that would leak.

    first_test_row: rows with this id or a higher one are the test set, as they are.
    Raises ConfigError if such a test set is combined with folds.
    """
    groups = groups or {}
    ids = np.array([row.id for row in rows], np.int64)
    in_test = ids >= first_test_row if first_test_row is not None else np.zeros(len(rows), bool)
    if in_test.any() and options.folds:
        raise ConfigError(
            "format.folds: the data has a test set of its own, so there are no folds to test on; set format.folds=null, "
            "or leave out the test set (data.test_path, data.test_split)"
        )
    others, test = np.flatnonzero(~in_test), np.flatnonzero(in_test)
    near = _near_clusters(others, options, search)
    clusters = _with_groups(near, others, ids, groups)
    split = Split(rows, clusters.labels, first_test_row is not None)
    leaking = _matches_in_test(split, others, test, search, groups) if options.split == "question" else {}
    counted = others[np.all([matches < 0 for matches in leaking.values()], axis=0)] if leaking else others
    sides, split.moved = _assign_clusters(split, others, counted, near, options, groups)
    labels: list[int] = clusters.labels.tolist()
    split.sides = ["test" if is_test else sides[label] for is_test, label in zip(in_test, labels, strict=True)]
    for reason, matches in leaking.items():
        split.drop(others, matches, reason)
    if options.split == "question" and options.near.strategy == "drop":
        _drop_near_held_out(split, others, search)
    return split


def _matches_in_test(
    split: Split, others: Indices, test: Indices, search: DuplicateSearch, groups: Groups
) -> dict[str, Indices]:
    """Reason to drop → for each of `others`, a row of the user's own test set that it is near to, or that has its group."""
    if not len(test):
        return {}
    row_of_group = {groups[split.rows[index].id]: int(index) for index in test if split.rows[index].id in groups}
    in_group = [row_of_group.get(groups.get(split.rows[index].id, ""), -1) for index in others]
    return {"group_in_test": np.array(in_group, np.int64), "near_test": search.find_duplicate(others, test)}


def _near_clusters(others: Indices, options: Format, search: DuplicateSearch) -> Components:
    """The clusters of near texts. With the strategy `drop`, only rows with equal questions form a cluster."""
    if options.split == "row":
        return Components(len(search.components.labels))
    if options.near.strategy == "cluster":
        return search.components_of(others)
    clusters = Components(len(search.components.labels))
    question = search.fields["question"]
    clusters.unite_equal(question.hashes[question.offsets[others]], others)
    return clusters


def _with_groups(near: Components, others: Indices, ids: Indices, groups: Groups) -> Components:
    clusters = Components(len(ids))
    clusters.unite(np.arange(len(ids)), near.labels)
    grouped = np.array([index for index in others if int(ids[index]) in groups], np.int64)
    _, numbers = np.unique([groups[int(id)] for id in ids[grouped]], return_inverse=True)
    clusters.unite_equal(numbers.astype(np.int64), grouped)
    return clusters


def _assign_clusters(
    split: Split, others: Indices, counted: Indices, near: Components, options: Format, groups: Groups
) -> tuple[dict[int, str], dict[int, str]]:
    """(cluster → its split, the same by the hash alone for each cluster that `balance` moved).

    counted: those of the rows `others` that will not be dropped.
    """
    units = np.unique(split.clusters[others])
    large: set[int] = set()  # in train, like all that is linked to them by a group
    if options.split == "question" and options.near.strategy == "cluster":
        labels = large_clusters(near.labels[others], options.near.max_cluster_rows).labels
        large = set(split.clusters[others[np.isin(near.labels[others], labels)]].tolist())
    keys = {int(unit): split_key(split.rows[unit], options, groups) for unit in units}
    by_hash = {
        unit: "train" if unit in large else assign_split(key, options, split.has_own_test) for unit, key in keys.items()
    }
    if options.split == "row":
        return by_hash, {}
    fractions = {"test": options.test_fraction, "validation": options.validation_fraction}
    if split.has_own_test or options.folds:
        del fractions["test"]
    counts = np.bincount(split.clusters[counted], minlength=len(split.rows))
    sizes = {unit: int(counts[unit]) for unit, side in by_hash.items() if not options.folds or side != "test"}
    if is_balanced(by_hash, sizes, fractions):
        return by_hash, {}
    place = 1 if options.folds else 0  # the number of the hash that decides about validation
    free = [unit for unit, size in sizes.items() if size and unit not in large]
    free.sort(key=lambda unit: (hash_numbers(keys[unit], options.seed)[place], unit))
    sides = by_hash | balance(by_hash, sizes, free, fractions)
    return sides, {unit: side for unit, side in by_hash.items() if sides[unit] != side}


def _drop_near_held_out(split: Split, others: Indices, search: DuplicateSearch) -> None:
    """Drop training rows near to validation or test rows, and validation rows near to test rows.

    A near-duplicate of a validation row is dropped from train even if that validation row is dropped too, so that adding a
    row never brings back another.
    """
    sides = np.array(split.sides)
    for name, held_out in (("validation", ["test"]), ("train", ["test", "validation"])):
        rows = others[sides[others] == name]
        references = others[np.isin(sides[others], held_out)]
        split.drop(rows, search.find_duplicate(rows, references), "near_held_out")


def require_nonempty_splits(split: Split, column: str | None = None) -> None:
    """Raise DataError with the counts if a split is empty. `column` is the one of format.group."""
    counts = split.counts()
    if all(counts.values()):
        return
    empty = [name for name, count in counts.items() if not count]
    # Rows of the user's own test set, and those like them, are not divided.
    divided = [
        side != "test" or not split.has_own_test
        if index not in split.dropped
        else split.dropped[index].reason == "near_held_out"
        for index, side in enumerate(split.sides)
    ]
    sizes: list[int] = np.unique_counts(split.clusters[np.array(divided, bool)]).counts.tolist()
    linked_by = "equal or near questions" + (" or of one group" if column else "")
    formed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    raise DataError(
        f"the split{'s' * (len(empty) > 1)} {' and '.join(empty)} would be empty ({formed}; dropped: {len(split.dropped):,}). "
        f"Rows to divide: {sum(sizes):,}, in {len(sizes):,} cluster{'s' * (len(sizes) != 1)} of {linked_by}, which stay "
        f"together; the largest has {max(sizes, default=0):,}. {_advice_on_empty_splits(split, len(sizes), column)}"
    )


def _advice_on_empty_splits(split: Split, clusters: int, column: str | None) -> str:
    needed = 2 if split.has_own_test else 3
    links = f"; {column} links rows: give a column with more values" if column else ""
    if clusters < needed:
        others = " that are not near to the test set" if split.dropped else ""
        return f"Add rows{others}: at least {needed} clusters are needed{links}"
    return (
        "Add rows, or change format.test_fraction, format.validation_fraction, format.seed, or the comparison of rows "
        f"(format.near){links}"
    )
