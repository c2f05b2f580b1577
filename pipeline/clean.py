"""Maps the source's columns onto the task's, tidies the texts and drops what cannot be learned from, counted.

    python -m pipeline.clean     data/raw/ → data/clean/{records,dropped}.parquet, metrics/clean.json

A row is dropped for the first of these reasons that holds: a text that it needs is empty, its chat has no answer,
its answer is nothing but boilerplate, an earlier row is exactly the same.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.errors import DataError
from pipeline.files import read_parquet, whole, write_json
from pipeline.params import Clean, Params
from pipeline.stage import stage
from pipeline.tasks import ROLES, Task, mapped_task, task_of
from pipeline.text import collapse, tidy

log = logging.getLogger(__name__)

RAW, CLEAN, METRICS = Path("data/raw/rows.parquet"), Path("data/clean"), Path("metrics/clean.json")
REASONS = ("empty", "no_answer", "boilerplate", "duplicate")
Record = dict[str, Any]


def clean(table: pa.Table, columns: Mapping[str, str] | None, options: Clean) -> tuple[list[Record], list[Record]]:
    """(records: id and the task's columns, dropped: id and reason); a row's id is its number in the source, from 0."""
    task = mapped_task(columns) if columns is not None else task_of(table.column_names)
    source_of = columns or {name: name for name in task.columns if name in table.column_names}
    used = {name: table.column(source_of[name]).to_pylist() for name in task.columns if name in source_of}
    boilerplate = [re.compile(pattern, re.IGNORECASE) for pattern in options.boilerplate]
    records: list[Record] = []
    dropped: list[Record] = []
    seen: set[tuple[Any, ...]] = set()
    for row in tqdm(range(table.num_rows), desc="clean", unit="row", disable=None, leave=False):
        values = {name: _tidied(name, column[row], task, options, row) for name, column in used.items()}
        reason = _reason(values, task, boilerplate) or ("duplicate" if _key(values) in seen else None)
        if reason:
            dropped.append({"id": row, "reason": reason})
        else:
            seen.add(_key(values))
            records.append({"id": row, **values})
    return records, dropped


def _tidied(name: str, value: Any, task: Task, options: Clean, row: int) -> Any:
    if name == "messages":
        return _messages(value, row)
    if value is not None and not isinstance(value, (str, int, float)):
        raise DataError(f"row {row}, {name}: a {type(value).__name__}; expected text (see data.columns)")
    text = _text_of(value)
    # What a person asks and answers is prose; in the other tasks line breaks may mean something.
    text = collapse(text) if task.name == "question/answer" else tidy(text)
    return without_prefix(text, options.question_prefixes) if name == task.question else text


def _text_of(value: str | float | None) -> str:
    """A cell as text: none and NaN are empty, 3.0 (an integer in a column with gaps) is 3."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def without_prefix(text: str, prefixes: list[str]) -> str:
    """The text without those of the prefixes that it starts with, each as a whole.

    >>> without_prefix("Q. Quick heartbeat at night?", ["Q."])
    'Quick heartbeat at night?'
    """
    for prefix in prefixes:
        text = text.removeprefix(prefix).lstrip()
    return text


def _messages(value: Any, row: int) -> list[dict[str, str]]:
    """Chat messages with role and content as texts; DataError names the row where that is not what they are."""
    messages = value if value is not None else []
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and {"role", "content"} <= set(m) for m in messages
    ):
        raise DataError(f"row {row}, messages: expected a list of objects with role and content")
    for message in messages:
        if message["role"] not in ROLES:
            raise DataError(f"row {row}, messages: unknown role {message['role']}; expected {', '.join(ROLES)}")
        if not isinstance(message["content"], str | None):
            raise DataError(f"row {row}, messages: content is a {type(message['content']).__name__}; expected text")
    tidied = [{"role": m["role"], "content": tidy(m["content"] or "")} for m in messages]
    said = [m for m in tidied if m["content"] or m["role"] != "system"]
    while said and said[-1]["role"] != "assistant":
        said.pop()  # what nobody answered
    return said


def _reason(values: Record, task: Task, boilerplate: list[re.Pattern[str]]) -> str | None:
    if task.name == "chat":
        return _chat_reason(values["messages"], boilerplate)
    if any(not values[name] for name in task.required):
        return "empty"
    assert task.answer
    return "boilerplate" if _is_only(values[task.answer], boilerplate) else None


def _chat_reason(messages: list[dict[str, str]], boilerplate: list[re.Pattern[str]]) -> str | None:
    if len(messages) < 2 or messages[-2]["role"] != "user":
        return "no_answer"
    if any(not message["content"] for message in messages):
        return "empty"
    return "boilerplate" if _is_only(messages[-1]["content"], boilerplate) else None


def _is_only(answer: str, boilerplate: list[re.Pattern[str]]) -> bool:
    """Whether the patterns match, and leave no letter or digit of an answer."""
    left = answer
    for pattern in boilerplate:
        left = pattern.sub(" ", left)
    return left != answer and not any(char.isalnum() for char in left)


def _key(values: Record) -> tuple[Any, ...]:
    return tuple(str(value) for value in values.values())


def metrics_of(table: pa.Table, records: list[Record], dropped: list[Record]) -> dict[str, Any]:
    counts = Counter(row["reason"] for row in dropped)
    return {
        "rows_in": table.num_rows,
        "rows_kept": len(records),
        "dropped": {reason: counts[reason] for reason in REASONS},
    }


def write(records: list[Record], dropped: list[Record]) -> None:
    drops = pa.Table.from_pylist(dropped, pa.schema({"id": pa.int64(), "reason": pa.string()}))
    with whole(CLEAN) as folder:
        folder.mkdir()
        pq.write_table(pa.Table.from_pylist(records), folder / "records.parquet", compression="zstd")
        pq.write_table(drops, folder / "dropped.parquet", compression="zstd")


def mapping(columns: Mapping[str, str] | None) -> str:
    """
    >>> mapping({"question": "Description", "answer": "Doctor"})
    ': question ← Description, answer ← Doctor'
    """
    return ": " + ", ".join(f"{name} ← {source}" for name, source in columns.items()) if columns else ""


@stage("clean")
def main(params: Params) -> None:
    table = read_parquet(RAW)
    log.info(f"Cleaning {table.num_rows:,} rows{mapping(params.data.columns)}")
    records, dropped = clean(table, params.data.columns, params.clean)
    metrics = metrics_of(table, records, dropped)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in metrics["dropped"].items() if count)
    if not records:
        raise DataError(
            f"no row left of {table.num_rows:,}: dropped {reasons}. Look at data.columns and the clean section"
        )
    write(records, dropped)
    write_json(METRICS, metrics)
    log.info(f"{len(records):,} of {table.num_rows:,} rows kept; dropped: {reasons or 'none'} → {CLEAN}/")


if __name__ == "__main__":
    main()
