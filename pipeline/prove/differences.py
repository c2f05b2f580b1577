"""Where two versions of an output part first: the first row, training step, tensor and answer that differ."""

import csv
import io
import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from pipeline.core.console import preview

WIDTH = 60  # characters of a value in a message
NUMBERS = ("loss", "grad_norm", "learning_rate")


class RecordedStep(NamedTuple):
    """A line of metrics/details/train_steps.tsv, as text."""

    step: str
    rows: str
    loss: str
    grad_norm: str
    learning_rate: str


def read_steps(content: bytes) -> list[RecordedStep]:
    lines = csv.DictReader(io.StringIO(content.decode("utf-8")), delimiter="\t")
    return [RecordedStep(**{name: line[name] for name in RecordedStep._fields}) for line in lines]


def first_differing_order(ours: list[RecordedStep], theirs: list[RecordedStep]) -> str:
    """The first step that has other rows; empty if none has."""
    for mine, other in zip(ours, theirs, strict=False):
        if mine.rows != other.rows:
            return f"the rows differ from step {mine.step} on"
    return ""


def first_differing_step(ours: list[RecordedStep], theirs: list[RecordedStep]) -> str:
    """The first step with another loss, gradient norm or rate; empty if none has."""
    for mine, other in zip(ours, theirs, strict=False):
        differing = [name for name in NUMBERS if getattr(mine, name) != getattr(other, name)]
        if differing:
            values = ", ".join(f"{name} {getattr(mine, name)} / {getattr(other, name)}" for name in differing)
            return f"step {mine.step}: {values}"
    if len(ours) != len(theirs):
        return f"{len(ours)} / {len(theirs)} steps, the first {min(len(ours), len(theirs))} of them equal"
    return ""


def first_differing_tensor(ours: list[Path], theirs: list[Path]) -> str:
    """The first tensor, in the order of the files, whose values differ, and how many do; empty if none does.

    Each argument: the safetensors files of a model. One tensor of each is in memory at a time.
    """
    from safetensors import safe_open

    def locate(files: list[Path]) -> dict[str, Any]:
        located: dict[str, Any] = {}
        for file in files:
            opened = safe_open(file, framework="pt")
            located |= dict.fromkeys(opened.offset_keys(), opened)  # type: ignore[no-untyped-call]
        return located

    mine, other = locate(ours), locate(theirs)
    differing: list[str] = []
    for name in dict.fromkeys([*mine, *other]):
        if name not in mine or name not in other:
            differing.append(f"{name} (only in {'the first' if name in mine else 'the second'})")
            continue
        first, second = mine[name].get_tensor(name), other[name].get_tensor(name)
        if first.shape != second.shape:
            differing.append(f"{name} (shapes {tuple(first.shape)} / {tuple(second.shape)})")
        elif not first.equal(second):
            most = (first.double() - second.double()).abs().max().item()
            differing.append(f"{name} {tuple(first.shape)}, by at most {most:.3g}")
    return f"{differing[0]}; {len(differing)} of {len({*mine, *other})} tensors differ" if differing else ""


def first_differing_row(ours: Path, theirs: Path) -> str:
    """The first row of two Parquet or JSON Lines files that differs, with its id and column; empty if none does."""
    for number, (mine, other) in enumerate(zip_longest(iter_rows(ours), iter_rows(theirs)), start=1):
        if mine == other:
            continue
        if mine is None or other is None:
            return f"row {number} is only in the {'second' if mine is None else 'first'}"
        column = next(name for name in [*mine, *other] if mine.get(name) != other.get(name))
        where = f"row {number}" + (f" (id {mine['id']})" if "id" in mine and column != "id" else "")
        return f"{where}, {column}: {shorten_value(mine.get(column))} / {shorten_value(other.get(column))}"
    return ""


def iter_rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        for batch in pq.ParquetFile(path).iter_batches(1024):
            yield from batch.to_pylist()
    else:
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def shorten_value(value: Any) -> str:
    return preview(json.dumps(value, ensure_ascii=False, default=str), WIDTH)


def differing_answers(ours: Path, theirs: Path) -> str:
    """How many predictions differ, and the first; empty if none does."""
    mine, other = ({row["id"]: row.get("prediction") for row in iter_rows(path)} for path in (ours, theirs))
    shared = [id for id in mine if id in other]
    differing = [id for id in shared if mine[id] != other[id]]
    if not differing:
        return "" if mine.keys() == other.keys() else f"other test rows ({len(mine)} / {len(other)})"
    id = differing[0]
    return f"{len(differing)} of {len(shared)} differ, first of row {id}: {shorten_value(mine[id])} / {shorten_value(other[id])}"
