"""python -m pipeline.format: what it writes."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.splitting import options, rows_of, sentences, split_of

from pipeline.chat.row_format import TextFormat
from pipeline.core.files import read_jsonl
from pipeline.core.paths import FORMATTED
from pipeline.errors import DataError
from pipeline.format.conversations import Conversations
from pipeline.format.stage import cluster_table, collect_metrics, describe_split, require_rows, write_splits

TEXT = TextFormat(prompt="{question}", completion="{answer}")
WEEKS = [f"What can I do at home for a sore throat that came with the cold in week {week}?" for week in range(5)]


def test_every_row_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = rows_of(WEEKS + sentences(60, 9))
    split = split_of(rows, options(near={"strategy": "drop"}))
    write_splits(split, {}, Conversations(rows, [(70, "needs_chat_template", "")]), TEXT)
    written = {name: read_jsonl(FORMATTED / f"{name}.jsonl") for name in ("train", "validation", "test", "dropped")}
    assert sorted(row["id"] for rows in written.values() for row in rows) == [*range(65), 70]
    assert {tuple(row) for name in ("train", "validation", "test") for row in written[name]} == {
        ("id", "prompt", "completion")
    }
    set_aside, *near = written["dropped"]
    assert set_aside == {"id": 70, "reason": "needs_chat_template", "split": None}
    assert near
    assert {(row["reason"], row["near"] in range(5), row["prompt"] in WEEKS) for row in near} == {
        ("near_held_out", True, True)
    }
    assert pq.read_table(FORMATTED / "clusters.parquet").num_rows == sum(split.counts().values())


def test_clusters_are_stored_by_the_id_of_their_first_row() -> None:
    split = split_of(rows_of([*WEEKS, *sentences(60, 9)]))
    table = cluster_table(split, {})
    assert table.schema == pa.schema({"id": pa.int64(), "split": pa.string(), "cluster": pa.int64()})
    assert table.column("cluster").to_pylist()[:6] == [0, 0, 0, 0, 0, 5]
    grouped = cluster_table(split, {row.id: "g" for row in split.rows})
    assert grouped.column_names == ["id", "split", "cluster", "group"]


def test_metrics_count_every_row() -> None:
    split = split_of(rows := rows_of([*WEEKS, *sentences(60, 9)]))
    metrics = collect_metrics(
        Conversations(rows, [(7, "needs_chat_template", ""), (8, "needs_chat_template", "")], 3),
        split,
        {},
        {"exact": 0.0, "near": 0.0},
    )
    assert metrics["rows_in"] == sum(metrics["rows"].values()) + sum(metrics["dropped"].values()) == 67
    assert metrics["dropped"]["needs_chat_template"] == 2
    assert metrics["rows_without_tools"] == 3
    assert metrics["clusters"] == {"count": 61, "rows_with_others": 5, "largest": 5, "rows_moved": 0}
    json.dumps(metrics)


def test_rows_that_all_need_a_chat_template_are_an_error() -> None:
    with pytest.raises(DataError, match="2 of 2 rows have tool calls"):
        require_rows(Conversations([], [(id, "needs_chat_template", "") for id in (1, 2)]))


@pytest.mark.parametrize(
    ("values", "own", "expected"),
    [
        ({}, False, "by the hash of their question: about 15% test, about 10% validation, the rest train"),
        (
            {"group": "patient"},
            True,
            "by the hash of their question or patient: your own test rows, about 10% validation,",
        ),
        ({"split": "row"}, False, "one by one (naive: duplicates leak): about 15% test"),
        ({"folds": 5, "fold": 2}, False, "by the hash of their question: test fold 2 of 5"),
    ],
)
def test_split_in_words(values: dict[str, Any], own: bool, expected: str) -> None:
    assert describe_split(options(**values), own).startswith(expected)
