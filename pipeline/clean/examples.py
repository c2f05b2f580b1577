"""Shows a change of a text on one line: the part that differs, with control characters escaped."""

WIDTH, CONTEXT = 60, 12  # characters: of the part that differs, of what stands around it


def describe_change(before: str, after: str) -> str:
    r"""
    >>> describe_change("Drink  water.", "Drink water."), describe_change("a\r\nb", "a\nb")
    ("'Drink  water.' → 'Drink water.'", "'a\\r\\nb' → 'a\\nb'")
    >>> describe_change("user: thanks", "")
    "'user: thanks' removed"
    """
    if not after:
        return f"{_quote(before, len(before), '')} removed"
    start = _common_prefix(before, after)
    end = _common_prefix(before[start:][::-1], after[start:][::-1])
    first = max(0, start - CONTEXT)
    lead = "…" if first else ""
    texts = [_quote(text[first:], len(text) - end - first + CONTEXT, lead) for text in (before, after)]
    return f"{texts[0]} → {texts[1]}"


def _common_prefix(a: str, b: str) -> int:
    """The number of characters with which both texts begin. Halving compares slices, which is fast for long texts."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _quote(text: str, length: int, lead: str) -> str:
    shown = text[: min(length, WIDTH)]
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return f"'{lead}{printable}{'…' if len(shown) < len(text) else ''}'"
