"""A journal of generated answers in .checkpoints/ of the main checkout, from which a killed evaluation resumes.

It is removed once the answers are written to their output file.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.files import name_file_in_errors
from pipeline.core.paths import checkpoint_root, shorten_path
from pipeline.modeling.resume_key import ResumeKey


class Answer(NamedTuple):
    new_tokens: list[int]  # without prompt, padding and end-of-text token
    finish_reason: str  # stop: the model ended the answer; length: max_new_tokens did


class AnswerJournal:
    """Answers by the index of their prompt, one JSON line each, after a line with what they depend on.

    A line cut short by a kill is ignored. Two processes that answer the same prompts may share the file: they append the
    same lines, each in one write.
    """

    def __init__(self, path: Path, key: ResumeKey | None = None) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = [line for line in _parse_lines(text.splitlines()) if isinstance(line, list)]
        self.answers = {index: Answer(tokens, reason) for index, tokens, reason in lines}
        if text and not text.endswith("\n"):
            self._append("\n")  # so that the next answer starts a new line
        if not text and key:
            self._append(json.dumps(key.dependencies) + "\n")

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


def _parse_lines(lines: Iterable[str]) -> Iterator[Any]:
    """The complete lines; one that was cut short is not valid JSON."""
    for line in lines:
        with suppress(ValueError):
            yield json.loads(line)


@contextmanager
def open_answer_journal(key: ResumeKey) -> Iterator[AnswerJournal]:
    """The journal of one evaluation, removed when the block succeeds. key: everything that the answers depend on."""
    root = checkpoint_root()
    root.mkdir(exist_ok=True)
    path = root / f"answers-{key.digest}.jsonl"
    yield AnswerJournal(path, key)
    path.unlink(missing_ok=True)


def describe_other_journals(journal: AnswerJournal, key: ResumeKey) -> list[str]:
    """A sentence for each journal of the same model that a killed evaluation left and whose answers are not used."""
    sentences = []
    for path in sorted(journal.path.parent.glob("answers-*.jsonl")):
        if path == journal.path:
            continue
        with path.open(encoding="utf-8", errors="replace") as lines:
            other = next(_parse_lines(lines), None)
        if isinstance(other, dict) and other.get("model") == key.dependencies.get("model"):
            sentences.append(
                f"Not using the answers in {shorten_path(path)}, which are of another evaluation of this model: "
                f"{key.describe_differences(other)}. To remove them: rm {shorten_path(path)}"
            )
    return sentences
