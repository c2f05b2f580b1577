"""Which clusters are too large to be held out."""

from typing import NamedTuple

import numpy as np

from pipeline.format.bigrams import Indices

MIN_LIMIT = 50  # rows
MAX_SHARE = 0.05  # of all rows
MIN_OTHER_ROWS = 0.2  # share of rows outside the large clusters with which a split is possible
FEW = 10  # large clusters


class LargeClusters(NamedTuple):
    """The clusters that are too large to be held out, by their labels."""

    labels: Indices
    leave_too_little: bool  # fewer than MIN_OTHER_ROWS of the rows are in other clusters


def max_cluster_rows(rows: int, limit: int | None) -> int:
    """The rows of the largest cluster that may be held out: format.near.max_cluster_rows, or its default for so many rows.

    >>> max_cluster_rows(200, None), max_cluster_rows(20_000, None), max_cluster_rows(20_000, 80)
    (50, 1000, 80)
    """
    return max(MIN_LIMIT, int(MAX_SHARE * rows)) if limit is None else limit


def large_clusters(labels: Indices, limit: int | None) -> LargeClusters:
    """The clusters of rows with these labels that are too large to be held out.

    If nearly all rows are in many large clusters, these are the questions that there are, and none counts as large.
    """
    found, counts = np.unique(labels, return_counts=True)
    is_large = counts > max_cluster_rows(len(labels), limit)
    leave_too_little = bool(counts[is_large].sum() > (1 - MIN_OTHER_ROWS) * len(labels))
    if leave_too_little and is_large.sum() >= FEW:
        return LargeClusters(np.zeros(0, np.int64), False)
    return LargeClusters(found[is_large], leave_too_little)
