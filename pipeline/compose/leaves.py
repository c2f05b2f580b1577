"""Parameters as dotted keys, and how two sets of them differ."""

from typing import Any

ABSENT = "(absent)"
Leaves = dict[str, Any]


def flatten(values: Any, key: str = "") -> Leaves:
    """Dotted key → value, a list being a value.

    >>> flatten({"train": {"seed": 0, "epochs": 2}, "version": 1})
    {'train.seed': 0, 'train.epochs': 2, 'version': 1}
    """
    if not isinstance(values, dict) or not values:
        return {key: values}
    return {k: v for name, value in values.items() for k, v in flatten(value, f"{key}.{name}" if key else name).items()}


def diff_leaves(here: Leaves, there: Leaves) -> dict[str, tuple[Any, Any]]:
    """Key → (value here, value there) for the keys that differ."""
    keys = [*here, *(key for key in there if key not in here)]
    pairs = {key: (here.get(key, ABSENT), there.get(key, ABSENT)) for key in keys}
    return {key: (a, b) for key, (a, b) in pairs.items() if a != b or isinstance(a, bool) != isinstance(b, bool)}
