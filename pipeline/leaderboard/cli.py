"""Ranks git revisions and DVC experiments, with intervals, pairwise tests and ratings.

    python -m pipeline.leaderboard main exp-a exp-b HEAD~3      data/predictions/finetuned.jsonl of each, through DVC
                                                                → the console, metrics/leaderboard/

A revision is a branch, a tag, a commit, HEAD~3, the name of an experiment, or `workspace`. Runs that differ only in
train.seed are combined in one entry.
"""

import argparse
from pathlib import Path

from pipeline.core.console import printable
from pipeline.core.entrypoint import report_errors
from pipeline.core.paths import LEADERBOARD
from pipeline.leaderboard.console import format_standings
from pipeline.leaderboard.entries import (
    align_metric_versions,
    environment_notes,
    group_by_configuration,
    merge_identical_runs,
    restrict_to_shared_rows,
)
from pipeline.leaderboard.output import require_leaderboard_folder, write_leaderboard
from pipeline.leaderboard.runs import PREDICTION_STAGES, load_runs
from pipeline.leaderboard.standings import Standings, rank_entries


def build_standings(names: list[str], instance: str, by: str | None, resamples: int, seed: int) -> Standings:
    """Load the runs, bring them to the same test rows and metric version, and rank them."""
    runs, merge_notes = merge_identical_runs(load_runs(names, instance))
    restricted, row_notes = restrict_to_shared_rows(runs)
    partial = any(len(after.rows) < len(before.rows) for before, after in zip(runs, restricted, strict=True))
    aligned, version_notes = align_metric_versions(restricted)
    standings = rank_entries(group_by_configuration(aligned), by, resamples, seed, partial)
    notes = [*merge_notes, *row_notes, *version_notes, *environment_notes(runs), *standings.notes]
    return standings._replace(notes=notes)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.leaderboard", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "revisions", nargs="+", help="branches, tags, commits, names of experiments, or `workspace` (the current files)"
    )
    parser.add_argument(
        "--by",
        metavar="METRIC",
        help="the metric for the ranking, the pairwise tests and the ratings (default: f1, else the first of "
        "exact_match, bleu, loss, rougeL that all runs have)",
    )
    parser.add_argument(
        "--instance",
        choices=sorted(PREDICTION_STAGES),
        default="finetuned",
        help="the model to rank: base or fine-tuned (default: finetuned)",
    )
    parser.add_argument(
        "--resamples", type=int, default=10_000, help="number of resamples for intervals and tests (default: 10000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the resampling (default: 0)")
    parser.add_argument("--out", type=Path, default=LEADERBOARD, help=f"the output folder (default: {LEADERBOARD})")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    with report_errors("leaderboard"):
        require_leaderboard_folder(arguments.out)
        standings = build_standings(
            arguments.revisions, arguments.instance, arguments.by, arguments.resamples, arguments.seed
        )
        settings = {"instance": arguments.instance, "resamples": arguments.resamples, "seed": arguments.seed}
        write_leaderboard(standings, settings, arguments.out)
        print(printable("\n".join([*format_standings(standings), ""])))
        print(f"All metrics: {arguments.out}/leaderboard.html (open it in a browser)")
        print(f"All answers: {arguments.out}/answers.csv")
