"""Exact and near-duplicates among rows, by the fields that format.near compares."""

from typing import Literal

import numpy as np

from pipeline.config.params import NearDuplicates
from pipeline.format.bigrams import Indices
from pipeline.format.components import Components
from pipeline.format.conversations import Conversation, find_shared_turns
from pipeline.format.field_texts import FieldTexts
from pipeline.format.shared_text import SharedText

Field = Literal["question", "answer"]


class DuplicateSearch:
    """Compares rows, given by their indices in `rows`: questions with questions, and answers with answers.

    `components` are those of all rows, linked by equal and near texts of the fields in format.near.fields.
    """

    def __init__(self, rows: list[Conversation], near: NearDuplicates) -> None:
        self.near = near
        self.shared_turns = find_shared_turns(rows)
        texts: dict[Field, list[list[str]]] = {
            "question": [row.question_texts(self.shared_turns) for row in rows],
            "answer": [[row.answer] if row.turns else [] for row in rows],
        }
        self.fields = {
            field: FieldTexts(texts[field], is_question=field == "question", near=near)
            for field in texts
            if any(texts[field])
        }
        self.compared = [self.fields[field] for field in near.fields if field in self.fields]
        self.components = _united(
            len(rows),
            [self.fields[field].leave_out_shared_text(texts[field]) for field in near.fields if field in self.fields],
        )

    @property
    def shared_texts(self) -> list[SharedText]:
        """Text that is left out of the comparison because it makes most rows near-duplicates."""
        return [shared for field in self.compared for shared in field.shared]

    def text_at(self, field: FieldTexts, rows: list[Conversation], index: int) -> str:
        """The text at an index of the field."""
        row = int(field.row_of[index])
        if field is not self.fields["question"]:
            return rows[row].answer
        return rows[row].question_texts(self.shared_turns)[index - int(field.offsets[row])]

    def components_of(self, rows: Indices) -> Components:
        """The components of some rows. The labels are of all rows; each other row is a component of its own."""
        if len(rows) == len(self.components.labels):
            return self.components
        return _united(len(self.components.labels), [field.components_of(rows) for field in self.compared])

    def find_duplicate(self, rows: Indices, others: Indices) -> Indices:
        """For each of the rows, one of `others` that is equal or, with format.near.enabled, near to it; -1: none."""
        matches = np.full(len(rows), -1, np.int64)
        for field in self.compared:
            for find in (field.find_equal, field.find_near) if self.near.enabled else (field.find_equal,):
                is_open = np.flatnonzero(matches < 0)
                matches[is_open] = find(rows[is_open], others)
        return matches


def _united(count: int, parts: list[Components]) -> Components:
    """The rows' components by the links of all parts."""
    first, *others = parts
    for part in others:
        first.linked_to = np.where(first.linked_to < 0, part.linked_to, first.linked_to)
        first.unite(np.arange(count), part.labels)
    return first
