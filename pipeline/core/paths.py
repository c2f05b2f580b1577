"""The paths that stages share, relative to the project's root."""

import os
from pathlib import Path

CONF, PARAMS = Path("conf"), Path("params.yaml")
CHECKPOINTS = ".checkpoints"

RAW = Path("data/raw")
RAW_ROWS = RAW / "rows.parquet"
RAW_COLUMNS = RAW / "columns.json"  # the column mapping
CLEAN = Path("data/clean")
RECORDS = CLEAN / "records.parquet"
RECORDS_TASK = CLEAN / "task.json"
FORMATTED = Path("data/formatted")
TRAIN_ROWS, TEST_ROWS = FORMATTED / "train.jsonl", FORMATTED / "test.jsonl"
TOKENIZED = Path("data/tokenized")
PREDICTIONS = Path("data/predictions")

MODELS = Path("models")
BASE, FINETUNED = MODELS / "base", MODELS / "finetuned"

METRICS = Path("metrics")
DETAILS = METRICS / "details"
RUNTIME = METRICS / "runtime"
TRAIN_HISTORY = METRICS / "train"
TRAIN_STEPS = DETAILS / "train_steps.tsv"
LEADERBOARD = METRICS / "leaderboard"


def checkpoint_root() -> Path:
    """The folder of what killed runs leave to resume from: CHECKPOINT_ROOT, or .checkpoints/ of the original checkout.

    DVC_ROOT names that checkout where DVC runs a queued experiment in a copy.
    """
    return Path(os.environ.get("CHECKPOINT_ROOT") or Path(os.environ.get("DVC_ROOT", "."), CHECKPOINTS))


def shorten_path(path: Path) -> Path:
    """The path from the working directory, if it is below that."""
    absolute = path.resolve()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute
