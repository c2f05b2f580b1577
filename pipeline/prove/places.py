"""The places where the files of two runs differ first: a row, a training step, a tensor, an answer."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from pipeline.core.metrics import details_path
from pipeline.core.paths import FINETUNED, METRICS, PREDICTIONS, TRAIN_STEPS
from pipeline.errors import DataError
from pipeline.leaderboard.revisions import Revision
from pipeline.prove.differences import (
    RecordedStep,
    differing_answers,
    first_differing_order,
    first_differing_row,
    first_differing_step,
    first_differing_tensor,
    read_steps,
)
from pipeline.prove.pair import Pair

ROWS = (".parquet", ".jsonl")
HEADLINES = ("exact_match", "f1", "bleu", "loss")
DATA_STAGES = ("fetch", "clean", "format", "tokenize")


def iter_places(pair: Pair, stages: dict[str, list[str]]) -> Iterator[str]:
    """One line for each place; with the reason where a file cannot be read. stages: name → its outputs that differ."""
    readers: list[tuple[str, Callable[[], str]]] = []
    for stage, outs in stages.items():
        if stage.startswith(DATA_STAGES):
            readers += [(out, partial(_rows, pair, out)) for out in outs if not out.startswith(f"{METRICS}/")]
    if "train" in stages:
        readers.append(("order of rows", lambda: first_differing_order(*_steps(pair))))
        readers.append(("training step", lambda: first_differing_step(*_steps(pair))))
        readers.append((FINETUNED.as_posix(), partial(_tensors, pair)))
    for model in ("base", "finetuned"):
        if f"evaluate@{model}" in stages:
            readers.append((f"answers of {model}", partial(_answers, pair, model)))
            readers.append((f"metrics of {model}", partial(_metrics, pair, model)))
    for place, read in readers:
        try:
            difference = read()
        except DataError as error:
            difference = str(error)
        yield f"{place}: {difference or 'equal'}"


def _steps(pair: Pair) -> tuple[list[RecordedStep], list[RecordedStep]]:
    return pair.both(lambda revision: read_steps(revision.read(TRAIN_STEPS.as_posix())))


def _rows(pair: Pair, out: str) -> str:
    mine, other = pair.both(lambda revision: pair.local_files(revision, out))
    for name in sorted({*mine, *other}):
        if name not in mine or name not in other:
            return f"{name} is only in the {'second' if name not in mine else 'first'}"
        if mine[name].read_bytes() != other[name].read_bytes():
            label = "" if name == "." else f"{name}, "
            is_table = Path(out if name == "." else name).suffix in ROWS
            return label + ((is_table and first_differing_row(mine[name], other[name])) or "other bytes")
    return ""


def _tensors(pair: Pair) -> str:
    def weights(revision: Revision) -> list[Path]:
        files = pair.local_files(revision, FINETUNED.as_posix())
        return [file for name, file in files.items() if name.endswith(".safetensors") and "/" not in name]

    return first_differing_tensor(*pair.both(weights)) or "the weights are equal, other files differ"


def _answers(pair: Pair, model: str) -> str:
    out = f"{PREDICTIONS}/{model}.jsonl"
    answers = differing_answers(*pair.both(lambda revision: pair.local_files(revision, out)["."]))
    return answers or "the texts are equal, the losses or scores differ"


def _metrics(pair: Pair, model: str) -> str:
    path = details_path(f"evaluate/{model}").as_posix()
    mine, other = pair.both(lambda revision: json.loads(revision.read(path)))
    shared = [name for name in HEADLINES if name in mine and name in other]
    return ", ".join(f"{name} {mine[name]:.6g} / {other[name]:.6g}" for name in shared)
