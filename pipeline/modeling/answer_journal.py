"""Answers that a killed evaluation goes on from: in .checkpoints/ of the main checkout, gone when they are written out."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.files import attach_path_to_os_error
from pipeline.core.paths import checkpoint_root


class Answer(NamedTuple):
    new_tokens: list[int]  # without prompt, padding and end of text
    finish_reason: str  # stop: the model ended the answer; length: max_new_tokens did


class AnswerJournal:
    """Answers by the place of their prompt, one JSON line each. A line that a kill cut short does not count.

    Two processes that answer the same prompts may share the file: they write the same lines, each at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        self.answers = {place: Answer(tokens, reason) for place, tokens, reason in _whole(text.splitlines())}
        if text and not text.endswith("\n"):
            self._append("\n")  # so that the next line is one of its own

    def add(self, answers: dict[int, Answer]) -> None:
        self._append("".join(json.dumps([place, *answer]) + "\n" for place, answer in answers.items()))

    def _append(self, text: str) -> None:
        with attach_path_to_os_error(self.path):
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                os.write(file, text.encode())
            finally:
                os.close(file)


def _whole(lines: list[str]) -> Iterator[list[Any]]:
    """What the lines hold; a list that was cut off is no JSON."""
    for line in lines:
        with suppress(ValueError):
            yield json.loads(line)


@contextmanager
def open_answer_journal(depends: dict[str, Any]) -> Iterator[AnswerJournal]:
    """The answers so far of an evaluation, told by all that its answers depend on; removed when it has succeeded."""
    key = sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
    root = checkpoint_root()
    root.mkdir(exist_ok=True)
    path = root / f"answers-{key}.jsonl"
    yield AnswerJournal(path)
    path.unlink(missing_ok=True)
