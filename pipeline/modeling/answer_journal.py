"""A journal of generated answers in .checkpoints/ of the main checkout, from which a killed evaluation resumes.

It is removed once the answers are written to their output file.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.files import name_file_in_errors
from pipeline.core.paths import checkpoint_root


class Answer(NamedTuple):
    new_tokens: list[int]  # without prompt, padding and end-of-text token
    finish_reason: str  # stop: the model ended the answer; length: max_new_tokens did


class AnswerJournal:
    """Answers by the index of their prompt, one JSON line each. A line cut short by a kill is ignored.

    Two processes that answer the same prompts may share the file: they append the same lines, each in one write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        self.answers = {index: Answer(tokens, reason) for index, tokens, reason in _parse_lines(text.splitlines())}
        if text and not text.endswith("\n"):
            self._append("\n")  # so that the next answer starts a new line

    def add(self, answers: dict[int, Answer]) -> None:
        self._append("".join(json.dumps([index, *answer]) + "\n" for index, answer in answers.items()))

    def _append(self, text: str) -> None:
        with name_file_in_errors(self.path):
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                rest = text.encode()
                while rest:  # a disk that is nearly full takes a part
                    rest = rest[os.write(file, rest) :]
            finally:
                os.close(file)


def _parse_lines(lines: list[str]) -> Iterator[list[Any]]:
    """The complete lines; a list that was cut short is not valid JSON."""
    for line in lines:
        with suppress(ValueError):
            yield json.loads(line)


@contextmanager
def open_answer_journal(key: dict[str, Any]) -> Iterator[AnswerJournal]:
    """The journal of one evaluation, removed when the block succeeds. key: everything that the answers depend on."""
    digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    root = checkpoint_root()
    root.mkdir(exist_ok=True)
    path = root / f"answers-{digest}.jsonl"
    yield AnswerJournal(path)
    path.unlink(missing_ok=True)
