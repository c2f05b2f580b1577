"""Options of the tokenize stage for tests."""

from typing import Any

from pipeline.config.params import Gates, Tokenize

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
