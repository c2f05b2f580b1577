"""Prepares the rows for the model's chat template or a prompt template, and splits them so that no test row leaks.

    python -m pipeline.format     data/clean/, data/raw/rows.parquet (format.group), models/base → data/formatted/,
                                  metrics/format.json

data/formatted/ holds

- {train,validation,test}.jsonl: id, prompt, completion; or id, messages and tools, if a chat template renders the rows
- template.json: how the rows are rendered (pipeline/chat/row_format.py)
- text/: the same rows, each rendered as one text, for tools that expect that
- dropped.jsonl: the rows that are in no split, with the reason, and of near rows the id of the row that they are near to
- clusters.parquet: id, split and cluster (the id of its first row) of each row that is in a split, and its group

Rows with equal or near questions form a cluster, and a hash decides in which split a whole cluster goes (split.py). So the
splits leak nothing, by construction; `measure_leakage` checks it all the same. `format.split=row` hashes each row's id
instead: a naive shuffle, to see what leakage it causes.
"""

import logging
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.chat.row_format import ChatFormat, TextFormat, write_row_format
from pipeline.config.params import Format, Params
from pipeline.core.entrypoint import stage
from pipeline.core.files import atomic_write, json_line, write_jsonl
from pipeline.core.metrics import write_metrics
from pipeline.core.paths import FORMATTED, RECORDS_TASK
from pipeline.errors import ConfigError, DataError
from pipeline.format.chat_notes import describe_chat, describe_row_format, refusal_warnings
from pipeline.format.chat_rows import CHAT_REASONS
from pipeline.format.conversations import Conversations, read_conversations, read_dialogues, read_records
from pipeline.format.duplicates import DuplicateSearch
from pipeline.format.groups import Groups, read_groups
from pipeline.format.leakage import measure_leakage, require_leakage_within_limit
from pipeline.format.notes import describe_moved, find_warnings, near_examples
from pipeline.format.rendering import chat_reader_of, choose_row_format, render_row, text_renderer
from pipeline.format.split import REASONS, SPLITS, Split, require_nonempty_splits, split_rows
from pipeline.records.tasks import Task, has_context, read_first_test_row, read_task

log = logging.getLogger(__name__)

HEADLINE = {key: key for key in (*(f"rows.{split}" for split in SPLITS), "leakage.exact", "leakage.near")}


def write_splits(
    split: Split, groups: Groups, conversations: Conversations, row_format: TextFormat | ChatFormat
) -> None:
    """Write the rows of each split, the dropped rows with their reasons, and the clusters to data/formatted/."""
    text_of = text_renderer(row_format)
    with (
        atomic_write(FORMATTED) as folder,
        tqdm(total=len(split.rows), desc="write", unit="row", disable=None, leave=False) as bar,
    ):
        (folder / "text").mkdir(parents=True)
        write_row_format(folder, row_format)
        for name in SPLITS:
            with (
                (folder / f"{name}.jsonl").open("wb") as file,
                (folder / "text" / f"{name}.jsonl").open("wb") as texts,
            ):
                for row in split.rows_of(name):
                    rendered = render_row(row, row_format)
                    file.write(json_line(rendered))
                    texts.write(json_line({"id": row.id, "text": text_of(rendered)}))
                    bar.update()
        write_jsonl(folder / "dropped.jsonl", _dropped_rows(split, conversations.refused, row_format))
        pq.write_table(cluster_table(split, groups), folder / "clusters.parquet", compression="zstd")


def _dropped_rows(
    split: Split, refused: list[tuple[int, str, str]], row_format: TextFormat | ChatFormat
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"id": id, "reason": reason, "split": None} | ({"detail": detail} if detail else {})
        for id, reason, detail in refused
    ]
    for index, (reason, name, near) in sorted(split.dropped.items()):
        match = {} if near is None else {"near": split.rows[near].id}
        row = split.rows[index]
        rows.append({"id": row.id, "reason": reason, "split": name, **match, **render_row(row, row_format)})
    return rows


def cluster_table(split: Split, groups: Groups) -> pa.Table:
    """id, split, cluster and, with format.group, group of the rows that are in a split."""
    kept = split.indices(*SPLITS).tolist()
    ids = [split.rows[index].id for index in kept]
    columns = {
        "id": pa.array(ids, pa.int64()),
        "split": pa.array([split.sides[index] for index in kept], pa.string()),
        "cluster": pa.array([split.rows[split.clusters[index]].id for index in kept], pa.int64()),
    }
    if groups:
        columns["group"] = pa.array([groups.get(id) for id in ids], pa.string())
    return pa.table(columns)


def collect_metrics(
    conversations: Conversations, split: Split, groups: Groups, leakage: dict[str, float]
) -> dict[str, Any]:
    """The metrics of the stage, without the warnings."""
    reasons = [drop.reason for drop in split.dropped.values()]
    dropped = {reason: reasons.count(reason) for reason in REASONS}
    refused = Counter(reason for _, reason, _ in conversations.refused)
    dropped |= refused if conversations.chat else {"needs_chat_template": len(conversations.refused)}
    sizes = np.bincount(split.clusters, minlength=1)
    sizes = sizes[sizes > 0]
    metrics = {
        "rows_in": len(split.rows) + len(conversations.refused),
        "rows": split.counts(),
        "dropped": dropped,
        "rows_without_tools": conversations.without_tools,
        "clusters": {
            "count": len(sizes),
            "rows_with_others": int(sizes[sizes > 1].sum()),
            "largest": int(sizes.max(initial=0)),
            "rows_moved": split.rows_moved(),
        },
        "leakage": leakage,
    }
    if conversations.chat:
        metrics["descriptions"] = {reason: CHAT_REASONS[reason] for reason in refused}
        metrics["chat"] = {**asdict(conversations.chat), "end_tokens": list(conversations.end_tokens)}
    if groups:
        values = [groups[row.id] for row in split.rows if row.id in groups]
        _, counts = np.unique(values, return_counts=True)
        metrics["groups"] = {
            "count": len(counts),
            "largest": int(counts.max()),
            "test_rows_without": len(split.rows) - len(values),
        }
    return metrics


@stage("format")
def main(params: Params) -> None:
    options = params.format
    task, first_test_row = read_task(RECORDS_TASK), read_first_test_row(RECORDS_TASK)
    row_format, conversations = prepare_rows(task, options)
    rows = conversations.rows
    require_rows(conversations)
    log.info(f"Splitting {len(rows):,} rows {describe_split(options, first_test_row is not None)}")
    groups = read_groups(options.group, [row.id for row in rows], first_test_row) if options.group else {}
    search = DuplicateSearch(rows, options.near)
    split = split_rows(rows, options, search, groups, first_test_row)
    require_nonempty_splits(split, options.group)
    leakage = measure_leakage(split, search, options)
    require_leakage_within_limit(leakage, options)
    write_splits(split, groups, conversations, row_format)
    metrics = collect_metrics(conversations, split, groups, leakage)
    warnings = refusal_warnings(conversations) + find_warnings(split, search, options, leakage)
    examples = near_examples(split, search) if split.dropped or metrics["clusters"]["largest"] > 1 else []
    write_metrics("format", metrics | {"warnings": warnings, "near_examples": examples}, HEADLINE)
    log_split(metrics, warnings, examples, options)
    if moved := describe_moved(split):
        log.info(moved)


def prepare_rows(task: Task, options: Format) -> tuple[TextFormat | ChatFormat, Conversations]:
    """The format of the rows, and the rows of data/clean as conversations that it can express."""
    context = task.name == "prompt/completion" and any(
        has_context(task, record) for records in read_records() for record in records
    )
    row_format = choose_row_format(options, task, context)
    log.info(describe_row_format(row_format, task))
    if isinstance(row_format, ChatFormat):
        conversations = read_dialogues(task, chat_reader_of(row_format, options.system))
        return row_format.model_copy(update={"end_tokens": list(conversations.end_tokens)}), conversations
    if options.system is not None and row_format.prompt is None:
        raise ConfigError(
            "format.system: these rows are learned as they are, so no system prompt can be added; set it to null"
        )
    return row_format, read_conversations(task, options.system)


def require_rows(conversations: Conversations) -> None:
    """Raise DataError if no row is left to split."""
    if not conversations.rows:
        if conversations.refused:
            raise DataError(f"no row to split: {'; '.join(refusal_warnings(conversations))}")
        raise DataError("no row to split: data/clean has no rows")


def log_split(metrics: dict[str, Any], warnings: list[str], examples: list[tuple[str, str]], options: Format) -> None:
    """Log what the split did with the rows."""
    counts = ", ".join(f"{name} {count:,}" for name, count in metrics["rows"].items())
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in metrics["dropped"].items() if count)
    log.info(f"{counts}; dropped: {dropped or 'none'} → {FORMATTED}/")
    clusters = metrics["clusters"]
    links = "equal or near rows or of one group" if "groups" in metrics else "equal or near rows"
    if clusters["rows_with_others"]:
        log.info(
            f"{clusters['rows_with_others']:,} rows are in clusters of {links}, each in one split; "
            f"the largest has {clusters['largest']:,}"
        )
    if metrics["rows_without_tools"]:
        log.info(f"{metrics['rows_without_tools']:,} rows list tools, which the prompt template leaves out")
    if chat := metrics.get("chat"):
        log.info(describe_chat(chat))
    leakage = metrics["leakage"]
    log.info(f"Test rows with a duplicate in the training set: {describe_leakage(leakage)}")
    for warning in warnings:
        log.warning(f"Warning: {warning}.")
    if warnings:
        for one, other in examples:
            log.info(f"  near (format.near.threshold={options.near.threshold:g}):\n    {one}\n    {other}")


def describe_leakage(leakage: dict[str, float]) -> str:
    """
    >>> describe_leakage({"exact": 0.0, "near": 0.0, "answers_exact": 0.25, "answers_near": 0.5})
    '0.0% exact, 0.0% near; by the answer alone: 25.0% exact, 50.0% near'
    """
    text = f"{leakage['exact']:.1%} exact, {leakage['near']:.1%} near"
    if "answers_exact" in leakage:
        text += f"; by the answer alone: {leakage['answers_exact']:.1%} exact, {leakage['answers_near']:.1%} near"
    return text


def describe_split(options: Format, has_own_test: bool = False) -> str:
    """The split in words, for the log."""
    key = "by the hash of their question" if options.split == "question" else "one by one (naive: duplicates leak)"
    if options.split == "question" and options.group:
        key += f" or {options.group}"
    if has_own_test:
        test = "your own test rows"
    else:
        test = (
            f"test fold {options.fold} of {options.folds}"
            if options.folds
            else f"about {options.test_fraction:.0%} test"
        )
    return f"{key}: {test}, about {options.validation_fraction:.0%} validation, the rest train"
