"""Finds the columns of a task among the source's by their names, case and the spaces around them aside.

The first of DETECTION_STEPS with a match wins. A match whose columns are a proper subset of another match's does not count.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import NamedTuple

from pipeline.config.placeholders import escape_braces, parse_template
from pipeline.records.aliases import OPTIONAL, OPTIONAL_OF_TASK, Alternative, required_aliases
from pipeline.records.tasks import TASKS, Task

SEPARATOR = re.compile(r"[\s_-]+")
BYTE_ORDER_MARK = "\ufeff"


class Match(NamedTuple):
    """Columns of the source that fit a task, as data.columns would map them."""

    task: Task
    columns: dict[str, str]
    reason: str


def normalize_name(name: str) -> str:
    r"""A column's name for comparison.

    >>> normalize_name("\ufeffAgent_Reply "), normalize_name(" Re\u0301ponse")
    ('agent reply', 'réponse')
    """
    folded = unicodedata.normalize("NFKC", name.strip(BYTE_ORDER_MARK)).casefold()
    return SEPARATOR.sub(" ", folded).strip()


def referenced_columns(value: str) -> list[str]:
    """The source's columns that one value of data.columns names: the value itself, or the placeholders of a template.

    >>> referenced_columns("Reply"), referenced_columns("{Description}: {Patient}"), referenced_columns("Frage {{de}}")
    (['Reply'], ['Description', 'Patient'], ['Frage {de}'])
    """
    parts = parse_template(value)
    names = [name for _, name in parts if name is not None]
    return names or ["".join(literal for literal, _ in parts)]


def is_template(value: str) -> bool:
    """Whether a value of data.columns combines columns, or adds text to one."""
    return any(name is not None for _, name in parse_template(value))


Names = Mapping[str, Alternative]  # the task's column → the names to look for


class DetectionStep(NamedTuple):
    reason: str
    tasks: list[Task]
    names_of: Callable[[Task], list[Names]]  # of the required columns
    normalize: Callable[[str], str]  # applied to the source's names before they are compared


def _own_names(task: Task) -> list[Names]:
    return [{name: (name,) for name in task.required}]


def _aliases(task: Task) -> list[Names]:
    return list(required_aliases(task.name))


# Question and answer go before text: datasets often repeat both in one column of text.
QUESTION_TASKS = [task for task in TASKS if task.name != "text"]
TEXT_TASK = [task for task in TASKS if task.name == "text"]
_NO_QUESTION = "and none are named like a question and its answer"
DETECTION_STEPS = (
    DetectionStep("the columns have the task's names", QUESTION_TASKS, _own_names, str),
    DetectionStep("the columns have the task's names, ignoring case", QUESTION_TASKS, _own_names, normalize_name),
    DetectionStep(f"a column has the task's name, {_NO_QUESTION}", TEXT_TASK, _own_names, str),
    DetectionStep(
        f"a column has the task's name, ignoring case, {_NO_QUESTION}", TEXT_TASK, _own_names, normalize_name
    ),
    DetectionStep("the columns have other names known for the task", QUESTION_TASKS, _aliases, normalize_name),
    DetectionStep("a column has another name known for the task", TEXT_TASK, _aliases, normalize_name),
)


def find_matches(available: list[str]) -> list[Match]:
    """The best matches of the source's columns: none, one, or several that fit equally well."""
    for step in DETECTION_STEPS:
        names: dict[str, list[str]] = {}
        for column in available:
            names.setdefault(step.normalize(column), []).append(column)
        matches = [
            Match(task, columns, step.reason)
            for task in step.tasks
            for wanted in step.names_of(task)
            for columns in _assignments(task, wanted, names)
        ]
        used = [_used_columns(match.columns.values()) for match in matches]
        best = [match for match, own in zip(matches, used, strict=True) if not any(own < other for other in used)]
        if best:
            return best
    return []


def _used_columns(values: Iterable[str]) -> set[str]:
    return {name for value in values for name in referenced_columns(value)}


def _assignments(task: Task, wanted: Names, names: dict[str, list[str]]) -> Iterator[dict[str, str]]:
    """Every choice of the source's columns that have the names, with the task's optional columns where there are some."""
    values = [_values(alternative, names) for alternative in wanted.values()]
    if not all(values):
        return
    for choice in product(*values):
        columns = dict(zip(wanted, choice, strict=True))
        optional = _optional_columns(task, names, _used_columns(choice))
        yield {name: value for name in task.columns if (value := columns.get(name) or optional.get(name))}


def _values(alternative: Alternative, names: dict[str, list[str]]) -> list[str]:
    """The values of data.columns that stand for the names: a column's own, or a template that joins several."""
    if len(alternative) == 1:
        return [escape_braces(column) for column in names.get(alternative[0], ())]
    choices = product(*(names.get(name, ()) for name in alternative))
    return ["\n\n".join(f"{{{column}}}" for column in columns) for columns in choices if not _has_braces(columns)]


def _has_braces(columns: Iterable[str]) -> bool:
    return any("{" in column or "}" in column for column in columns)


def _optional_columns(task: Task, names: dict[str, list[str]], used: set[str]) -> dict[str, str]:
    known = OPTIONAL_OF_TASK.get(task.name, OPTIONAL)
    found = {}
    for name in task.optional:
        columns = [column for alias in known.get(name, ()) for column in names.get(alias, ()) if column not in used]
        if columns:
            found[name] = escape_braces(columns[0])
    return found
