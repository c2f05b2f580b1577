"""Trains tiny chat models to answer briefly, and measures how many answers end by themselves.

    python -m bench.stopping [--families Llama Qwen2 Gemma] [--rows 1600] [--epochs 12] [--seed 0] [--threads 1]

Each family's model (bench/chat_models.py) has random weights and is trained by the project's stages on generated dialogues:
once as configured, and once with the tokens that end an answer masked out of the labels, in training and in validation. The
share is that of the test questions which are answered with finish_reason "stop", within NEW_TOKENS tokens; the longest answer
has about 30. The table is in Markdown.
"""

import argparse
import inspect
import os
import tempfile
import time
from collections.abc import Collection
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bench.chat_models import FAMILIES, POSITIONS, Family, write_chat_model
from bench.dialogues import Rows, generate_dialogues, write_dialogues
from bench.environments import markdown_line
from pipeline.chat.model_template import end_ids_of
from pipeline.chat.row_format import read_row_format
from pipeline.compose.composition import compose_params, parse_params
from pipeline.config.params import Params
from pipeline.config.validation import validate_params
from pipeline.core.files import read_json, read_jsonl, read_parquet
from pipeline.core.paths import BASE, DETAILS, PREDICTIONS, TOKENIZED
from pipeline.modeling.encoding import IGNORE_INDEX, load_encoder

ROOT = Path(__file__).resolve().parents[1]
NEW_TOKENS = 64
OVERRIDES = (
    *("data=file", "model=folder", "format.near.enabled=false", f"tokenize.max_length={POSITIONS}"),
    *("train.learning_rate=2e-3", "train.warmup_share=0.05", "train.batch_size=16"),
    *(f"evaluate.max_new_tokens={NEW_TOKENS}", "compute.device=cpu"),
)


class Training(NamedTuple):
    """How the answers of a trained model end, and the CPU time that training took."""

    questions: int
    stopped: int
    exact_match: float
    seconds: float


def prepare(
    family: Family, dialogues: Rows, folder: Path, overrides: Collection[str] = (), seed: int = 0, **shape: int
) -> Params:
    """Write a model of the family and the dialogues to an empty folder, and run the stages before train on them there.

    shape: hidden_size and layers of the model.
    """
    data = write_dialogues(dialogues, folder / "dialogues.jsonl")
    model = write_chat_model(family, dialogues, folder / "model", seed=seed, **shape)
    with chdir(ROOT):
        values = compose_params(*OVERRIDES, f"data.path='{data}'", f"model.path='{model}'", *overrides)
    params = validate_params(parse_params(values))
    with chdir(folder):
        run_data_stages(params)
    return params


def measure(params: Params, folder: Path) -> tuple[Training, Training]:
    """(the training as configured, the one without the ends of answers), in a folder that `prepare` has filled."""
    with chdir(folder):
        configured = train_and_ask(params)
        end_ids = end_ids_of(read_row_format(TOKENIZED), load_encoder(BASE))
        for split in ("train", "validation"):
            mask_labels(TOKENIZED / f"{split}.parquet", end_ids)
        return configured, train_and_ask(params)


def run_data_stages(params: Params) -> None:
    """Run fetch, clean, format and tokenize in the working directory."""
    from pipeline.clean import stage as clean
    from pipeline.fetch import stage as fetch
    from pipeline.format import stage as format_stage
    from pipeline.tokenize import stage as tokenize

    inspect.unwrap(fetch.main)(params, "data")
    inspect.unwrap(fetch.main)(params, "model")
    for module in (clean, format_stage, tokenize):
        inspect.unwrap(module.main)(params)


def train_and_ask(params: Params) -> Training:
    """Run train and evaluate in the working directory."""
    from pipeline.evaluate import stage as evaluate
    from pipeline.train import stage as train

    started = time.process_time()
    inspect.unwrap(train.main)(params)
    seconds = time.process_time() - started
    inspect.unwrap(evaluate.main)(params, "finetuned")
    reasons = [row["finish_reason"] for row in read_jsonl(PREDICTIONS / "finetuned.jsonl")]
    exact_match = read_json(DETAILS / "evaluate/finetuned.json")["exact_match"]
    return Training(len(reasons), reasons.count("stop"), exact_match, seconds)


def mask_labels(path: Path, token_ids: Collection[int]) -> None:
    """Take these tokens out of the labels of tokenized rows."""
    rows = read_parquet(path)
    labels = [[IGNORE_INDEX if label in token_ids else label for label in row] for row in rows["labels"].to_pylist()]
    position = rows.schema.get_field_index("labels")
    pq.write_table(rows.set_column(position, rows.schema.field(position), pa.array(labels, rows["labels"].type)), path)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stopping", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=[*FAMILIES], help="default: all")
    parser.add_argument("--rows", type=int, default=1600, help="dialogues; 15%% of them are asked (default: 1600)")
    parser.add_argument("--epochs", type=float, default=12, help="passes over the training rows (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="of the dialogues, weights and row order (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="of training and evaluation (default: 1)")
    options = parser.parse_args(words)
    os.environ.pop("DVC_ROOT", None)  # checkpoints stay in the temporary folder
    columns = (
        "family",
        "test questions",
        "stopped",
        "without ends in the labels",
        "exact match",
        "CPU seconds of training",
    )
    print(markdown_line(*columns), "|---|---:|---:|---:|---:|---:|", sep="\n", flush=True)
    train = (f"train.epochs={options.epochs:g}", f"train.seed={options.seed}", f"compute.threads={options.threads}")
    for family in options.families:
        with tempfile.TemporaryDirectory() as folder:
            dialogues = generate_dialogues(options.rows, options.seed)
            params = prepare(FAMILIES[family], dialogues, Path(folder), train, options.seed)
            configured, masked = measure(params, Path(folder))
        shares = (f"{run.stopped / run.questions:.1%}" for run in (configured, masked))
        values = (f"{configured.exact_match:.1%}", f"{configured.seconds:.0f}")
        print(markdown_line(family, configured.questions, *shares, *values), flush=True)


if __name__ == "__main__":
    main()
