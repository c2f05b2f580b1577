"""Rows of the training set as the model sees them, for the report."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer

from pipeline.core.files import ParquetReader
from pipeline.modeling.encoding import IGNORE_INDEX
from pipeline.tokenize.masked_text import segments_of

COUNT = 3
LONG = 400  # tokens; of a longer row, the middle is left out
BATCH_ROWS = 10_000


def example_rows(path: Path, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The first, the middle and the last row of a tokenized file, each with the segments of its text."""
    reader = ParquetReader(path)
    places = sorted({0, reader.num_rows // 2, reader.num_rows - 1})
    rows: list[dict[str, Any]] = []
    start = 0
    for table in reader.iter_tables(["id", "input_ids", "labels"], BATCH_ROWS):
        inside = [place - start for place in places if start <= place < start + table.num_rows]
        rows += table.take(pa.array(inside, pa.int64())).to_pylist()
        start += table.num_rows
    return [_describe(row, tokenizer) for row in rows[:COUNT]]


def _describe(row: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    ids, labels = row["input_ids"], row["labels"]
    parts = [(ids, labels)]
    if len(ids) > LONG:
        parts = [(ids[: LONG // 2], labels[: LONG // 2]), (ids[-LONG // 2 :], labels[-LONG // 2 :])]
    segments = [
        [{"text": s.text, "learned": s.is_learned, "special": s.is_special} for s in segments_of(tokenizer, *part)]
        for part in parts
    ]
    return {
        "id": row["id"],
        "tokens": len(ids),
        "learned_tokens": sum(label != IGNORE_INDEX for label in labels),
        "parts": segments,  # two if the middle is left out
    }
