"""Renders the cleaned records through the prompt template and splits them so that no test row is in training.

    python -m pipeline.format     data/clean/records.parquet → data/formatted/, metrics/format.json

Writes data/formatted/{train,validation,test}.jsonl with id, prompt, completion, and the same rows as one text each
(prompt and completion together) in data/formatted/text/, for tools that want that; data/formatted/dropped.jsonl has
the rows that are in no split.

The split: the hash of a row's normalised question and the seed says where it belongs. So rows that ask the same stay
together, and rows added later move no old one. Then rows that are near to a held-out row are dropped: from train those
near to test or validation, from validation those near to test. What is left leaks nothing, by construction; the
metrics `measure_leakage` are measured after the fact all the same. `format.split=row` hashes each row by itself instead and
drops none: a naive shuffle, to see what it would have cost.
"""

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.config.params import Format, Near, Params, Template
from pipeline.core.entrypoint import stage
from pipeline.core.files import ParquetRows, atomic_write, json_line, write_json, write_jsonl
from pipeline.core.paths import FORMATTED, METRICS, RECORDS
from pipeline.errors import DataError
from pipeline.format.bigrams import concatenated_ranges
from pipeline.format.near_duplicates import ComparedTexts
from pipeline.format.prompt import render_prompt
from pipeline.records.tasks import Turn, task_of, turns_of
from pipeline.records.text import comparison_key

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
BATCH = 4096  # records in memory as Python's objects


class Conversation(NamedTuple):
    """A record as a conversation and the answer that ends it. Plain text is an answer to nothing."""

    id: int
    turns: list[Turn]
    answer: str

    @property
    def question(self) -> str:
        """What the split goes by: all that the user says, or the whole of a plain text."""
        return "\n".join(turn.content for turn in self.turns if turn.role == "user") or self.answer

    def compared(self, field: str) -> list[str]:
        """The texts that are compared with other rows' questions, or answers: itself and each earlier turn."""
        reply = self.answer if self.turns else ""
        return [self.question if field == "question" else reply, *(turn.content for turn in self.turns[:-1])]


def conversations_of(records: Iterable[dict[str, Any]]) -> Iterator[Conversation]:
    """The rows of cleaned records, which all have the same columns."""
    task = None
    for record in records:
        task = task or task_of(name for name in record if name != "id")
        yield Conversation(record["id"], *turns_of(task, record))


def render_row(row: Conversation, template: Template) -> dict[str, Any]:
    """The row as the model sees it: id, prompt, completion."""
    if not row.turns:
        return {"id": row.id, "prompt": "", "completion": row.answer}
    prompt = render_prompt(row.turns, template.prompt, template.completion)
    return {"id": row.id, "prompt": prompt, "completion": template.completion.format(answer=row.answer)}


def split_key(row: Conversation, options: Format) -> str:
    """What of a row is hashed: its question, spelling aside, or its id."""
    return " ".join(comparison_key(row.question)) if options.split == "question" else str(row.id)


def assign_split(key: str, options: Format) -> str:
    """The split that a key (a question's words, or a row's id) belongs to, whatever other rows there are.

    SHA-256 of the seed and the key gives two numbers that are uniform in [0, 1). The first: test below test_fraction,
    validation below that plus validation_fraction, else train. With folds, its fold-th part is test, and the second
    number takes validation_fraction of the others.
    """
    digest = hashlib.sha256(f"{options.seed}\0{key}".encode()).digest()
    first, second = (int.from_bytes(digest[start : start + 8], "big") / 2**64 for start in (0, 8))
    if options.folds:
        is_test, is_validation = int(first * options.folds) == options.fold, second < options.validation_fraction
    else:
        is_test = first < options.test_fraction
        is_validation = first < options.test_fraction + options.validation_fraction
    return "test" if is_test else "validation" if is_validation else "train"


def split_rows(
    rows: list[Conversation], options: Format, compared: "TwinSearch"
) -> tuple[dict[str, list[Conversation]], dict[str, list[Conversation]]]:
    """(split → its rows in the order given, split → rows dropped from it as near to a held-out row).

    A train row near to a validation row is dropped even if that one is: so an added row never brings another back.
    """
    splits: dict[str, list[Conversation]] = {name: [] for name in SPLITS}
    for row in rows:
        splits[assign_split(split_key(row, options), options)].append(row)
    if options.split == "row":
        return splits, {"train": [], "validation": []}
    held_out = {"train": splits["test"] + splits["validation"], "validation": splits["test"]}
    parted = {name: _parted(splits[name], compared.near(splits[name], others)) for name, others in held_out.items()}
    return splits | {name: far for name, (far, _) in parted.items()}, {name: near for name, (_, near) in parted.items()}


def _parted(rows: list[Conversation], is_near: list[bool]) -> tuple[list[Conversation], list[Conversation]]:
    far = [row for row, near in zip(rows, is_near, strict=True) if not near]
    return far, [row for row, near in zip(rows, is_near, strict=True) if near]


class TwinSearch:
    """Rows whose texts are compared: questions with questions, answers with answers."""

    def __init__(self, rows: list[Conversation], near: Near) -> None:
        self.number = {row.id: number for number, row in enumerate(rows)}
        self.starts = np.cumsum([0, *(max(1, len(row.turns)) for row in rows)])  # where each row's texts begin
        self.questions, self.answers = (
            ComparedTexts((text for row in rows for text in row.compared(field)), near.threshold, near.min_words)
            for field in ("question", "answer")
        )

    def near(self, rows: list[Conversation], others: list[Conversation]) -> list[bool]:
        """For each row whether a text of it is near to one of the others."""
        is_near = np.zeros(len(rows), bool)
        (owners, wanted), (_, held) = self._places(rows), self._places(others)
        for texts in (self.questions, self.answers):
            is_near[owners[texts.near(wanted, held)]] = True
        return is_near.tolist()

    def equal(self, rows: list[Conversation], others: list[Conversation]) -> list[bool]:
        """For each row whether its question or its answer (if that is long enough to compare) has the others' words."""
        mine, theirs = (self.starts[self._numbers(each)] for each in (rows, others))
        questions, answers = (np.isin(texts.same[mine], texts.same[theirs]) for texts in (self.questions, self.answers))
        return (questions | (answers & (self.answers.sets.sizes[mine] > 0))).tolist()

    def _numbers(self, rows: list[Conversation]) -> NDArray[np.int64]:
        return np.array([self.number[row.id] for row in rows], np.int64)

    def _places(self, rows: list[Conversation]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(which of the rows, which text of all) for each text of the rows."""
        numbers = self._numbers(rows)
        sizes = self.starts[numbers + 1] - self.starts[numbers]
        return np.repeat(np.arange(len(rows)), sizes), np.repeat(self.starts[numbers], sizes) + concatenated_ranges(
            sizes
        )


def measure_leakage(splits: dict[str, list[Conversation]], compared: TwinSearch) -> dict[str, float]:
    """The share of test rows whose question or answer has a twin in train: equal in words (exact), or near."""
    test, train = splits["test"], splits["train"]
    return {
        name: sum(found(test, train)) / len(test)
        for name, found in (("exact", compared.equal), ("near", compared.near))
    }


def require_no_more_leakage(twins: dict[str, float], options: Format) -> None:
    """Raise DataError if more test rows have a twin in train than the parameters allow."""
    worst = max(twins.values())
    if worst > options.max_leakage:
        raise DataError(
            f"format.max_leakage: {twins['exact']:.1%} of the test rows have an exact twin in train, {twins['near']:.1%} a "
            f"near one; allowed are {options.max_leakage:.1%}. Split by question (format.split=question), or allow it: "
            f"format.max_leakage={math.ceil(1000 * worst) / 1000:g}"
        )


def require_rows(splits: dict[str, list[Conversation]], dropped: dict[str, list[Conversation]]) -> None:
    """Raise DataError if a split is empty, with what there was to split."""
    if all(splits.values()):
        return
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in splits.items())
    raise DataError(
        f"the split {', '.join(name for name, rows in splits.items() if not rows)} would be empty ({counts}; dropped as "
        f"near to held-out rows: {sum(map(len, dropped.values())):,}). Give more rows, or change format.test_fraction, "
        "format.validation_fraction, format.seed, or what counts as near (format.near)"
    )


def write_splits(
    splits: dict[str, list[Conversation]], dropped: dict[str, list[Conversation]], template: Template
) -> None:
    """Write the splits, and what is in none with the reason."""
    total = sum(map(len, (*splits.values(), *dropped.values())))
    with (
        atomic_write(FORMATTED) as folder,
        tqdm(total=total, desc="write", unit="row", disable=None, leave=False) as bar,
    ):
        (folder / "text").mkdir(parents=True)
        for name, rows in splits.items():
            with (
                (folder / f"{name}.jsonl").open("wb") as file,
                (folder / "text" / f"{name}.jsonl").open("wb") as texts,
            ):
                for row in rows:
                    shown = render_row(row, template)
                    file.write(json_line(shown))
                    texts.write(json_line({"id": row.id, "text": shown["prompt"] + shown["completion"]}))
                    bar.update()
        write_jsonl(
            folder / "dropped.jsonl",
            (
                {"id": row.id, "reason": "near_held_out", "split": name} | render_row(row, template)
                for name, rows in dropped.items()
                for row in rows
            ),
        )


def read_rows() -> list[Conversation]:
    records = ParquetRows(RECORDS)
    return [row for table in records.tables(records.column_names, BATCH) for row in conversations_of(table.to_pylist())]


@stage("format")
def main(params: Params) -> None:
    options = params.format
    rows = read_rows()
    log.info(f"Splitting {len(rows):,} rows {describe_split(options)}")
    compared = TwinSearch(rows, options.near)
    splits, dropped = split_rows(rows, options, compared)
    require_rows(splits, dropped)
    twins = measure_leakage(splits, compared)
    require_no_more_leakage(twins, options)
    write_splits(splits, dropped, options.template)
    metrics = {
        "rows_in": len(rows),
        "rows": {name: len(splits[name]) for name in SPLITS},
        "dropped_near": {name: len(dropped[name]) for name in dropped},
        "leakage": twins,
    }
    write_json(METRICS / "format.json", metrics)
    counts = ", ".join(f"{name} {len(splits[name]):,}" for name in SPLITS)
    log.info(f"{counts}; {sum(map(len, dropped.values())):,} dropped as near to held-out rows → {FORMATTED}/")
    log.info(f"test rows with a twin in train: {twins['exact']:.1%} exact, {twins['near']:.1%} near")


def describe_split(options: Format) -> str:
    """How the rows are split, in words."""
    by = "by the hash of their question" if options.split == "question" else "each by itself (naive: twins leak)"
    test = f"fold {options.fold} of {options.folds}" if options.folds else f"{options.test_fraction:.0%}"
    return f"{by}: {test} test, {options.validation_fraction:.0%} validation, the rest train"
