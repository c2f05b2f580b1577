"""Every path that the stages share, relative to the project's root."""

import os
from pathlib import Path

CONF, PARAMS = Path("conf"), Path("params.yaml")

RAW = Path("data/raw")
RAW_ROWS = RAW / "rows.parquet"
CLEAN = Path("data/clean")
RECORDS = CLEAN / "records.parquet"
FORMATTED = Path("data/formatted")
TEST_ROWS = FORMATTED / "test.jsonl"
TOKENIZED = Path("data/tokenized")
PREDICTIONS = Path("data/predictions")

MODELS = Path("models")
BASE, FINETUNED = MODELS / "base", MODELS / "finetuned"

METRICS = Path("metrics")
RUNTIME = METRICS / "runtime"
TRAIN_HISTORY = METRICS / "train"
LEADERBOARD = METRICS / "leaderboard"


def checkpoint_root() -> Path:
    """.checkpoints/ of the main checkout: DVC names it in DVC_ROOT where a queued experiment runs in a copy."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".checkpoints"
