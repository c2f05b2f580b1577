"""Speed and memory of the tokenize stage, beside the tokenizer alone and a map over single rows.

    python -m bench.tokenize --rows 20000
    python -m bench.tokenize --rows 257000 --rows-from rows.jsonl --columns Patient Doctor --tokenizer path/to/model

The three take turns on the same rows in one process, so that other load on the machine slows all of them:

bare    `encode_batch_fast` of the tokenizers library on prompts and completions in memory; results are not kept
stage   the complete stage: reading JSON Lines, tokenizing, truncation, labels, the audit, writing Parquet
map     datasets.map with batch_size=1 and two passes of the tokenizer, as in many tutorials, on --mapped rows
"""

import argparse
import contextlib
import itertools
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.stages import copy_tokenizer
from pipeline.config.params import Gates, Tokenize
from pipeline.core.files import iter_jsonl, write_jsonl
from pipeline.modeling.encoding import Encoder, load_encoder
from pipeline.synthetic.dialogues import generate_dialogues, read_knowledge
from pipeline.tokenize.row_tokenizer import text_tokenizer
from pipeline.tokenize.stage import CHUNK_ROWS, tokenize_files

KNOWLEDGE = Path("data/knowledge/conditions.yaml")
DIALOGUES_PER_ROW = 4  # concatenated, which makes a row as long as real ones
Pair = tuple[str, str]


def load_pairs(options: argparse.Namespace) -> list[Pair]:
    """(prompt, completion) of each row of the given file, or of generated dialogues."""
    if options.rows_from:
        question, answer = options.columns
        return [(row[question], row[answer]) for row in iter_jsonl(options.rows_from)]
    rows = generate_dialogues(read_knowledge(KNOWLEDGE), 4000, seed=0)
    groups = [rows[start : start + DIALOGUES_PER_ROW] for start in range(0, len(rows), DIALOGUES_PER_ROW)]
    return [
        (" ".join(row["Patient"] for row in group), "\n" + " ".join(row["Doctor"] for row in group)) for group in groups
    ]


def tokenize_bare(encoder: Encoder, pairs: list[Pair]) -> None:
    for start in range(0, len(pairs), CHUNK_ROWS):
        texts = list(itertools.chain.from_iterable(pairs[start : start + CHUNK_ROWS]))
        encoder.tokenizer.encode_batch_fast(texts, add_special_tokens=False)


def map_single_rows(folder: Path, pairs: list[Pair]) -> None:
    import datasets
    from transformers import PreTrainedTokenizerFast

    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), truncation_side="left")

    def tokenize(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        text = rows["prompt"][0] + rows["completion"][0]
        length = len(tokenizer(text)["input_ids"])
        return dict(tokenizer([text], truncation=True, max_length=min(length, 2048)))

    columns = {"prompt": [prompt for prompt, _ in pairs], "completion": [completion for _, completion in pairs]}
    datasets.Dataset.from_dict(columns).map(tokenize, batched=True, batch_size=1)


class Timing(NamedTuple):
    wall: float  # seconds
    cpu: float  # seconds of all threads together, which other processes hardly change


def time_call(function: Callable[[], object]) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def repeat_pairs(pairs: list[Pair], rows: int) -> Iterator[Pair]:
    return itertools.islice(itertools.cycle(pairs), rows)


def peak_memory() -> float:
    """The greatest resident memory of this process so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def tokenize_options(max_length: int) -> Tokenize:
    """The stage's options, without limits of the audit."""
    gates = Gates(**dict.fromkeys(Gates.model_fields))
    return Tokenize(
        max_length=max_length,
        loss="assistant",
        batch_size=8,
        group_by_length=True,
        packing=False,
        gradient_accumulation=1,
        processes=1,
        nodes=1,
        gates=gates,
    )


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Print the rates of each round and their medians. `folder` is for temporary files."""
    source, pairs = folder / "rows.jsonl", load_pairs(options)
    repeated = list(repeat_pairs(pairs, options.rows))
    write_jsonl(
        source, ({"id": id, "prompt": prompt, "completion": text} for id, (prompt, text) in enumerate(repeated))
    )
    encoder = load_encoder(copy_tokenizer(options.tokenizer, folder / "tokenizer"))
    stage_options = tokenize_options(options.max_length)

    def stage() -> dict[str, Any]:
        metrics: dict[str, Any] = tokenize_files(
            {"train": source}, folder / "tokenized", text_tokenizer(encoder), stage_options
        )["train"]
        return metrics

    words = statistics.mean(len(f"{prompt} {completion}".split()) for prompt, completion in pairs)
    print(f"{options.rows:,} rows of {words:.0f} words on average; {json.dumps(stage()['length'])}")
    print(f"the stage's peak memory: {peak_memory():.2f} GiB")
    take_turns(options, repeated, encoder, stage)


def take_turns(options: argparse.Namespace, pairs: list[Pair], encoder: Encoder, stage: Callable[[], object]) -> None:
    """Print the rows per second of each round, and the median of the stage's rate as a share of the bare tokenizer's."""
    mapped = pairs[: options.mapped]
    shares: list[Timing] = []
    print(f"{'rows/s':>8} {'bare':>9} {'stage':>9} {'map':>9} {'stage/bare':>11} {'by CPU time':>13}")
    for number in range(1, options.rounds + 1):
        bare, complete = time_call(lambda: tokenize_bare(encoder, pairs)), time_call(stage)
        single = time_call(lambda: map_single_rows(options.tokenizer, mapped))
        shares.append(Timing(bare.wall / complete.wall, bare.cpu / complete.cpu))
        rates = [len(pairs) / bare.wall, len(pairs) / complete.wall, len(mapped) / single.wall]
        cells = "".join(f"{rate:>9,.0f} " for rate in rates)
        print(f"{number:>8} {cells}{shares[-1].wall:>11.1%} {shares[-1].cpu:>13.1%}", flush=True)
    wall, cpu = (statistics.median(values) for values in zip(*shares, strict=True))
    print(f"{'median':>8} {'':>30}{wall:>11.1%} {cpu:>13.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tokenize", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000, help="rows to tokenize; the given ones are repeated")
    parser.add_argument("--rows-from", type=Path, help="a JSON Lines file; default: generated dialogues")
    parser.add_argument("--columns", nargs=2, default=("prompt", "completion"), help="its question and its answer")
    parser.add_argument("--tokenizer", type=Path, default=Path("models/nano"), help="a folder with tokenizer.json")
    parser.add_argument("--max-length", type=int, default=512, help="tokens in a row")
    parser.add_argument("--mapped", type=int, default=500, help="rows for map")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        measure(options, Path(folder))


if __name__ == "__main__":
    main()
