"""Options of the tokenize stage for tests, and the borders of rows of numbers."""

from typing import Any

import numpy as np

from pipeline.config.params import Gates, Tokenize
from pipeline.tokenize.borders import RowBorders

GATES = {
    f"max_{name}": None for name in ("truncated", "answer_tokens_lost", "duplicates", "prefix_mismatch", "padding")
}
GATES |= {f"max_{name}": 0.0 for name in ("unlabelled", "unended", "wrong_start", "prompt_mismatch", "unknown")}


def tokenize_options(gates: dict[str, float | None] | None = None, **changes: Any) -> Tokenize:
    """The shipped options, with changes."""
    values = {
        "max_length": 512,
        "loss": "assistant",
        "batch_size": 2,
        "group_by_length": False,
        "packing": False,
        "gradient_accumulation": 1,
        "processes": 1,
        "nodes": 1,
        "gates": Gates(**GATES | (gates or {})),
    }
    return Tokenize(**values | changes)


def borders_with(end_id: int, vocabulary: int = 600) -> RowBorders:
    """The borders of rows whose answers end with end_id, and that begin with any token."""
    return RowBorders(np.array([end_id], np.int32), (), None, np.zeros(vocabulary, bool))
