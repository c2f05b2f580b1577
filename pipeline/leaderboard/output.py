"""Writes the leaderboard folder: the page, the CSV tables and leaderboard.json."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.compare.csv_files import write_csv
from pipeline.compare.report import render_template
from pipeline.core.files import atomic_write
from pipeline.errors import ConfigError
from pipeline.leaderboard.formatting import format_range, format_seeds, format_short_value, format_value, metric_title
from pipeline.leaderboard.standings import PairwiseResult, RankedEntry, Standings

OUTPUT_FILES = ("leaderboard.html", "leaderboard.csv", "pairs.csv", "answers.csv", "leaderboard.json")


def require_leaderboard_folder(out: Path) -> None:
    """Raise ConfigError if writing `out` would replace anything that is not a leaderboard."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file; expected a folder for {', '.join(OUTPUT_FILES)}")
    others = sorted(path.name for path in out.glob("*") if path.name not in OUTPUT_FILES) if out.exists() else []
    if others:
        raise ConfigError(
            f"--out {out}: contains {others[0]}, which is not a file of a leaderboard; choose a folder only for it"
        )


def write_leaderboard(standings: Standings, settings: dict[str, Any], out: Path) -> None:
    """Write all files atomically, replacing `out`. `settings` (instance, resamples, seed) are recorded in them."""
    rows = len(standings.entries[0].entry.runs[0].rows)
    facts = {**settings, "by": standings.metric, "rows": rows, "notes": standings.notes}
    entries = [entry_row(rank, ranked) for rank, ranked in enumerate(standings.entries, start=1)]
    pairs = [{**pair._asdict(), "by": standings.metric} for pair in standings.pairs]
    page = _render_page(standings, facts)
    with atomic_write(out) as folder:
        folder.mkdir()
        (folder / "leaderboard.html").write_text(page, encoding="utf-8")
        write_csv(pd.DataFrame(entries), folder / "leaderboard.csv")
        write_csv(pd.DataFrame(pairs, columns=[*PairwiseResult._fields, "by"]), folder / "pairs.csv")
        write_csv(answers_by_run_table(standings), folder / "answers.csv")
        text = json.dumps({**facts, "places": entries, "pairs": pairs}, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "leaderboard.json").write_text(text + "\n", encoding="utf-8")


def _render_page(standings: Standings, facts: dict[str, Any]) -> str:
    functions = {
        function.__name__: function for function in (metric_title, format_short_value, format_seeds, format_range)
    }
    return render_template("pipeline.leaderboard", "leaderboard.html.j2", standings=standings, facts=facts, **functions)


def entry_row(rank: int, ranked: RankedEntry) -> dict[str, Any]:
    """A row of leaderboard.csv: rank, name, commits, seeds, differs, each metric with interval and spread, rating."""
    entry, rating = ranked.entry, ranked.rating
    row: dict[str, Any] = {
        "rank": rank,
        "name": entry.name,
        "commits": " ".join(run.commit or "workspace" for run in entry.runs),
        "seeds": " ".join(map(str, entry.seeds)),
        "differs": "; ".join(f"{key}={format_value(value)}" for key, value in entry.differences.items()),
    }
    for name, value in ranked.values.items():
        row |= {
            name: value.value,
            f"{name}.low": value.low,
            f"{name}.high": value.high,
            f"{name}.spread": value.spread,
        }
    return row | {
        "rating": rating and rating.value,
        "rating.low": rating and rating.low,
        "rating.high": rating and rating.high,
    }


def answers_by_run_table(standings: Standings) -> pd.DataFrame:
    """answers.csv: one row per test row, with its prompt, its reference and a column of answers for each run."""
    runs = [run for ranked in standings.entries for run in ranked.entry.runs]
    first = pd.DataFrame(runs[0].rows)
    shared = first[[name for name in ("id", "prompt", "reference") if name in first]]
    answers = {run.name: [row["prediction"] for row in run.rows] for run in runs if "prediction" in run.rows[0]}
    return pd.concat([shared, pd.DataFrame(answers)], axis=1)
