"""Prints rows of data/tokenized as the model sees them, with the learned tokens marked.

    python -m pipeline.inspect                  the first three rows of the training set
    python -m pipeline.inspect --row 17         row 17, of a dialogue all of its rows

Learned text stands between ⟦ and ⟧, in green on a terminal; control tokens are bold. NO_COLOR=1 turns colors off.
"""

import argparse
import os
import sys

from pipeline.core.console import ignore_closed_pipe, printable
from pipeline.core.entrypoint import report_errors
from pipeline.core.paths import BASE
from pipeline.inspect.rows import SPLITS, FoundRow, find_rows, first_rows
from pipeline.modeling.encoding import IGNORE_INDEX, load_encoder
from pipeline.tokenize.masked_text import Segment, segments_of

GREEN, BOLD, RESET = "\x1b[32m", "\x1b[1m", "\x1b[0m"
LEARNED_MARKS = "⟦", "⟧"
LEGEND = "Learned text stands between ⟦ and ⟧; ↵ is a line break."


def describe_row(found: FoundRow) -> str:
    """The line above a row.

    >>> describe_row(FoundRow({"id": 7, "input_ids": [5, 6], "labels": [-100, 6], "dropped_tokens": 3}, "train", 2, 3))
    'Row 7 of train (2 of 3 rows of this dialogue): 2 tokens, 1 learned, 3 dropped by truncation'
    """
    row = found.row
    learned = sum(label != IGNORE_INDEX for label in row["labels"])
    part = f" ({found.number} of {found.rows} rows of this dialogue)" if found.rows > 1 else ""
    dropped = f", {row['dropped_tokens']:,} dropped by truncation" if row.get("dropped_tokens") else ""
    return f"Row {row['id']} of {found.split}{part}: {len(row['input_ids']):,} tokens, {learned:,} learned{dropped}"


def mark_segments(segments: list[Segment], has_color: bool) -> str:
    """The text of a row with its learned parts marked and its line breaks shown."""
    text, was_learned = "", False
    for segment in segments:
        if segment.is_learned != was_learned:
            text += LEARNED_MARKS[was_learned]
        was_learned = segment.is_learned
        shown = printable(segment.text).replace("\n", "↵\n")
        codes = (GREEN if segment.is_learned else "") + (BOLD if segment.is_special else "")
        text += f"{codes}{shown}{RESET}" if has_color and codes else shown
    return text + (LEARNED_MARKS[1] if was_learned else "")


def wants_color() -> bool:
    """Whether standard output is a terminal that shows colors, by the conventions of NO_COLOR and FORCE_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (sys.stdout.isatty() and os.environ.get("TERM") != "dumb")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.inspect", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--row", type=int, metavar="ID", help="the id of a row")
    parser.add_argument("--split", choices=SPLITS, help="train or validation (default: train; with --row, both)")
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="the number of rows (default: 3)")
    arguments = parser.parse_args()
    if arguments.rows < 1:
        parser.error("--rows: expected at least 1")
    with report_errors("inspect"), ignore_closed_pipe():
        if arguments.row is None:
            found = first_rows(arguments.split or "train", arguments.rows)
        else:
            found = find_rows(arguments.row, (arguments.split,) if arguments.split else SPLITS)
        tokenizer, has_color = load_encoder(BASE).tokenizer, wants_color()
        print(LEGEND)
        for each in found:
            segments = segments_of(tokenizer, each.row["input_ids"], each.row["labels"])
            print(f"\n{describe_row(each)}\n{mark_segments(segments, has_color)}")
