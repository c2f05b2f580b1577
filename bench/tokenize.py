"""How fast the tokenize stage is beside the tokenizer alone and beside a map row by row, and how much memory it takes.

    python -m bench.tokenize --rows 20000
    python -m bench.tokenize --rows 257000 --rows-from rows.jsonl --columns Patient Doctor --tokenizer path/to/model

The three take turns on the same rows in one run, so that whatever else the machine does slows all of them:

bare    `encode_batch_fast` of the tokenizers library over prompts and completions that are in memory; nothing is kept
stage   all of the stage: reading JSON Lines, tokenizing, cutting, labels, the audit, writing Parquet
map     datasets.map with batch_size=1 and two passes of the tokenizer, as many tutorials do it, on --mapped rows
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
from typing import NamedTuple

from pipeline.config.params import Gates, Tokenize
from pipeline.core.files import iter_jsonl, write_jsonl
from pipeline.modeling.encoding import Encoder, load_encoder
from pipeline.synthetic.dialogues import generate_dialogues, read_knowledge
from pipeline.tokenize.stage import CHUNK, tokenize_files

KNOWLEDGE = Path("data/knowledge/conditions.yaml")
TOGETHER = 4  # dialogues joined into one row, which makes it as long as real ones
Pair = tuple[str, str]


def pairs_of(arguments: argparse.Namespace) -> list[Pair]:
    """(prompt, completion) of the file given, or of generated dialogues."""
    if arguments.rows_from:
        question, answer = arguments.columns
        return [(row[question], row[answer]) for row in iter_jsonl(arguments.rows_from)]
    rows = generate_dialogues(read_knowledge(KNOWLEDGE), 4000, seed=0)
    groups = [rows[at : at + TOGETHER] for at in range(0, len(rows), TOGETHER)]
    return [
        (" ".join(row["Patient"] for row in group), "\n" + " ".join(row["Doctor"] for row in group)) for group in groups
    ]


def bare(encoder: Encoder, pairs: list[Pair]) -> None:
    for at in range(0, len(pairs), CHUNK):
        texts = list(itertools.chain.from_iterable(pairs[at : at + CHUNK]))
        encoder.tokenizer.encode_batch_fast(texts, add_special_tokens=False)


def row_by_row(folder: Path, pairs: list[Pair]) -> None:
    import datasets
    from transformers import PreTrainedTokenizerFast

    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), truncation_side="left")

    def once(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        text = rows["prompt"][0] + rows["completion"][0]
        length = len(tokenizer(text)["input_ids"])
        return dict(tokenizer([text], truncation=True, max_length=min(length, 2048)))

    columns = {"prompt": [prompt for prompt, _ in pairs], "completion": [completion for _, completion in pairs]}
    datasets.Dataset.from_dict(columns).map(once, batched=True, batch_size=1)


class Spent(NamedTuple):
    wall: float  # seconds
    processor: float  # seconds, of all threads together: other processes hardly change them


def spent(action: Callable[[], object]) -> Spent:
    wall, processor = time.perf_counter(), time.process_time()
    action()
    return Spent(time.perf_counter() - wall, time.process_time() - processor)


def repeated(pairs: list[Pair], rows: int) -> Iterator[Pair]:
    return itertools.islice(itertools.cycle(pairs), rows)


def peak_memory() -> float:
    """The most memory that this process has held so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def options_of(max_length: int) -> Tokenize:
    """The stage's options, with every gate open."""
    gates = Gates(**dict.fromkeys(Gates.model_fields))
    return Tokenize(max_length=max_length, loss="completion", batch_size=8, group_by_length=True, gates=gates)


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Print the figures of each round and their medians."""
    source, pairs = folder / "rows.jsonl", pairs_of(arguments)
    rows = ({"id": at, "prompt": p, "completion": c} for at, (p, c) in enumerate(repeated(pairs, arguments.rows)))
    write_jsonl(source, rows)
    encoder, options = load_encoder(arguments.tokenizer), options_of(arguments.max_length)

    def stage() -> dict[str, object]:
        return tokenize_files({"train": source}, folder / "tokenized", encoder, options)["train"]

    words = statistics.mean(len(f"{prompt} {completion}".split()) for prompt, completion in pairs)
    print(f"{arguments.rows:,} rows of {words:.0f} words on average; {json.dumps(stage()['length'])}")
    print(f"the stage's peak memory: {peak_memory():.2f} GiB")
    take_turns(arguments, list(repeated(pairs, arguments.rows)), encoder, stage)


def take_turns(arguments: argparse.Namespace, pairs: list[Pair], encoder: Encoder, stage: Callable[[], object]) -> None:
    """Print rows a second of each round, and the medians of what the stage reaches of the bare tokenizer's."""
    mapped = pairs[: arguments.mapped]
    shares: list[Spent] = []
    print(f"{'rows/s':>8} {'bare':>9} {'stage':>9} {'map':>9} {'stage/bare':>11} {'by processor':>13}")
    for number in range(1, arguments.rounds + 1):
        alone, ours = spent(lambda: bare(encoder, pairs)), spent(stage)
        slow = spent(lambda: row_by_row(arguments.tokenizer, mapped))
        shares.append(Spent(alone.wall / ours.wall, alone.processor / ours.processor))
        rates = [rows / each.wall for rows, each in ((len(pairs), alone), (len(pairs), ours), (len(mapped), slow))]
        cells = "".join(f"{rate:>9,.0f} " for rate in rates)
        print(f"{number:>8} {cells}{shares[-1].wall:>11.1%} {shares[-1].processor:>13.1%}", flush=True)
    wall, processor = (statistics.median(each) for each in zip(*shares, strict=True))
    print(f"{'median':>8} {'':>30}{wall:>11.1%} {processor:>13.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tokenize", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="rows to tokenize, those given being repeated")
    parser.add_argument("--rows-from", type=Path, help="a JSON Lines file; without, generated dialogues")
    parser.add_argument("--columns", nargs=2, default=("prompt", "completion"), help="its question and its answer")
    parser.add_argument("--tokenizer", type=Path, default=Path("models/nano"), help="a model folder")
    parser.add_argument("--max-length", type=int, default=512, help="tokens")
    parser.add_argument("--mapped", type=int, default=500, help="rows of the map row by row")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        compare(arguments, Path(folder))


if __name__ == "__main__":
    main()
