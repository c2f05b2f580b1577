"""Parameters as dotted keys with values, and the differences between two sets of them."""

from typing import Any

ABSENT = "(absent)"  # stands for the value of a key that one side does not have
Leaves = dict[str, Any]


def flatten(values: Any, key: str = "") -> Leaves:
    """Dotted key → value. A list is one value, and so is an empty mapping.

    >>> flatten({"train": {"seed": 0, "epochs": 2}, "version": 1})
    {'train.seed': 0, 'train.epochs': 2, 'version': 1}
    """
    if not isinstance(values, dict) or not values:
        return {key: values}
    return {k: v for name, value in values.items() for k, v in flatten(value, f"{key}.{name}" if key else name).items()}


def diff_leaves(left: Leaves, right: Leaves) -> dict[str, tuple[Any, Any]]:
    """Key → (value in left, value in right) of the keys that differ, in the order of left. true differs from 1.

    >>> diff_leaves({"seed": 0, "epochs": 2}, {"seed": 7, "epochs": 2, "limit": 9})
    {'seed': (0, 7), 'limit': ('(absent)', 9)}
    """
    keys = [*left, *(key for key in right if key not in left)]
    pairs = {key: (left.get(key, ABSENT), right.get(key, ABSENT)) for key in keys}
    return {key: (a, b) for key, (a, b) in pairs.items() if a != b or isinstance(a, bool) != isinstance(b, bool)}
