"""Renders the cleaned records through the prompt template and splits them so that no test row is in training.

    python -m pipeline.format     data/clean/records.parquet → data/formatted/, metrics/format.json

Writes data/formatted/{train,validation,test}.jsonl with id, prompt, completion, and the same rows as one text each
(prompt and completion together) in data/formatted/text/, for tools that want that.

The split: the hash of a row's normalised question and the seed says where it belongs. So rows that ask the same stay
together, and rows added later move no old one. Then rows that are near to a held-out row are dropped: from train those
near to test or validation, from validation those near to test. What is left leaks nothing, by construction; the
metrics `leakage` are measured after the fact all the same.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.files import read_parquet, whole, write_json, write_jsonl
from pipeline.near import near_any
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


def split_of(question: str, options: Format) -> str:
    """The split that a question belongs to, whatever other rows there are.

    SHA-256 of the seed and the question's words gives a number that is uniform in [0, 1): test below test_fraction,
    validation below that plus validation_fraction, else train.
    """
    digest = hashlib.sha256(f"{options.seed}\0{' '.join(asked(question))}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < options.test_fraction:
        return "test"
    return "validation" if place < options.test_fraction + options.validation_fraction else "train"


def split(rows: list[Row], options: Format) -> tuple[dict[str, list[Row]], dict[str, int]]:
    """(split → its rows in the order given, split → rows dropped from it as near to a held-out row)."""
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for row in rows:
        splits[split_of(row["question"], options)].append(row)
    before = {name: len(splits[name]) for name in SPLITS}
    splits["validation"] = _far(splits["validation"], splits["test"], options.near)
    splits["train"] = _far(splits["train"], splits["test"] + splits["validation"], options.near)
    return splits, {name: before[name] - len(splits[name]) for name in ("train", "validation")}


def _far(rows: list[Row], held_out: list[Row], near: Near) -> list[Row]:
    return [row for row, is_near in zip(rows, is_near_any(rows, held_out, near), strict=True) if not is_near]


def is_near_any(rows: list[Row], others: list[Row], near: Near) -> list[bool]:
    """For each row whether a text of it is near to one of the others: questions to questions, answers to answers.

    The earlier turns of a chat are compared with both: what is asked there may be another row's question.
    """
    found: set[int] = set()
    for field in ("question", "answer"):
        texts = [(i, text) for i, row in enumerate(rows) for text in (row[field], *row.get("turns", ()))]
        held = {text for row in others for text in (row[field], *row.get("turns", ()))}
        is_near = near_any([text for _, text in texts], held, near.threshold, near.min_words)
        found.update(i for (i, _), near_one in zip(texts, is_near, strict=True) if near_one)
    return [i in found for i in range(len(rows))]


def leakage(splits: dict[str, list[Row]], near: Near) -> dict[str, float]:
    """The share of test rows whose question or answer has a twin in train: equal in words (exact), or near."""
    test, train = splits["test"], splits["train"]
    seen = {key for row in train for key in _twin_keys(row, near)}
    exact = sum(bool(_twin_keys(row, near) & seen) for row in test)
    return {"exact": exact / len(test), "near": sum(is_near_any(test, train, near)) / len(test)}


def _twin_keys(row: Row, near: Near) -> set[tuple[str, ...]]:
    question, answer = asked(row["question"]), words(row["answer"])
    return {("question", *question)} | ({("answer", *answer)} if len(answer) >= near.min_words else set())


def require_rows(splits: dict[str, list[Row]], dropped: dict[str, int]) -> None:
    """Raise DataError if a split is empty, with what there was to split."""
    if all(splits.values()):
        return
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in splits.items())
    raise DataError(
        f"the split {', '.join(name for name, rows in splits.items() if not rows)} would be empty ({counts}; dropped as "
        f"near to held-out rows: {sum(dropped.values()):,}). Give more rows, or change format.test_fraction, "
        "format.validation_fraction, format.seed, or what counts as near (format.near)"
    )


def write(splits: dict[str, list[Row]]) -> None:
    with whole(FORMATTED) as folder:
        (folder / "text").mkdir(parents=True)
        for name, rows in splits.items():
            shown = [{key: row[key] for key in ("id", "prompt", "completion")} for row in rows]
            write_jsonl(folder / f"{name}.jsonl", shown)
            texts = [{"id": row["id"], "text": row["prompt"] + row["completion"]} for row in shown]
            write_jsonl(folder / "text" / f"{name}.jsonl", texts)


@stage("format")
def main(params: Params) -> None:
    records = read_parquet(RECORDS).to_pylist()
    held_out = f"{params.format.test_fraction:.0%} test, {params.format.validation_fraction:.0%} validation"
    log.info(f"Splitting {len(records):,} rows by the hash of their question: {held_out}, the rest train")
    rows = formatted(records, params.format.template)
    splits, dropped = split(rows, params.format)
    require_rows(splits, dropped)
    write(splits)
    twins = leakage(splits, params.format.near)
    metrics = {
        "rows": {name: len(splits[name]) for name in SPLITS},
        "dropped_near": dropped,
        "leakage": twins,
    }
    write_json(METRICS, metrics)
    counts = ", ".join(f"{name} {len(splits[name]):,}" for name in SPLITS)
    log.info(f"{counts}; {sum(dropped.values()):,} dropped as near to held-out rows → {FORMATTED}/")
    log.info(f"test rows with a twin in train: {twins['exact']:.1%} exact, {twins['near']:.1%} near")


if __name__ == "__main__":
    main()
