"""Turns the formatted rows into token ids and labels, and audits what training would see.

    python -m pipeline.tokenize     data/formatted/{train,validation}.jsonl, models/base/tokenizer.json
                                    → data/tokenized/{train,validation}.parquet, metrics/tokenize.json

(Run it with -m: as a script, this file would take the place of the standard library's tokenize.)
"""

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.encoding import IGNORED, Encoder, Example, join, load_encoder
from pipeline.errors import DataError
from pipeline.files import read_jsonl, whole, write_json
from pipeline.params import Params, Tokenize
from pipeline.stage import stage
from pipeline.weights import positions_of

log = logging.getLogger(__name__)

FORMATTED, BASE, TOKENIZED = Path("data/formatted"), Path("models/base"), Path("data/tokenized")
METRICS = Path("metrics/tokenize.json")
SPLITS = ("train", "validation")
CHUNK = 10_000  # rows encoded at a time: the tokenizer's threads need many, memory few
SCHEMA = pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32()), "length": pa.int32()})


def encode(
    rows: list[dict[str, Any]], encoder: Encoder, options: Tokenize, bar: tqdm | None = None
) -> Iterator[Example]:
    """The rows' examples in their order. A row without a prompt is plain text, and all of it is learned."""
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        prompts = encoder.prompts(row["prompt"] for row in chunk)
        completions = encoder.completions(row["completion"] for row in chunk)
        for prompt, completion in zip(prompts, completions, strict=True):
            yield join(prompt, completion, options.max_length, options.loss, encoder.bos)
        if bar is not None:
            bar.update(len(chunk))


def audit(examples: list[Example], eos: int) -> dict[str, Any]:
    """What training sees: rows, tokens, what was cut, and the share of tokens in the loss."""
    tokens = sum(len(each.input_ids) for each in examples)
    supervised = sum(label != IGNORED for each in examples for label in each.labels)
    return {
        "rows": len(examples),
        "tokens": tokens,
        "longest": max(len(each.input_ids) for each in examples),
        "rows_truncated": sum(each.truncated > 0 for each in examples),
        "tokens_truncated": sum(each.truncated for each in examples),
        "supervised_share": supervised / tokens,
        "rows_without_labels": sum(all(label == IGNORED for label in each.labels) for each in examples),
        "rows_without_end": sum(each.labels[-1] != eos for each in examples),
    }


def padding_share(lengths: list[int], batch_size: int) -> float:
    """The share of a batch that is padding when rows of these lengths, in this order, are batched.

    >>> padding_share([1, 3, 4, 4], batch_size=2)  # 2 of the 14 places: 2 × 3 and 2 × 4
    0.14285714285714285
    """
    batches = [lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size)]
    places = sum(max(batch) * len(batch) for batch in batches)
    return (places - sum(lengths)) / places


def padding(lengths: list[int]) -> dict[str, dict[str, float]]:
    """The padding that batches of some sizes waste, rows shuffled or grouped by length."""
    shuffled = random.Random(0).sample(lengths, len(lengths))
    sizes = (4, 16, 64)
    return {
        "shuffled": {f"batch_{size}": padding_share(shuffled, size) for size in sizes},
        "by_length": {f"batch_{size}": padding_share(sorted(lengths), size) for size in sizes},
    }


def require_positions(max_length: int, folder: Path) -> None:
    """Raise DataError if rows could be longer than the model's positions."""
    positions = positions_of(folder)
    if positions and max_length > positions:
        raise DataError(f"tokenize.max_length: {max_length} is more than the model's {positions} positions")


def write(splits: dict[str, list[Example]]) -> None:
    with whole(TOKENIZED) as folder:
        folder.mkdir()
        for name, examples in splits.items():
            columns = [
                [each.input_ids for each in examples],
                [each.labels for each in examples],
                [len(each.input_ids) for each in examples],
            ]
            pq.write_table(pa.table(columns, schema=SCHEMA), folder / f"{name}.parquet", compression="zstd")


@stage("tokenize")
def main(params: Params) -> None:
    require_positions(params.tokenize.max_length, BASE)
    encoder = load_encoder(BASE)
    rows = {name: read_jsonl(FORMATTED / f"{name}.jsonl") for name in SPLITS}
    total = sum(len(each) for each in rows.values())
    log.info(
        f"Tokenizing {total:,} rows of at most {params.tokenize.max_length:,} tokens; learned: {params.tokenize.loss}"
    )
    with tqdm(total=total, desc="tokenize", unit="row", disable=None, leave=False) as bar:
        splits = {name: list(encode(rows[name], encoder, params.tokenize, bar)) for name in SPLITS}
    write(splits)
    metrics: dict[str, Any] = {name: audit(examples, encoder.eos) for name, examples in splits.items()}
    metrics["padding"] = padding([len(each.input_ids) for each in splits["train"]])
    write_json(METRICS, metrics)
    train = metrics["train"]
    log.info(
        f"train: {train['rows']:,} rows, {train['tokens']:,} tokens, {train['supervised_share']:.0%} of them in the loss, "
        f"{train['rows_truncated']:,} rows truncated → {TOKENIZED}/"
    )


if __name__ == "__main__":
    main()
