"""Moves clusters between the splits where the hash alone would leave a split with far too few or too many rows."""

from collections import Counter

LEAST_OF_SHARE, MOST_OF_SHARE = 2 / 3, 5 / 4  # of test_fraction and validation_fraction; beyond these, clusters move


def _bounds(fraction: float, sizes: dict[int, int]) -> tuple[float, float]:
    """The least and the greatest number of rows of a split with this share of the rows."""
    target = fraction * sum(sizes.values())
    return max(1, LEAST_OF_SHARE * target), max(1, MOST_OF_SHARE * target)


def is_balanced(sides: dict[int, str], sizes: dict[int, int], fractions: dict[str, float]) -> bool:
    """Whether each split in `fractions` has about its share of the rows, and some are left for training."""
    rows: Counter[str] = Counter()
    for unit, size in sizes.items():
        rows[sides[unit]] += size
    bounds = {name: _bounds(fraction, sizes) for name, fraction in fractions.items()}
    return rows["train"] > 0 and all(least <= rows[name] <= most for name, (least, most) in bounds.items())


def balance(
    by_hash: dict[int, str], sizes: dict[int, int], free: list[int], fractions: dict[str, float]
) -> dict[int, str]:
    """Move clusters so that each split in `fractions` has about its share of the rows: cluster → its split.

    Without that, a few large clusters would leave a test set of 2% or 50% of the rows. `free` are the clusters that may be
    held out, by ascending hash. A split takes them in this order, those that the hash assigned to it first, and leaves
    out what is too large for the room that is left. If nothing fits, it takes the first that can be spared.

    >>> balance({0: "test", 1: "test", 2: "train"}, {0: 4, 1: 2, 2: 9}, free=[0, 1, 2], fractions={"test": 0.15})
    {0: 'train', 1: 'test', 2: 'train'}
    """
    sides = {unit: by_hash[unit] for unit in sizes} | dict.fromkeys(free, "train")
    for name, fraction in fractions.items():
        least, most = _bounds(fraction, sizes)
        if sum(size for unit, size in sizes.items() if by_hash[unit] == name) > most:
            most = max(1, fraction * sum(sizes.values()))
        rows = 0
        for unit in free:
            is_wanted = by_hash[unit] == name or (
                rows < least and not (name == "validation" and by_hash[unit] == "test")
            )
            if sides[unit] == "train" and is_wanted and rows + sizes[unit] <= most:
                sides[unit] = name
                rows += sizes[unit]
    for name in (*fractions, "train"):
        held = Counter(sides.values())
        if not held[name] and (spare := [unit for unit in free if held[sides[unit]] > 1]):
            sides[spare[-1] if name == "train" else spare[0]] = name
    return sides
