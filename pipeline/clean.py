"""Maps the source's columns onto the task's, tidies the texts and drops what cannot be learned from, counted.

    python -m pipeline.clean     data/raw/ → data/clean/{records,dropped}.parquet, metrics/clean.json

A row is dropped for the first of these reasons that holds: its messages are of no known form, a text that it needs is
empty, its chat has no answer, its answer is nothing but boilerplate, an earlier row is exactly the same.
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

from pipeline.detect import resolve, shown, values_of
from pipeline.errors import DataError
from pipeline.files import read_parquet, whole, write_json
from pipeline.params import Clean, Params
from pipeline.stage import stage
from pipeline.tasks import ROLES, Task
from pipeline.text import cell_text, collapse, tidy

log = logging.getLogger(__name__)

RAW, CLEAN, METRICS = Path("data/raw/rows.parquet"), Path("data/clean"), Path("metrics/clean.json")
REASONS = ("malformed", "empty", "no_answer", "boilerplate", "duplicate")
SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
MESSAGES = f"lists of {{role: {', '.join(ROLES)}; content}} or {{from: {', '.join(SHAREGPT)}; value}}"
Record = dict[str, Any]


def clean(table: pa.Table, columns: Mapping[str, str] | None, options: Clean) -> tuple[list[Record], list[Record]]:
    """(records: id and the task's columns, dropped: id and reason); a row's id is its number in the source, from 0."""
    taken = resolve(table.column_names, columns)
    task = taken.task
    used = {name: values_of(table, taken.columns[name]) for name in task.columns if name in taken.columns}
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
        return _messages(value)
    if value is not None and not isinstance(value, (str, int, float)):
        raise DataError(f"row {row}, {name}: a {type(value).__name__}; expected text (see data.columns)")
    text = cell_text(value)
    # What a person asks and answers is prose; in the other tasks line breaks may mean something.
    text = collapse(text) if task.name == "question/answer" else tidy(text)
    return without_prefix(text, options.question_prefixes) if name == task.question else text


def without_prefix(text: str, prefixes: list[str]) -> str:
    """The text without those of the prefixes that it starts with, each as a whole.

    >>> without_prefix("Q. Quick heartbeat at night?", ["Q."])
    'Quick heartbeat at night?'
    """
    for prefix in prefixes:
        text = text.removeprefix(prefix).lstrip()
    return text


def _messages(value: Any) -> list[dict[str, str]] | None:
    """Chat messages with role and content, tidied, up to the last answer; null where they are not of that form.

    >>> _messages([{"from": "human", "value": "Is it  flu?"}, {"from": "gpt", "value": "Rest."}])
    [{'role': 'user', 'content': 'Is it flu?'}, {'role': 'assistant', 'content': 'Rest.'}]
    """
    if not isinstance(value, list | None):
        return None
    said = []
    for message in value or []:
        # Where some rows are OpenAI's and others ShareGPT's, each has the other's keys, too, and nothing in them.
        keys = message if isinstance(message, dict) else {}
        role, content = keys.get("role"), keys.get("content")
        if role is None:
            role, content = SHAREGPT.get(str(keys.get("from"))), keys.get("value")
        if role not in ROLES or not isinstance(content, str | None):
            return None
        if (content := tidy(content or "")) or role != "system":
            said.append({"role": role, "content": content})
    while said and said[-1]["role"] != "assistant":
        said.pop()  # what nobody answered
    return said


def _reason(values: Record, task: Task, boilerplate: list[re.Pattern[str]]) -> str | None:
    if task.name == "chat":
        messages = values["messages"]
        return "malformed" if messages is None else _chat_reason(messages, boilerplate)
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


@stage("clean")
def main(params: Params) -> None:
    table = read_parquet(RAW)
    taken = resolve(table.column_names, params.data.columns)
    log.info(f"Cleaning {table.num_rows:,} rows: {shown(taken.columns)}")
    records, dropped = clean(table, params.data.columns, params.clean)
    metrics = metrics_of(table, records, dropped)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in metrics["dropped"].items() if count)
    if not records:
        raise DataError(
            f"no row left of {table.num_rows:,}: dropped {reasons}. Look at data.columns and the clean section"
            + (f"; messages are {MESSAGES}" if metrics["dropped"]["malformed"] else "")
        )
    write(records, dropped)
    write_json(METRICS, metrics)
    log.info(f"{len(records):,} of {table.num_rows:,} rows kept; dropped: {reasons or 'none'} → {CLEAN}/")


if __name__ == "__main__":
    main()
