"""Proposes a column mapping where names alone do not decide, and writes mappings as overrides that can be pasted."""

import re
import shlex
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.config.placeholders import escape_braces
from pipeline.records.detection import find_matches, normalize_name
from pipeline.records.json_cells import to_python
from pipeline.records.messages import NotAChatError, is_chat, read_chat

SAMPLE_ROWS = 200
QUESTION_WORDS = (
    "question",
    "query",
    "frage",
    "pregunta",
    "domanda",
    "vraag",
    "prompt",
    "instruction",
    "input",
    "problem",
)
ANSWER_WORDS = (
    "answer",
    "antwort",
    "respuesta",
    "risposta",
    "antwoord",
    "response",
    "reply",
    "solution",
    "output",
    "lösung",
)
NOT_TEXT = re.compile(
    r"(^|\W)(id|uuid|guid|key|index|nr|no|number|date|datum|time|timestamp|created|updated|closed|url|link|email|e-mail|"
    r"phone|status|type|category|kategorie|priority|priorität|tags?|lang|language|sprache|source|split|score|rating|"
    r"version|user|author|agent|name)(\W(at|on|id))?(\W?\d+)?$"
)
URL, NUMBER = re.compile(r"https?://\S+"), re.compile(r"[\d.,:/+\-\sTZeE%€$]+")  # a number, date or time


class ColumnSample(NamedTuple):
    name: str
    mean_length: float
    position: int
    asks: float = 0  # the share of texts that end in a question mark


def suggest_columns(available: list[str], sample: pa.Table | None = None) -> dict[str, str]:
    """A column mapping for the source's columns, as data.columns holds it; empty if no column has text.

    The names decide where they can. Otherwise `sample`, some of the source's rows, tells texts from ids, dates, numbers,
    addresses, categories and constants; the two longest texts are the question and the answer. The one with question
    marks is the question; else the longer one is the answer; if they are about equal, the first is the question.
    """
    if matches := find_matches(available):
        return dict(matches[0].columns)
    if sample is not None and (chats := [name for name in available if _holds_chats(sample, name)]):
        return _suggest_chat(chats, sample)
    samples = _text_columns(available, sample)
    if len(samples) < 2:
        return {"text": escape_braces(samples[0].name)} if samples else {}
    question, answer = _choose(samples)
    return {"question": escape_braces(question.name), "answer": escape_braces(answer.name)}


def _cells(sample: pa.Table, name: str) -> list[Any]:
    if name not in sample.column_names:
        return []
    return [cell for cell in to_python(sample.column(name).slice(0, SAMPLE_ROWS)) if cell is not None]


def _holds_chats(sample: pa.Table, name: str) -> bool:
    cells = _cells(sample, name)
    return bool(cells) and all(map(is_chat, cells[:10]))


def _suggest_chat(chats: list[str], sample: pa.Table) -> dict[str, str]:
    """The first column with questions and answers; if none has both, as in preference data, a prompt and a completion."""
    roles = {name: _roles(_cells(sample, name)[0]) for name in chats}
    whole = [name for name in chats if roles[name] >= {"user", "assistant"}]
    prompts = [name for name in chats if "user" in roles[name]]
    completions = [name for name in chats if "assistant" in roles[name]]
    if not whole and prompts and completions:
        return {"prompt": escape_braces(prompts[0]), "completion": escape_braces(completions[0])}
    return {"messages": escape_braces((whole or chats)[0])}


def _roles(chat: Any) -> set[str]:
    try:
        return {message["role"] for message in read_chat(chat, None).messages}
    except NotAChatError:
        return set()


def _text_columns(available: list[str], sample: pa.Table | None) -> list[ColumnSample]:
    """The columns that hold texts, by the sample, or by their names if there is none."""
    if sample is None:
        named = [name for name in available if not NOT_TEXT.search(normalize_name(name))]
        return [ColumnSample(name, 0, position) for position, name in enumerate(named or available)]
    columns = [
        (ColumnSample(name, fmean(map(len, texts)), position, fmean(map(_asks, texts))), texts)
        for position, name in enumerate(available)
        if (texts := _texts(_cells(sample, name)))
    ]
    named_texts = [(column, texts) for column, texts in columns if not NOT_TEXT.search(normalize_name(column.name))]
    phrases = [column for column, texts in named_texts if not _are_codes(texts)]
    for choice in (phrases, [column for column, _ in named_texts]):  # answers may be single words
        if len(choice) > 1:
            return choice
    return phrases or [column for column, _ in columns]


def _texts(cells: list[Any]) -> list[str]:
    """The cells if they are texts; empty for numbers, dates and addresses."""
    if not all(isinstance(cell, str) for cell in cells):
        return []
    texts = [text for cell in cells if (text := cell.strip())]
    return [] if all(URL.fullmatch(text) or NUMBER.fullmatch(text) for text in texts) else texts


def _asks(text: str) -> bool:
    return text.endswith(("?", "？", "؟"))


def _are_codes(texts: list[str]) -> bool:
    """Whether texts are ids, constants, or the names of categories."""
    is_constant = len(texts) > 1 and len(set(texts)) == 1
    are_words = all(text.isascii() and not re.search(r"\s", text) for text in texts)
    is_category = len(texts) >= 20 and len(set(texts)) <= len(texts) / 10 and max(map(len, texts)) < 40
    return is_constant or are_words or is_category


def _choose(samples: list[ColumnSample]) -> tuple[ColumnSample, ColumnSample]:
    """(the question, the answer)."""
    questions = [column for column in samples if _names_one_of(column, QUESTION_WORDS)]
    answers = [column for column in samples if _names_one_of(column, ANSWER_WORDS) and column not in questions]
    by_length = sorted(samples, key=lambda column: -column.mean_length)
    if questions or answers:
        answer = answers[0] if answers else next(column for column in by_length if column != questions[0])
        question = questions[0] if questions else next(column for column in by_length if column != answer)
        return question, answer
    first, second = sorted(by_length[:2], key=lambda column: column.position)
    if max(first.asks, second.asks) > 0.3 and abs(first.asks - second.asks) > 0.2:
        return (first, second) if first.asks > second.asks else (second, first)
    return (second, first) if first.mean_length > 1.5 * second.mean_length else (first, second)


def _names_one_of(column: ColumnSample, words: Iterable[str]) -> bool:
    return any(word in normalize_name(column.name) for word in words)


def closest_column(name: str, available: list[str]) -> str | None:
    """The source's column whose name is nearest to `name`; None if none is near.

    >>> closest_column("Antwrot", ["Frage", "Antwort"])
    'Antwort'
    """
    names = {normalize_name(column): column for column in available}
    close = get_close_matches(normalize_name(name), names, n=1)
    return names[close[0]] if close else None


def format_columns_override(columns: Mapping[str, str]) -> str:
    """The mapping as arguments for the command line, quoted for Hydra and for the shell.

    >>> print(format_columns_override({"question": "Frage", "answer": "l'Antwort"}))
    -S 'data.columns={question: "Frage", answer: "l'"'"'Antwort"}'
    """
    from hydra.core.override_parser.types import Quote, QuotedString

    quoted = {
        # A dollar before a brace would be an interpolation.
        name: QuotedString(text=value.replace("${", "\\${"), quote=Quote.double).with_quotes()
        for name, value in columns.items()
    }
    pairs = ", ".join(f"{name}: {value}" for name, value in quoted.items())
    return f"-S {shlex.quote(f'data.columns={{{pairs}}}')}"
