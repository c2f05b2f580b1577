"""Renders the cleaned records through the prompt template and splits them so that no test row leaks into training.

    python -m pipeline.format     data/clean/ → data/formatted/, metrics/format.json

Writes data/formatted/{train,validation,test}.jsonl with id, prompt, completion. data/formatted/text/ has the same rows with
prompt and completion as one text, for tools that expect that; data/formatted/dropped.jsonl has the rows that are in no split.

The split of a row is determined by a hash of its normalized question and the seed. So rows with the same question stay
together, and adding rows never moves an old one. Then near-duplicates are dropped: from train those of test or validation
rows, from validation those of test rows. The remaining rows leak nothing, by construction; `measure_leakage` checks it all
the same. `format.split=row` hashes each row's id instead and drops none: a naive shuffle, to see what leakage
it causes.
"""

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pipeline.config.params import Format, NearDuplicates, Params, Template
from pipeline.core.entrypoint import stage
from pipeline.core.files import ParquetReader, atomic_write, json_line, write_json, write_jsonl
from pipeline.core.paths import FORMATTED, METRICS, RECORDS, RECORDS_TASK
from pipeline.errors import DataError
from pipeline.format.bigrams import Indices, concatenated_ranges
from pipeline.format.near_duplicates import Mask, NearDuplicateSearch
from pipeline.format.prompt import render_prompt
from pipeline.records.tasks import Task, Turn, read_task, turns_of
from pipeline.records.text import comparison_key

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
BATCH_ROWS = 4096  # records in memory as Python objects


class Conversation(NamedTuple):
    """A record as the turns of a conversation and the answer to the last one. Plain text is an answer without turns."""

    id: int
    turns: list[Turn]
    answer: str

    @property
    def question(self) -> str:
        """The text that determines the split: all user turns, or a plain text itself."""
        return "\n".join(turn.content for turn in self.turns if turn.role == "user") or self.answer

    def compared_texts(self, field: str) -> list[str]:
        """The texts to compare with other rows' questions or answers (`field`): the row's own, then each earlier turn."""
        answer = self.answer if self.turns else ""
        return [self.question if field == "question" else answer, *(turn.content for turn in self.turns[:-1])]


Splits = dict[str, list[Conversation]]


def conversations_of(records: Iterable[dict[str, Any]], task: Task) -> Iterator[Conversation]:
    """Yield the conversations of cleaned records, which have the columns of the task."""
    for record in records:
        yield Conversation(record["id"], *turns_of(task, record))


def render_row(row: Conversation, template: Template) -> dict[str, Any]:
    """The row for the model: id, prompt, completion."""
    if not row.turns:
        return {"id": row.id, "prompt": "", "completion": row.answer}
    prompt = render_prompt(row.turns, template.prompt, template.completion)
    return {"id": row.id, "prompt": prompt, "completion": template.completion.format(answer=row.answer)}


def split_key(row: Conversation, options: Format) -> str:
    """The text of a row that is hashed: its question, normalized, or its id."""
    return " ".join(comparison_key(row.question)) if options.split == "question" else str(row.id)


def assign_split(key: str, options: Format) -> str:
    """The split of a key (see `split_key`), which does not depend on other rows.

    SHA-256 of the seed and the key gives two numbers that are uniform in [0, 1). Without folds, the first number decides: test
    below test_fraction, validation below test_fraction + validation_fraction, else train. With folds, the first number selects
    the fold, and the second one selects validation_fraction of the other folds for validation.
    """
    digest = hashlib.sha256(f"{options.seed}\0{key}".encode()).digest()
    first, second = (int.from_bytes(digest[start : start + 8], "big") / 2**64 for start in (0, 8))
    if options.folds:
        is_test, is_validation = int(first * options.folds) == options.fold, second < options.validation_fraction
    else:
        is_test = first < options.test_fraction
        is_validation = first < options.test_fraction + options.validation_fraction
    return "test" if is_test else "validation" if is_validation else "train"


def split_rows(rows: list[Conversation], options: Format, search: "DuplicateSearch") -> tuple[Splits, Splits]:
    """(split → its rows in their order, split → rows dropped from it as near-duplicates of validation or test rows).

    A near-duplicate of a validation row is dropped from train even if that validation row is dropped too, so that adding a row
    never brings back another.
    """
    splits: Splits = {name: [] for name in SPLITS}
    for row in rows:
        splits[assign_split(split_key(row, options), options)].append(row)
    if options.split == "row":
        return splits, {"train": [], "validation": []}
    held_out = {"train": splits["test"] + splits["validation"], "validation": splits["test"]}
    parts = {
        name: _partition(splits[name], search.has_near_duplicate(splits[name], others))
        for name, others in held_out.items()
    }
    return splits | {name: kept for name, (kept, _) in parts.items()}, {name: near for name, (_, near) in parts.items()}


def _partition(rows: list[Conversation], is_near: list[bool]) -> tuple[list[Conversation], list[Conversation]]:
    kept = [row for row, near in zip(rows, is_near, strict=True) if not near]
    return kept, [row for row, near in zip(rows, is_near, strict=True) if near]


class DuplicateSearch:
    """Finds exact and near-duplicates among rows, comparing questions with questions and answers with answers."""

    def __init__(self, rows: list[Conversation], near: NearDuplicates) -> None:
        self.row_indices = {row.id: index for index, row in enumerate(rows)}
        self.offsets = np.cumsum([0, *(max(1, len(row.turns)) for row in rows)])  # of each row's texts among all texts
        self.questions, self.answers = (
            NearDuplicateSearch(
                (text for row in rows for text in row.compared_texts(field)), near.threshold, near.min_words
            )
            for field in ("question", "answer")
        )

    def has_near_duplicate(self, rows: list[Conversation], others: list[Conversation]) -> list[bool]:
        """For each row, whether one of its texts is a near-duplicate of a text of `others`."""
        has_near = np.zeros(len(rows), bool)
        (owners, texts), (_, references) = self._text_indices(rows), self._text_indices(others)
        for search in (self.questions, self.answers):
            has_near[owners[search.is_near(texts, references)]] = True
        return _booleans(has_near)

    def has_exact_duplicate(self, rows: list[Conversation], others: list[Conversation]) -> list[bool]:
        """For each row, whether its question has the words of a question of `others`, or its answer those of an answer.

        Answers count if they are long enough to compare (format.near.min_words).
        """
        texts, references = (self.offsets[self._row_indices(group)] for group in (rows, others))
        same_question, same_answer = (
            np.isin(search.text_hashes[texts], search.text_hashes[references])
            for search in (self.questions, self.answers)
        )
        return _booleans(same_question | (same_answer & (self.answers.sets.sizes[texts] > 0)))

    def _row_indices(self, rows: list[Conversation]) -> Indices:
        return np.array([self.row_indices[row.id] for row in rows], np.int64)

    def _text_indices(self, rows: list[Conversation]) -> tuple[Indices, Indices]:
        """For each text of the rows: (position of its row in `rows`, index among all texts)."""
        indices = self._row_indices(rows)
        sizes = self.offsets[indices + 1] - self.offsets[indices]
        texts = np.repeat(self.offsets[indices], sizes) + concatenated_ranges(sizes)
        return np.repeat(np.arange(len(rows)), sizes), texts


def _booleans(mask: Mask) -> list[bool]:
    values: list[bool] = mask.tolist()
    return values


def measure_leakage(splits: Splits, search: DuplicateSearch) -> dict[str, float]:
    """The share of test rows with a question or answer that has a duplicate in train: exact (the same words), or near."""
    test, train = splits["test"], splits["train"]
    return {
        name: sum(has_duplicate(test, train)) / len(test)
        for name, has_duplicate in (("exact", search.has_exact_duplicate), ("near", search.has_near_duplicate))
    }


def require_leakage_within_limit(leakage: dict[str, float], options: Format) -> None:
    """Raise DataError if more test rows have a duplicate in train than format.max_leakage allows."""
    worst = max(leakage.values())
    if worst > options.max_leakage:
        raise DataError(
            f"format.max_leakage: {leakage['exact']:.1%} of the test rows have an exact duplicate in the training set, "
            f"{leakage['near']:.1%} a near-duplicate; the limit is {options.max_leakage:.1%}. Split by question "
            f"(format.split=question), or allow it: format.max_leakage={math.ceil(1000 * worst) / 1000:g}"
        )


def require_nonempty_splits(splits: Splits, dropped: Splits) -> None:
    """Raise DataError with the counts if a split is empty."""
    if all(splits.values()):
        return
    empty = ", ".join(name for name, rows in splits.items() if not rows)
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in splits.items())
    raise DataError(
        f"the split {empty} would be empty ({counts}; dropped as near-duplicates of validation or test rows: "
        f"{sum(map(len, dropped.values())):,}). Give more rows, or change format.test_fraction, "
        "format.validation_fraction, format.seed, or the limit of near-duplicates (format.near)"
    )


def write_splits(splits: Splits, dropped: Splits, template: Template) -> None:
    """Write the rows of each split, and the dropped rows with the reason, to data/formatted/."""
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
                    rendered = render_row(row, template)
                    file.write(json_line(rendered))
                    texts.write(json_line({"id": row.id, "text": rendered["prompt"] + rendered["completion"]}))
                    bar.update()
        write_jsonl(
            folder / "dropped.jsonl",
            (
                {"id": row.id, "reason": "near_held_out", "split": name} | render_row(row, template)
                for name, rows in dropped.items()
                for row in rows
            ),
        )


def read_conversations() -> list[Conversation]:
    records, task = ParquetReader(RECORDS), read_task(RECORDS_TASK)
    tables = records.iter_tables(records.column_names, BATCH_ROWS)
    return [row for table in tables for row in conversations_of(table.to_pylist(), task)]


@stage("format")
def main(params: Params) -> None:
    options = params.format
    rows = read_conversations()
    log.info(f"Splitting {len(rows):,} rows {describe_split(options)}")
    search = DuplicateSearch(rows, options.near)
    splits, dropped = split_rows(rows, options, search)
    require_nonempty_splits(splits, dropped)
    leakage = measure_leakage(splits, search)
    require_leakage_within_limit(leakage, options)
    write_splits(splits, dropped, options.template)
    metrics = {
        "rows_in": len(rows),
        "rows": {name: len(splits[name]) for name in SPLITS},
        "dropped_near": {name: len(dropped[name]) for name in dropped},
        "leakage": leakage,
    }
    write_json(METRICS / "format.json", metrics)
    counts = ", ".join(f"{name} {len(splits[name]):,}" for name in SPLITS)
    total_dropped = sum(map(len, dropped.values()))
    log.info(
        f"{counts}; {total_dropped:,} training or validation rows dropped as near-duplicates of validation or test rows "
        f"→ {FORMATTED}/"
    )
    log.info(
        f"Test rows with a duplicate in the training set: {leakage['exact']:.1%} exact, {leakage['near']:.1%} near"
    )


def describe_split(options: Format) -> str:
    """The split in words, for the log."""
    key = "by the hash of their question" if options.split == "question" else "one by one (naive: duplicates leak)"
    test = f"fold {options.fold} of {options.folds}" if options.folds else f"about {options.test_fraction:.0%}"
    return f"{key}: {test} test, about {options.validation_fraction:.0%} validation, the rest train"
