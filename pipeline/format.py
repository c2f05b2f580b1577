"""Renders the cleaned records through the prompt template and splits them so that no test row is in training.

    python -m pipeline.format     data/clean/records.parquet → data/formatted/, metrics/format.json

Writes data/formatted/{train,validation,test}.jsonl with id, prompt, completion, and the same rows as one text each
(prompt and completion together) in data/formatted/text/, for tools that want that; data/formatted/dropped.jsonl has
the rows that are in no split.

The split: the hash of a row's normalised question and the seed says where it belongs. So rows that ask the same stay
together, and rows added later move no old one. Then rows that are near to a held-out row are dropped: from train those
near to test or validation, from validation those near to test. What is left leaks nothing, by construction; the
metrics `leakage` are measured after the fact all the same. `format.split=row` hashes each row by itself instead and
drops none: a naive shuffle, to see what it would have cost.
"""

import hashlib
import itertools
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.files import read_parquet, whole, write_json, write_jsonl
from pipeline.near import Texts
from pipeline.params import Format, Near, Params, Template
from pipeline.stage import stage
from pipeline.tasks import task_of, turns_of
from pipeline.templates import render
from pipeline.text import asked, words

log = logging.getLogger(__name__)

RECORDS, FORMATTED, METRICS = Path("data/clean/records.parquet"), Path("data/formatted"), Path("metrics/format.json")
SPLITS = ("train", "validation", "test")
Row = dict[str, Any]


def formatted(records: list[dict[str, Any]], template: Template) -> list[Row]:
    """Rows of id, question, answer, turns (what the split compares), prompt, completion (what the model sees)."""
    task = task_of(name for name in records[0] if name != "id")
    rows = []
    for record in records:
        turns, answer = turns_of(task, record)
        rows.append(
            {
                "id": record["id"],
                "question": "\n".join(turn.content for turn in turns if turn.role == "user") or answer,
                "answer": answer if turns else "",
                "turns": [turn.content for turn in turns[:-1]],
                "prompt": render(turns, template.prompt, template.completion),
                "completion": template.completion.format(answer=answer) if turns else answer,
            }
        )
    return rows


def key_of(row: Row, options: Format) -> str:
    """What of a row is hashed: its question, spelling aside, or its id."""
    return " ".join(asked(row["question"])) if options.split == "question" else str(row["id"])


def split_of(key: str, options: Format) -> str:
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


def split(
    rows: list[Row], options: Format, compared: "Comparison"
) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """(split → its rows in the order given, split → rows dropped from it as near to a held-out row)."""
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for row in rows:
        splits[split_of(key_of(row, options), options)].append(row)
    dropped: dict[str, list[Row]] = {"train": [], "validation": []}
    if options.split == "question":
        for name, held_out in (("validation", ("test",)), ("train", ("test", "validation"))):
            others = [row for each in held_out for row in splits[each]]
            splits[name], dropped[name] = _parted(splits[name], compared.near(splits[name], others))
    return splits, dropped


def _parted(rows: list[Row], is_near: list[bool]) -> tuple[list[Row], list[Row]]:
    far = [row for row, near in zip(rows, is_near, strict=True) if not near]
    return far, [row for row, near in zip(rows, is_near, strict=True) if near]


class Comparison:
    """Rows whose texts are compared: questions with questions, answers with answers.

    The earlier turns of a chat are compared with both: what is asked there may be another row's question.
    """

    def __init__(self, rows: list[Row], near: Near) -> None:
        self.texts, self.places = [], []  # one of each for questions and answers
        for field in ("question", "answer"):
            texts: list[str] = []
            places: dict[int, range] = {}  # row's id → where its texts are
            for row in rows:
                texts += (row[field], *row.get("turns", ()))
                places[row["id"]] = range(len(texts) - 1 - len(row.get("turns", ())), len(texts))
            self.texts.append(Texts(texts, near.threshold, near.min_words))
            self.places.append(places)

    def near(self, rows: list[Row], others: list[Row]) -> list[bool]:
        """For each row whether a text of it is near to one of the others."""
        is_near = np.zeros(len(rows), bool)
        for texts, places in zip(self.texts, self.places, strict=True):
            wanted, held = ([places[row["id"]] for row in each] for each in (rows, others))
            owners = np.repeat(np.arange(len(rows)), [len(each) for each in wanted])
            found = texts.near(_flat(wanted), _flat(held))
            is_near[owners[found]] = True
        return is_near.tolist()


def _flat(ranges: list[range]) -> NDArray[np.int64]:
    return np.fromiter(itertools.chain.from_iterable(ranges), np.int64)


def leakage(splits: dict[str, list[Row]], near: Near, compared: Comparison) -> dict[str, float]:
    """The share of test rows whose question or answer has a twin in train: equal in words (exact), or near."""
    test, train = splits["test"], splits["train"]
    seen = {key for row in train for key in _twin_keys(row, near)}
    exact = sum(bool(_twin_keys(row, near) & seen) for row in test)
    return {"exact": exact / len(test), "near": sum(compared.near(test, train)) / len(test)}


def _twin_keys(row: Row, near: Near) -> set[tuple[str, ...]]:
    question, answer = asked(row["question"]), words(row["answer"])
    return {("question", *question)} | ({("answer", *answer)} if len(answer) >= near.min_words else set())


def require_no_more_leakage(twins: dict[str, float], options: Format) -> None:
    """Raise DataError if more test rows have a twin in train than the parameters allow."""
    worst = max(twins.values())
    if worst > options.max_leakage:
        raise DataError(
            f"format.max_leakage: {twins['exact']:.1%} of the test rows have an exact twin in train, {twins['near']:.1%} a "
            f"near one; allowed are {options.max_leakage:.1%}. Split by question (format.split=question), or allow it: "
            f"format.max_leakage={math.ceil(1000 * worst) / 1000:g}"
        )


def require_rows(splits: dict[str, list[Row]], dropped: dict[str, list[Row]]) -> None:
    """Raise DataError if a split is empty, with what there was to split."""
    if all(splits.values()):
        return
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in splits.items())
    raise DataError(
        f"the split {', '.join(name for name, rows in splits.items() if not rows)} would be empty ({counts}; dropped as "
        f"near to held-out rows: {sum(map(len, dropped.values())):,}). Give more rows, or change format.test_fraction, "
        "format.validation_fraction, format.seed, or what counts as near (format.near)"
    )


def write(splits: dict[str, list[Row]], dropped: dict[str, list[Row]]) -> None:
    """Write the splits, and what is in none with the reason."""
    near = (
        {"id": row["id"], "reason": "near_held_out", "split": name, **shown(row)}
        for name in dropped
        for row in dropped[name]
    )
    with whole(FORMATTED) as folder:
        (folder / "text").mkdir(parents=True)
        for name, rows in splits.items():
            write_jsonl(folder / f"{name}.jsonl", ({"id": row["id"], **shown(row)} for row in rows))
            texts = ({"id": row["id"], "text": row["prompt"] + row["completion"]} for row in rows)
            write_jsonl(folder / "text" / f"{name}.jsonl", texts)
        write_jsonl(folder / "dropped.jsonl", near)


def shown(row: Row) -> Row:
    return {name: row[name] for name in ("prompt", "completion")}


@stage("format")
def main(params: Params) -> None:
    records = read_parquet(RECORDS).to_pylist()
    held_out = f"{params.format.test_fraction:.0%} test, {params.format.validation_fraction:.0%} validation"
    log.info(f"Splitting {len(records):,} rows by the hash of their question: {held_out}, the rest train")
    rows = formatted(records, params.format.template)
    compared = Comparison(rows, params.format.near)
    splits, dropped = split(rows, params.format, compared)
    require_rows(splits, dropped)
    twins = leakage(splits, params.format.near, compared)
    require_no_more_leakage(twins, params.format)
    write(splits, dropped)
    metrics = {
        "rows_in": len(rows),
        "rows": {name: len(splits[name]) for name in SPLITS},
        "dropped_near": {name: len(dropped[name]) for name in dropped},
        "leakage": twins,
    }
    write_json(METRICS, metrics)
    counts = ", ".join(f"{name} {len(splits[name]):,}" for name in SPLITS)
    log.info(f"{counts}; {sum(map(len, dropped.values())):,} dropped as near to held-out rows → {FORMATTED}/")
    log.info(f"test rows with a twin in train: {twins['exact']:.1%} exact, {twins['near']:.1%} near")


if __name__ == "__main__":
    main()
