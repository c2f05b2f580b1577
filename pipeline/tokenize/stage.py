"""Turns the formatted rows into token ids and labels, and audits them: if they are not fit for training, the stage stops.

    python -m pipeline.tokenize     data/formatted/{train,validation}.jsonl, data/formatted/template.json, models/base
                                    → data/tokenized/{train,validation}.parquet, data/tokenized/template.json,
                                    metrics/details/tokenize.json

Rows are streamed in chunks of CHUNK_ROWS. The tokenizer releases Python's lock, so that the next chunks are tokenized while
this one is truncated, labeled, counted and written. If a gate (`tokenize.gates`) is exceeded, nothing is written.

The audit measures padding in the batches that training is configured to have. The keys for this, such as
`tokenize.batch_size`, are interpolations of training's in conf/, so that the stage still reads only its own section. Another
batch size runs this stage again and writes the same rows.

Whether appending the answer changes the tokens of a prompt is checked in a sample (the first 256 rows of a split and every
64th), because each check tokenizes the row once more. A border that the template makes is the same in every row.

(Run it with -m: run as a script, this file would shadow the standard library's tokenize.)
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

from pipeline.chat.row_format import ChatFormat, TextFormat, read_row_format, write_row_format
from pipeline.config.params import Params, Tokenize
from pipeline.core.entrypoint import stage
from pipeline.core.files import atomic_write, damaged_error, iter_jsonl
from pipeline.core.metrics import write_metrics
from pipeline.core.paths import BASE, FORMATTED, TOKENIZED
from pipeline.errors import DataError
from pipeline.modeling.encoding import Encoder
from pipeline.modeling.model_config import max_positions_of
from pipeline.tokenize.audit import Audit, epoch_stats
from pipeline.tokenize.blocks import SCHEMA, Block, assemble_block
from pipeline.tokenize.chats import ChatChunk, encode_chats
from pipeline.tokenize.examples import example_rows
from pipeline.tokenize.gates import require_gates
from pipeline.tokenize.row_tokenizer import RowTokenizer, load_row_tokenizer
from pipeline.tokenize.unknown import UnknownCounter, UnknownText

log = logging.getLogger(__name__)

SPLITS = ("train", "validation")
CHUNK_ROWS = 2000  # many rows keep the tokenizer's threads busy, few save memory
CHECK_FIRST, CHECK_EVERY = 256, 64  # rows with a checked prompt: the first ones of a split, then every 64th
S = TypeVar("S")
T = TypeVar("T")


class EncodedChunk(NamedTuple):
    """Tokenized rows before truncation."""

    row_ids: list[int]
    prompts: list[list[int]]
    completions: list[list[int]]
    prefix_checks: list[tuple[int, bool]]  # (row id, whether appending the answer changes its prompt tokens)
    unknown: dict[str, UnknownText]  # in the prompts and in the answers
    start_ids: tuple[int, ...]

    def assemble(self, options: Tokenize) -> Block:
        return assemble_block(self.row_ids, self.prompts, self.completions, options, self.start_ids)


def encode_chunk(
    rows: list[tuple[int, dict[str, Any]]], encoder: Encoder, counter: UnknownCounter, path: Path
) -> EncodedChunk:
    """Tokenize (row number from 0, row) pairs of the file `path`. Plain text has an empty prompt and is all labeled.

    Raises DataError if a row has no id, prompt or completion.
    """
    prompts, completions = (_column(rows, name, str, path) for name in ("prompt", "completion"))
    row_ids = _column(rows, "id", int, path)
    encoded = encoder.encode_prompts(prompts)
    sample = [index for index, (number, _) in enumerate(rows) if number < CHECK_FIRST or number % CHECK_EVERY == 0]
    together = encoder.encode_prompts(prompts[index] + completions[index] for index in sample)
    prefix_checks = [
        (row_ids[index], input_ids[: len(encoded[index])] != encoded[index])
        for index, input_ids in zip(sample, together, strict=True)
    ]
    answers = encoder.encode_completions(completions)
    start = len(encoder.start_ids)
    unknown = {
        "prompts": counter.count_rows(row_ids, prompts, [ids[start:] for ids in encoded]),
        "answers": counter.count_rows(row_ids, completions, [ids[:-1] for ids in answers]),  # without the end of text
    }
    return EncodedChunk(row_ids, encoded, answers, prefix_checks, unknown, encoder.start_ids)


def _column(rows: list[tuple[int, dict[str, Any]]], name: str, kind: type[T], path: Path) -> list[T]:
    values: list[T] = []
    for number, row in rows:
        value = row.get(name)
        if not isinstance(value, kind):
            raise damaged_error(path, f"row {number + 1} has no {'text' if kind is str else 'number'} in {name}")
        values.append(value)
    return values


def prefetch(function: Callable[[S], T], values: Iterable[S]) -> Iterator[T]:
    """Yield the function's results in order, while two threads compute the next two."""
    with ThreadPoolExecutor(2) as threads:
        pending: deque[Future[T]] = deque()
        for value in values:
            pending.append(threads.submit(function, value))
            if len(pending) > 2:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def tokenize_split(path: Path, tokenizer: RowTokenizer, options: Tokenize, audit: Audit) -> Iterator[Block]:
    """Yield the blocks of one split's file after adding them to the audit. Raises DataError if the file has no rows."""
    rows = enumerate(iter_jsonl(path))
    chunks = iter(lambda: list(itertools.islice(rows, CHUNK_ROWS)), [])
    counter = UnknownCounter(tokenizer.encoder.tokenizer)

    def encode(rows: list[tuple[int, dict[str, Any]]]) -> EncodedChunk | ChatChunk:
        if tokenizer.chat is not None:
            return encode_chats(rows, tokenizer.chat, options, counter, path)
        return encode_chunk(rows, tokenizer.encoder, counter, path)

    for chunk in prefetch(encode, chunks):
        block = chunk.assemble(options)
        audit.add(block, chunk.prefix_checks, chunk.unknown)
        yield block
    if not audit.rows:
        raise damaged_error(path, "it holds no rows")


def require_positions(max_length: int, folder: Path) -> None:
    """Raise DataError if rows may be longer than the positions of the model in `folder`."""
    positions = max_positions_of(folder)
    if positions and max_length > positions:
        raise DataError(f"tokenize.max_length: {max_length} is more than the model's {positions} positions")


def count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def tokenize_files(
    sources: dict[str, Path], target: Path, tokenizer: RowTokenizer, options: Tokenize
) -> dict[str, Any]:
    """Write one Parquet file for each split into the folder `target`; return the metrics.

    sources: split → JSON Lines file, train first. Raises DataError, and leaves `target` as it was, if a gate of
    `options.gates` is exceeded.
    """
    total, seen_hashes = sum(map(count_lines, sources.values())), set[bytes]()
    log.info(
        f"Tokenizing {total:,} rows ({' and '.join(sources)}, at most {options.max_length:,} tokens each); "
        f"loss on {describe_loss(options.loss, tokenizer.row_format)}"
    )
    audits = {split: Audit(tokenizer.borders, seen_hashes) for split in sources}
    with (
        atomic_write(target) as folder,
        tqdm(total=total, desc="tokenize", unit="row", disable=None, leave=False) as bar,
    ):
        folder.mkdir()
        write_row_format(folder, tokenizer.row_format)
        for split, audit in audits.items():
            with pq.ParquetWriter(folder / f"{split}.parquet", SCHEMA, compression="zstd") as writer:
                for block in tokenize_split(sources[split], tokenizer, options, audit):
                    writer.write_batch(block.record_batch())
                    bar.update(len(set(block.row_ids)))
        padding, epoch = epoch_stats(audits["train"], options)
        findings = {split: audit.findings for split, audit in audits.items()}
        require_gates({**findings, "train": {**findings["train"], "padding": padding}}, options.gates)
    return {**{split: audit.metrics(options.max_length) for split, audit in audits.items()}, "epoch": epoch}


def describe_loss(loss: str, row_format: TextFormat | ChatFormat) -> str:
    """The tokens that count toward the loss, in words.

    >>> describe_loss("last", TextFormat()), describe_loss("full", TextFormat())
    ('the completion', 'all tokens')
    """
    if loss == "full":
        return "all tokens"
    if isinstance(row_format, TextFormat):
        return "the completion"
    return "every turn of the assistant" if loss == "assistant" else "the last turn of the assistant"


def summarize_audit(metrics: dict[str, Any]) -> str:
    """The main counts of the training set in one line, with only those problems that occur."""
    train, padding = metrics["train"], metrics["epoch"]["padding"]["share"]
    problems = {
        "rows truncated": train["rows_truncated"],
        "answer tokens lost": train["answer_tokens_lost"],
        "rows with an answer whose end is not learned": train["rows_unended"],
        "rows that do not begin with one beginning token": train["rows_wrong_start"],
        "rows that do not begin with the prompt of a served model": train["rows_prompt_mismatch"],
        "duplicates": train["rows_duplicates"],
        "prompts whose tokens change when the answer is appended": train["prefixes"]["rows_different"],
        "answer tokens unknown to the tokenizer": train["unknown"]["answer_tokens"],
        "prompt tokens unknown to the tokenizer": train["unknown"]["prompt_tokens"],
    }
    size = f"train: {train['rows']:,} rows, {train['tokens']:,} tokens ({train['supervised_share']:.0%} labeled)"
    problem_counts = ", ".join(f"{count:,} {problem}" for problem, count in problems.items() if count)
    return f"{size}; {padding:.0%} of batch positions are padding" + (f"; {problem_counts}" if problem_counts else "")


@stage("tokenize")
def main(params: Params) -> None:
    require_positions(params.tokenize.max_length, BASE)
    sources = {split: FORMATTED / f"{split}.jsonl" for split in SPLITS}
    tokenizer = load_row_tokenizer(read_row_format(FORMATTED), BASE)
    metrics = tokenize_files(sources, TOKENIZED, tokenizer, params.tokenize)
    examples = example_rows(TOKENIZED / "train.parquet", tokenizer.encoder.tokenizer)
    write_metrics("tokenize", {**metrics, "examples": examples}, {"tokens.train": "train.tokens"})
    log.info(f"{summarize_audit(metrics)} → {TOKENIZED}/")
