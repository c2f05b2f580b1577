"""The leaderboard as text for the console, at most 100 characters wide."""

import textwrap
from itertools import zip_longest

from pipeline.compare.report import format_delta, format_number
from pipeline.leaderboard.entries import Entry
from pipeline.leaderboard.formatting import format_range, format_seeds, format_short_value, metric_title
from pipeline.leaderboard.standings import PREFERRED_METRICS, MetricValue, PairwiseResult, Standings
from pipeline.scoring.significance import BETTER

LABEL_WIDTH, CELL_WIDTH, RATING_WIDTH = 30, 15, 10
MAX_METRICS = 4
MAX_PAIRS = 15
NOTE_WIDTH = 100


def format_standings(standings: Standings) -> list[str]:
    """The whole leaderboard: title, notes, table and pairwise results."""
    rows = len(standings.entries[0].entry.runs[0].rows)
    count = len(standings.entries)
    title = (
        f"{count} configuration{'s' if count > 1 else ''} on the same {rows:,} test row{'s' if rows > 1 else ''}, "
        f"ranked by {metric_title(standings.metric)}"
    )
    notes = [line for note in standings.notes for line in textwrap.wrap(note, NOTE_WIDTH)]
    return [title, *notes, "", *format_entries(standings), *format_pairs(standings)]


def format_entries(standings: Standings) -> list[str]:
    """The table of entries. Below each value are its interval and its standard deviation over seeds."""
    names = [standings.metric, *(name for name in PREFERRED_METRICS if name != standings.metric)]
    names = [name for name in names if name in standings.entries[0].values][:MAX_METRICS]
    titles = [f"{metric_title(name):>{CELL_WIDTH}}" for name in names]
    has_ratings = standings.entries[0].rating is not None and len(standings.entries) > 1
    lines = [" " * LABEL_WIDTH + "".join(titles) + (f"{'Rating':>{RATING_WIDTH}}" if has_ratings else "")]
    widths = [CELL_WIDTH] * len(names) + [RATING_WIDTH]
    for rank, ranked in enumerate(standings.entries, start=1):
        cells = [_cell_lines(ranked.values[name]) for name in names]
        if has_ratings and ranked.rating:
            cells.append([f"{ranked.rating.value:.0f}", f"{ranked.rating.low:.0f}–{ranked.rating.high:.0f}"])
        for label, *columns in zip_longest(_label_lines(rank, ranked.entry), *cells, fillvalue=""):
            row = "".join(f"{text:>{width}}" for text, width in zip(columns, widths, strict=False))
            lines.append(f"{label:<{LABEL_WIDTH}}{row}".rstrip())
        lines.append("")
    return lines[:-1] + format_legend(standings, has_ratings)


def format_legend(standings: Standings, has_ratings: bool) -> list[str]:
    """Explains the intervals, the standard deviations and the ratings, if there are any."""
    values = [ranked.values[standings.metric] for ranked in standings.entries]
    parts = ["Below each value: its 95% interval over the test rows"] if values[0].low is not None else []
    parts += ["±: standard deviation over seeds"] if any(value.spread is not None for value in values) else []
    lines = ["; ".join(parts) + "."] if parts else []
    if has_ratings:
        title = metric_title(standings.metric)
        lines.append(f"Rating: Bradley-Terry on {title} per row; mean 1000, 400 points are odds of ten to one.")
    return ["", *lines] if lines else []


def _label_lines(rank: int, entry: Entry) -> list[str]:
    """The left column: rank, name, differing parameters, seeds."""
    differences = [f"{key}={format_short_value(value)}" for key, value in entry.differences.items()]
    texts = [entry.name, *differences, format_seeds(entry)]
    lines = [line for text in texts for line in _wrap_label(text, LABEL_WIDTH - 3)]
    return [f"{rank:>2} {lines[0]}", *(f"   {line}" for line in lines[1:])]


def _wrap_label(text: str, width: int) -> list[str]:
    """
    >>> _wrap_label("train.early_stopping.patience=0.25", 27), _wrap_label("main, seed-1", 27)
    (['train.early_stopping.', ' patience=0.25'], ['main, seed-1'])
    """
    key, equals, value = text.partition("=")
    section, dot, name = key.rpartition(".")
    if len(text) <= width or not (equals and dot):
        return textwrap.wrap(text, width, subsequent_indent=" ")
    return [section + dot, *textwrap.wrap(name + equals + value, width, initial_indent=" ", subsequent_indent="  ")]


def _cell_lines(value: MetricValue) -> list[str]:
    lines = [format_number(value.value)]
    if value.low is not None:
        lines.append(format_range(value, "–"))
    if value.spread is not None:
        lines.append(f"± {value.spread:.2g}")
    return lines


def format_pairs(standings: Standings) -> list[str]:
    """The pairwise results; if there are many, only those of the first entry."""
    pairs = standings.pairs
    if not pairs:
        return []
    shown = pairs if len(pairs) <= MAX_PAIRS else [pair for pair in pairs if pair.first == 1]
    correction = f"Holm-corrected over {len(pairs)} pair{'s' if len(pairs) > 1 else ''}"
    lines = [
        f"Difference in {metric_title(standings.metric)}, its 95% interval, p ({correction}), rows won, tied and lost",
        "",
    ]
    lines += [format_pair(pair) for pair in shown]
    if len(shown) < len(pairs):
        lines.append(f"The other {len(pairs) - len(shown)} pairs are in pairs.csv.")
    if any(pair.within_seeds for pair in shown):
        lines.append(
            "* significant, but no larger than the variation between seeds (twice the standard error over them)"
        )
    return ["", *lines]


def format_pair(pair: PairwiseResult) -> str:
    """
    >>> format_pair(PairwiseResult(1, 2, 0.5, 0.25, 0.75, 0.001, 0.002, 8, 1, 0, "better", False))
    '1 better than 2         +0.5     0.25 to 0.75      p 0.002    1 won 8, tied 1, lost 0'
    """
    if pair.verdict == BETTER:
        verdict = f"{pair.first} better than {pair.second}" + ("*" if pair.within_seeds else "")
    else:
        verdict = f"{pair.first} vs. {pair.second}: {pair.verdict}"
    interval = format_range(pair, " to ")
    p = f"p {pair.p_corrected:.2g}"
    counts = f"{pair.first} won {pair.wins:,}, tied {pair.ties:,}, lost {pair.losses:,}"
    return f"{verdict:<23} {format_delta(pair.delta):<8} {interval:<17} {p:<10} {counts}"
