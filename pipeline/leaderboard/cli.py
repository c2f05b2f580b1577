"""Which of my experiments is best, and how surely: revisions and experiments in one table.

    python -m pipeline.leaderboard main exp-a exp-b HEAD~3      cached data/predictions/finetuned.jsonl of each
                                                                → the console, metrics/leaderboard/

A name is a branch, a tag, a commit, HEAD~3, an experiment, or `workspace`. Runs that differ in train.seed alone are one row.
"""

import argparse
import json
import re
import textwrap
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.compare.report import format_delta, format_number, render_template
from pipeline.core.entrypoint import report_errors
from pipeline.core.files import atomic_write
from pipeline.core.paths import LEADERBOARD
from pipeline.errors import ConfigError
from pipeline.leaderboard.entries import (
    Entry,
    align_metric_versions,
    group_by_configuration,
    merge_identical_runs,
    restrict_to_shared_rows,
)
from pipeline.leaderboard.runs import MADE_BY, find_runs
from pipeline.leaderboard.standings import MetricValue, PairwiseResult, Place, Standings, rank_entries
from pipeline.scoring.metrics import ALL_METRICS

FILES = ("leaderboard.html", "leaderboard.csv", "pairs.csv", "answers.csv", "leaderboard.json")
COLUMNS = ("f1", "exact_match", "bleu", "loss", "rougeL")  # of the console's, as many as there is room for
NAME, CELL, RATING, MOST_CELLS = 30, 15, 10, 4  # characters; 100 together
MOST_PAIRS = 15  # that the console tells


def build_standings(names: list[str], instance: str, by: str | None, resamples: int, seed: int) -> Standings:
    """Find the runs of the names, bring them to the same rows and metrics, and compare them."""
    found = find_runs(names, instance)
    kept, same = merge_identical_runs(found)
    on_shared, shared = restrict_to_shared_rows(kept)
    partial = any(len(run.rows) < len(before.rows) for run, before in zip(on_shared, kept, strict=True))
    alike, scored = align_metric_versions(on_shared)
    result = rank_entries(group_by_configuration(alike), by, resamples, seed, partial)
    return result._replace(notes=[*same, *shared, *scored, *result.notes])


def metric_title(name: str) -> str:
    """
    >>> metric_title("loss")
    'Held-out loss'
    """
    return ALL_METRICS[name].title


def format_value(value: Any) -> str:
    """A parameter's value as -S takes it.

    >>> format_value(None), format_value(True), format_value(0.0001)
    ('null', 'true', '0.0001')
    """
    return value if isinstance(value, str) else json.dumps(value)


def abbreviate_value(value: Any) -> str:
    """
    >>> abbreviate_value("c0ffee" + 58 * "0"), abbreviate_value("cosine")
    ('c0ffee000000', 'cosine')
    """
    text = format_value(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text


def format_seeds(entry: Entry) -> str:
    """
    >>> format_seeds(Entry("a", [], {}))
    ''
    """
    found = ", ".join(map(str, entry.seeds))
    return f"seed{'s' if len(entry.seeds) > 1 else ''} {found}" if found else ""


def console_table(result: Standings) -> list[str]:
    """The places: under each figure its interval, under that the spread of several seeds."""
    names = [result.by, *(name for name in COLUMNS if name != result.by)]
    shown = [name for name in names if name in result.places[0].figures][:MOST_CELLS]
    heads = [f"{metric_title(name):>{CELL}}" for name in shown]
    rated = result.places[0].rating is not None and len(result.places) > 1
    lines = [" " * NAME + "".join(heads) + (f"{'Rating':>{RATING}}" if rated else "")]
    for rank, place in enumerate(result.places, start=1):
        cells = [_cell(place.figures[name]) for name in shown]
        if rated and place.rating:
            cells.append([f"{place.rating.value:.0f}", f"{place.rating.low:.0f}–{place.rating.high:.0f}"])
        widths = [CELL] * len(shown) + [RATING]
        for left, *columns in zip_longest(_labels(rank, place.entry), *cells, fillvalue=""):
            row = "".join(f"{text:>{width}}" for text, width in zip(columns, widths, strict=False))
            lines.append(f"{left:<{NAME}}{row}".rstrip())
        lines.append("")
    return lines[:-1] + legend(result, rated)


def legend(result: Standings, rated: bool) -> list[str]:
    """What stands below the figures, and what a rating is."""
    figures = [place.figures[result.by] for place in result.places]
    parts = ["Below each figure its 95% interval over the test rows"] if figures[0].low is not None else []
    parts += ["±: standard deviation over seeds"] if any(value.spread is not None for value in figures) else []
    told = ["; ".join(parts) + "."] if parts else []
    if rated:
        told.append(
            f"Rating: Bradley-Terry by each row's {metric_title(result.by)}, mean 1000; 400 points are odds of ten to one."
        )
    return ["", *told] if told else []


def _labels(rank: int, entry: Entry) -> list[str]:
    """The left column: names, what sets the entry apart, seeds."""
    differs = [f"{key}={abbreviate_value(value)}" for key, value in entry.differs.items()]
    texts = [entry.name, *differs, format_seeds(entry)]
    lines = [line for text in texts for line in _wrapped(text, NAME - 3)]
    return [f"{rank:>2} {lines[0]}", *(f"   {line}" for line in lines[1:])]


def _wrapped(text: str, width: int) -> list[str]:
    """
    >>> _wrapped("train.early_stopping.patience=0.25", 27), _wrapped("main, seed-1", 27)
    (['train.early_stopping.', ' patience=0.25'], ['main, seed-1'])
    """
    key, equals, value = text.partition("=")
    section, dot, name = key.rpartition(".")
    if len(text) <= width or not (equals and dot):
        return textwrap.wrap(text, width, subsequent_indent=" ")
    return [section + dot, *textwrap.wrap(name + equals + value, width, initial_indent=" ", subsequent_indent="  ")]


def _cell(value: MetricValue) -> list[str]:
    lines = [format_number(value.value)]
    if value.low is not None:
        lines.append(format_range(value, "–"))
    if value.spread is not None:
        lines.append(f"± {value.spread:.2g}")
    return lines


def format_range(value: MetricValue | PairwiseResult, between: str) -> str:
    """
    >>> format_range(MetricValue(0.5, 0.25, 0.751), "–"), format_range(MetricValue(0.5), "–")
    ('0.25–0.751', '')
    """
    return "" if value.low is None else f"{value.low:.3g}{between}{value.high:.3g}"


def pairwise_line(duel: PairwiseResult) -> str:
    """
    >>> pairwise_line(PairwiseResult(1, 2, 0.5, 0.25, 0.75, 0.001, 0.002, 8, 1, 0, "better", False))
    '1 against 2   better        +0.5     0.25 to 0.75      p 0.002    8 won, 1 tied, 0 lost'
    """
    said = duel.verdict + ("*" if duel.within_seeds else "")
    interval = format_range(duel, " to ")
    counts = f"{duel.wins:,} won, {duel.ties:,} tied, {duel.losses:,} lost"
    p = f"p {duel.p_corrected:.2g}"
    return f"{duel.first} against {duel.second:<3} {said:<13} {format_delta(duel.delta):<8} {interval:<17} {p:<10} {counts}"


def pairwise_lines(result: Standings) -> list[str]:
    """Who is better than whom: of many pairs, those of the first place."""
    if not result.duels:
        return []
    name = metric_title(result.by)
    shown = result.duels if len(result.duels) <= MOST_PAIRS else [duel for duel in result.duels if duel.first == 1]
    count = f"{len(result.duels)} pair{'s' if len(result.duels) > 1 else ''}"
    lines = [f"{name}, row by row: the difference, its 95% interval, and p corrected for {count} (Holm)", ""]
    lines += [pairwise_line(duel) for duel in shown]
    if len(shown) < len(result.duels):
        lines.append(f"The other {len(result.duels) - len(shown)} pairs are in pairs.csv.")
    if any(duel.within_seeds for duel in shown):
        lines.append("* by no more than another train.seed makes (twice the standard error among the seeds here)")
    return ["", *lines]


def console_lines(result: Standings) -> list[str]:
    rows = len(result.places[0].entry.runs[0].rows)
    count = len(result.places)
    first = f"{count} configuration{'s' if count > 1 else ''} on the same {rows:,} test row{'s' if rows > 1 else ''}"
    notes = [line for note in result.notes for line in textwrap.wrap(note, 100)]
    return [
        f"{first}, the best {metric_title(result.by)} first",
        *notes,
        "",
        *console_table(result),
        *pairwise_lines(result),
    ]


def place_row(rank: int, place: Place) -> dict[str, Any]:
    """A place as a flat row: rank, name, commits, seeds, differs, then each metric with interval and spread, and rating."""
    runs = place.entry.runs
    row: dict[str, Any] = {
        "rank": rank,
        "name": place.entry.name,
        "commits": " ".join(run.commit or "workspace" for run in runs),
        "seeds": " ".join(map(str, place.entry.seeds)),
        "differs": "; ".join(f"{key}={format_value(value)}" for key, value in place.entry.differs.items()),
    }
    for name, value in place.figures.items():
        row |= {name: value.value, **{f"{name}.{part}": getattr(value, part) for part in ("low", "high", "spread")}}
    rating = place.rating
    return row | {f"rating{part}": rating and getattr(rating, part[1:] or "value") for part in ("", ".low", ".high")}


def answers_table(result: Standings) -> pd.DataFrame:
    """A row a question: prompt and reference, then each run's answer."""
    runs = [run for place in result.places for run in place.entry.runs]
    first = pd.DataFrame(runs[0].rows)
    shared = first[[name for name in ("id", "prompt", "reference") if name in first]]
    given = {run.name: [row["prediction"] for row in run.rows] for run in runs if "prediction" in run.rows[0]}
    return pd.concat([shared, pd.DataFrame(given)], axis=1)


def write_leaderboard(result: Standings, settings: dict[str, Any], out: Path) -> None:
    """Write the folder whole; ConfigError if it is somebody else's."""
    places = [place_row(rank, place) for rank, place in enumerate(result.places, start=1)]
    duels = [{**duel._asdict(), "by": result.by} for duel in result.duels]
    facts = {**settings, "by": result.by, "rows": len(result.places[0].entry.runs[0].rows), "notes": result.notes}
    helpers = {each.__name__: each for each in (metric_title, abbreviate_value, format_seeds, format_range)}
    page = render_template("pipeline.leaderboard", "leaderboard.html.j2", result=result, facts=facts, **helpers)
    with atomic_write(out) as folder:
        folder.mkdir()
        (folder / FILES[0]).write_text(page, encoding="utf-8")
        pd.DataFrame(places).to_csv(folder / FILES[1], index=False)
        pd.DataFrame(duels, columns=[*PairwiseResult._fields, "by"]).to_csv(folder / FILES[2], index=False)
        answers_table(result).to_csv(folder / FILES[3], index=False)
        text = json.dumps({**facts, "places": places, "pairs": duels}, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / FILES[4]).write_text(text + "\n", encoding="utf-8")


def require_ours(out: Path) -> None:
    """Raise ConfigError if writing the folder would replace what is no leaderboard."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file; expected a folder for {', '.join(FILES)}")
    others = sorted(path.name for path in out.glob("*") if path.name not in FILES) if out.exists() else []
    if others:
        raise ConfigError(
            f"--out {out}: holds {others[0]}, which is no part of a leaderboard; name a folder of its own"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.leaderboard", description=__doc__.splitlines()[0])
    parser.add_argument("revisions", nargs="+", help="branches, tags, commits, experiments, or workspace")
    parser.add_argument("--by", help="the metric that orders, decides pairs and wins (default: f1, or what there is)")
    parser.add_argument("--instance", choices=sorted(MADE_BY), default="finetuned", help="whose predictions")
    parser.add_argument("--resamples", type=int, default=10_000, help="of bootstrap and randomisation (10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (0)")
    parser.add_argument("--out", type=Path, default=LEADERBOARD, help=f"the folder to write ({LEADERBOARD})")
    given = parser.parse_args()
    with report_errors("leaderboard"):
        require_ours(given.out)
        result = build_standings(given.revisions, given.instance, given.by, given.resamples, given.seed)
        settings = {"instance": given.instance, "resamples": given.resamples, "seed": given.seed}
        write_leaderboard(result, settings, given.out)
        print(
            "\n".join(
                [*console_lines(result), "", f"With all metrics and answers: {given.out / FILES[0]} (in a browser)"]
            )
        )
