"""Short texts that the console and the page share: titles, parameter values, seeds, intervals."""

import json
import re
from typing import Any

from pipeline.leaderboard.entries import Entry
from pipeline.leaderboard.standings import MetricValue, PairwiseResult
from pipeline.scoring.metrics import ALL_METRICS


def metric_title(name: str) -> str:
    """
    >>> metric_title("loss")
    'Held-out loss'
    """
    return ALL_METRICS[name].title


def format_value(value: Any) -> str:
    """A parameter's value as on the command line of `dvc exp run -S`.

    >>> format_value(None), format_value(True), format_value(0.0001)
    ('null', 'true', '0.0001')
    """
    return value if isinstance(value, str) else json.dumps(value)


def format_short_value(value: Any) -> str:
    """`format_value` with SHA-256 checksums shortened.

    >>> format_short_value("c0ffee" + 58 * "0"), format_short_value("cosine")
    ('c0ffee000000', 'cosine')
    """
    text = format_value(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text


def format_seeds(entry: Entry) -> str:
    """The training seeds, such as "seeds 0, 1"; empty if they are unknown.

    >>> format_seeds(Entry("a", [], {}))
    ''
    """
    seeds = ", ".join(map(str, entry.seeds))
    return f"seed{'s' if len(entry.seeds) > 1 else ''} {seeds}" if seeds else ""


def format_range(value: MetricValue | PairwiseResult, separator: str) -> str:
    """The interval with three significant digits; empty if there is none.

    >>> format_range(MetricValue(0.5, 0.25, 0.751), "–"), format_range(MetricValue(0.5), "–")
    ('0.25–0.751', '')
    """
    return "" if value.low is None else f"{value.low:.3g}{separator}{value.high:.3g}"
