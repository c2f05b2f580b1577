"""Reads config.json of a model folder without transformers, whose import takes seconds."""

import json
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError

ADAPTER_CONFIG = "adapter_config.json"  # peft's file name, in the folder of an adapter
REWRITE = "save the model again, or run dvc repro if a stage wrote it"


def read_config(folder: Path, name: str = "") -> dict[str, Any]:
    """config.json of a model folder. Raises ModelError if it is not a JSON object."""
    path = folder / "config.json"
    label = f"{name or folder}/config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{label} is not JSON ({error}); {REWRITE}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{label} is not a JSON object; {REWRITE}")
    return config


def max_positions_of(folder: Path) -> int | None:
    """The number of positions of a folder's model, which limits prompt and answer; None if config.json sets no limit.

    Raises ModelError if config.json is not a JSON object.
    """
    config = read_config(folder)
    return config.get("max_position_embeddings") or config.get("n_positions")
