"""Rows to split, and what becomes of them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import yaml
from support.project import SHIPPED

from pipeline.config.params import Format, NearDuplicates
from pipeline.config.templates import TextTemplate
from pipeline.format.conversations import Conversation
from pipeline.format.duplicates import DuplicateSearch
from pipeline.format.leakage import measure_leakage
from pipeline.format.split import SPLITS, Split, split_rows
from pipeline.records.tasks import Turn

NEAR = NearDuplicates(
    enabled=True, fields=["question"], strategy="cluster", threshold=0.7, min_words=8, max_cluster_rows=None
)
OPTIONS = Format(
    seed=0,
    split="question",
    group=None,
    test_fraction=0.15,
    validation_fraction=0.1,
    folds=None,
    fold=0,
    max_leakage=0.0,
    system=None,
    near=NEAR,
    template=TextTemplate(**yaml.safe_load((SHIPPED / "conf/format/template/plain.yaml").read_text(encoding="utf-8"))),
)


def options(near: dict[str, Any] | None = None, **values: Any) -> Format:
    return OPTIONS.model_copy(update={"near": NEAR.model_copy(update=near or {}), **values})


def row(id: int, question: str, answer: str = "Rest.") -> Conversation:
    return Conversation(id, [Turn("user", question)], answer)


def rows_of(questions: Iterable[str]) -> list[Conversation]:
    return [row(id, question, f"Answer {id}.") for id, question in enumerate(questions)]


def chat(id: int, *turns: str, system: str = "") -> Conversation:
    """A dialogue whose turns are the user's and the assistant's by turns; the last one is the answer."""
    roles = [Turn(("user", "assistant")[number % 2], text) for number, text in enumerate(turns[:-1])]
    return Conversation(id, [Turn("system", system)] * bool(system) + roles, turns[-1])


def sentences(count: int, words: int, seed: int = 0) -> list[str]:
    """Different texts of so many words that are no near-duplicates."""
    generator = np.random.default_rng(seed)
    return [" ".join(f"w{number}" for number in generator.integers(0, 10**6, words)) for _ in range(count)]


def split_of(rows: list[Conversation], options: Format = OPTIONS, **more: Any) -> Split:
    return split_rows(rows, options, DuplicateSearch(rows, options.near), **more)


def sides_of(split: Split) -> dict[int, str]:
    """Row id → its split, or dropped."""
    return {row.id: "dropped" if index in split.dropped else split.sides[index] for index, row in enumerate(split.rows)}


def leakage_of(split: Split, options: Format = OPTIONS) -> dict[str, float]:
    return measure_leakage(split, DuplicateSearch(split.rows, options.near), options)


def assigned(**rows: list[Conversation]) -> Split:
    """A split with these rows."""
    everything = [one for name in SPLITS for one in rows.get(name, [])]
    sides = [name for name in SPLITS for _ in rows.get(name, [])]
    return Split(everything, np.arange(len(everything)), sides=sides)
