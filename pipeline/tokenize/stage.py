"""Turns the formatted rows into token ids and labels, audits what training would see, and stops if it is not fit.

    python -m pipeline.tokenize     data/formatted/{train,validation}.jsonl, models/base/tokenizer.json
                                    → data/tokenized/{train,validation}.parquet, metrics/tokenize.json

The rows stream through, CHUNK of them at a time: the tokenizer, which leaves Python free, works on the next chunks while
this one is cut, labelled, counted and written. If a gate (`tokenize.gates`) is exceeded, nothing is written.

Padding is measured at the batch size that training is configured with; `tokenize.batch_size` is an interpolation of
`train.batch_size` in conf/, so the stage still reads its own section alone. Another batch size runs this stage again,
with the same rows written.

Whether prompts tokenize differently alone is looked at in a sample, the first 256 rows of a split and every 64th, since
it takes to tokenize a row once more. A border that the template makes is the same in every row.

(Run it with -m: as a script, this file would take the place of the standard library's tokenize.)
"""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.config.params import Params, Tokenize
from pipeline.core.entrypoint import stage
from pipeline.core.files import atomic_write, damaged_error, iter_jsonl, write_json
from pipeline.core.paths import BASE, FORMATTED, METRICS, TOKENIZED
from pipeline.errors import DataError
from pipeline.modeling.encoding import Encoder, load_encoder
from pipeline.modeling.loading import max_positions_of
from pipeline.tokenize.audit import Audit, epoch_stats, require_gates
from pipeline.tokenize.blocks import SCHEMA, Block, assemble_block

log = logging.getLogger(__name__)

SPLITS = ("train", "validation")
CHUNK = 2000  # rows tokenized at a time: the tokenizer's threads need many, memory few
CHECKED, STEP = 256, 64  # rows of which the prompt's border is looked at: the first of a split, and every 64th after
S, T = TypeVar("S"), TypeVar("T")


class Encoded(NamedTuple):
    """A chunk of rows, tokenized and not yet cut."""

    ids: list[Any]
    prompts: list[list[int]]
    completions: list[list[int]]
    checked: list[tuple[Any, bool]]  # (a row's id, whether its prompt tokenizes differently alone)


def encode_chunk(rows: list[tuple[int, dict[str, Any]]], encoder: Encoder, path: Path) -> Encoded:
    """Some rows of a file, each with its number from 0. One without a prompt is plain text, and all of it is learned."""
    ids = [row.get("id") for _, row in rows]
    prompts, completions = (_texts(rows, name, path) for name in ("prompt", "completion"))
    found = encoder.prompts(prompts)
    looked_at = [at for at, (number, _) in enumerate(rows) if number < CHECKED or number % STEP == 0]
    together = encoder.prompts(prompts[at] + completions[at] for at in looked_at)
    checked = [(ids[at], whole[: len(found[at])] != found[at]) for at, whole in zip(looked_at, together, strict=True)]
    return Encoded(ids, found, encoder.completions(completions), checked)


def _texts(rows: list[tuple[int, dict[str, Any]]], name: str, path: Path) -> list[str]:
    texts = [row.get(name) for _, row in rows]
    for (number, _), text in zip(rows, texts, strict=True):
        if not isinstance(text, str):
            raise damaged_error(path, f"row {number + 1} has no text as its {name}")
    return texts  # type: ignore[return-value]


def prefetch(work: Callable[[S], T], values: Iterable[S]) -> Iterator[T]:
    """The work's results in order, two of them being made in threads while the one before them is in use."""
    with ThreadPoolExecutor(2) as threads:
        coming: deque[Future[T]] = deque()
        for value in values:
            coming.append(threads.submit(work, value))
            if len(coming) > 2:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def tokenize_split(path: Path, encoder: Encoder, options: Tokenize, audit: Audit) -> Iterator[Block]:
    """The blocks of a split's file, each counted by the audit."""
    rows = enumerate(iter_jsonl(path))
    chunks = iter(lambda: list(itertools.islice(rows, CHUNK)), [])
    for chunk in prefetch(lambda rows: encode_chunk(rows, encoder, path), chunks):
        block = assemble_block(chunk.ids, chunk.prompts, chunk.completions, options, encoder.bos)
        audit.add(block, chunk.checked)
        yield block
    if not audit.rows:
        raise damaged_error(path, "it holds no rows")


def require_positions(max_length: int, folder: Path) -> None:
    """Raise DataError if rows could be longer than the model's positions."""
    positions = max_positions_of(folder)
    if positions and max_length > positions:
        raise DataError(f"tokenize.max_length: {max_length} is more than the model's {positions} positions")


def count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def tokenize_files(sources: dict[str, Path], target: Path, encoder: Encoder, options: Tokenize) -> dict[str, Any]:
    """Write a Parquet file a split into the folder `target`; return the metrics.

    DataError, and `target` as it was, if the audit finds more of something than `options.gates` allow.
    """
    total, seen = sum(map(count_lines, sources.values())), set[bytes]()
    log.info(f"Tokenizing {total:,} rows of at most {options.max_length:,} tokens; learned: {options.loss}")
    audits = {name: Audit(encoder.eos, seen) for name in sources}
    with (
        atomic_write(target) as folder,
        tqdm(total=total, desc="tokenize", unit="row", disable=None, leave=False) as bar,
    ):
        folder.mkdir()
        for name, audit in audits.items():
            with pq.ParquetWriter(folder / f"{name}.parquet", SCHEMA, compression="zstd") as writer:
                for block in tokenize_split(sources[name], encoder, options, audit):
                    writer.write_batch(block.batch())
                    bar.update(len(block.ids))
        padding, an_epoch = epoch_stats(audits["train"], options)
        found = {name: audit.found for name, audit in audits.items()}
        require_gates({**found, "train": {**found["train"], "padding": padding}}, options.gates)
    return {**{name: audit.metrics(options.max_length) for name, audit in audits.items()}, "epoch": an_epoch}


def summarize_audit(metrics: dict[str, Any]) -> str:
    """What a person should know of train, in a line; faults only where there are any."""
    train, padding = metrics["train"], metrics["epoch"]["padding"]["share"]
    faults = {
        "rows truncated": train["rows_truncated"],
        "answer tokens lost": train["answer_tokens_lost"],
        "answers without an end": train["rows_unended"],
        "duplicates": train["rows_duplicates"],
        "prompts that tokenize differently alone": train["prefixes"]["rows_different"],
    }
    parts = [
        f"{train['rows']:,} rows",
        f"{train['tokens']:,} tokens",
        f"{train['supervised_share']:.0%} of them in the loss",
    ]
    parts += [f"{padding:.0%} padding", *(f"{count:,} {fault}" for fault, count in faults.items() if count)]
    return f"train: {', '.join(parts)}"


@stage("tokenize")
def main(params: Params) -> None:
    require_positions(params.tokenize.max_length, BASE)
    sources = {name: FORMATTED / f"{name}.jsonl" for name in SPLITS}
    metrics = tokenize_files(sources, TOKENIZED, load_encoder(BASE), params.tokenize)
    write_json(METRICS / "tokenize.json", metrics)
    log.info(f"{summarize_audit(metrics)} → {TOKENIZED}/")
