"""pipeline/clean/stage.py: the column mapping, the reasons for dropping a row, and the files of data/clean."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.cleaning import BOILERPLATE, Rows, chat_row, clean_options, clean_rows, json_column

from pipeline.clean.cleaner import clean_batches
from pipeline.clean.stage import CHANGES, REASONS, read_mapping, records_schema, write_cleaned
from pipeline.core.files import ParquetReader
from pipeline.errors import DataError
from pipeline.records.columns import ColumnMapping, resolve_columns, write_column_mapping
from pipeline.records.tasks import read_first_test_row, read_task


def write_clean(
    rows: Rows, folder: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int = 100
) -> tuple[ColumnMapping, dict[str, Any]]:
    """Clean the rows in batches and write data/clean below the folder, which becomes the working directory.

    Returns (mapping, metrics).
    """
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    table = pa.Table.from_pylist(rows)
    mapping = resolve_columns(table.column_names, None)
    batches = [table.slice(start, batch_size) for start in range(0, len(rows), batch_size)]
    return mapping, write_cleaned(clean_batches(batches, mapping, clean_options()), mapping)


def test_columns_are_mapped_and_ids_are_row_numbers() -> None:
    rows = [
        {"Description": "Q. What\u00a0is flu?", "Patient": "Hello", "Doctor": "Flu\n is  an infection."},
        {"Description": "", "Patient": "Hello", "Doctor": "Rest."},
        {"Description": "Q. Why?", "Patient": "Hello", "Doctor": "A virus."},
    ]
    assert clean_rows(rows, {"question": "Description", "answer": "Doctor"}, whitespace="collapse") == (
        [
            {"id": 0, "question": "What is flu?", "answer": "Flu is an infection."},
            {"id": 2, "question": "Why?", "answer": "A virus."},
        ],
        [{"id": 1, "reason": "empty"}],
    )


def test_template_joins_columns_and_is_empty_if_all_of_them_are() -> None:
    rows = [
        {"Description": "Q. Flu?", "Patient": "Since  Monday.", "age": 7.0, "Doctor": "Rest."},
        {"Description": None, "Patient": "I cough.", "age": None, "Doctor": "Drink."},
        {"Description": "", "Patient": None, "age": None, "Doctor": "Sleep."},
    ]
    mapping = {"prompt": "{Description}\n\n{Patient} ({{age}} {age})", "completion": "Doctor"}
    assert clean_rows(rows, mapping) == (
        [
            {"id": 0, "prompt": "Flu?\n\nSince  Monday. ({age} 7)", "completion": "Rest."},
            {"id": 1, "prompt": "I cough. ({age} )", "completion": "Drink."},
        ],
        [{"id": 2, "reason": "empty"}],
    )


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({"question": ["x"], "answer": "y"}, None, "row 0, column question: the list \\['x'\\]; expected text"),
        ({"a": "x", "b": ["y"]}, {"text": "{a} {b}"}, "row 0, column b: the list \\['y'\\]; expected text"),
    ],
    ids=["column", "template"],
)
def test_cell_that_is_not_text_is_a_data_error(
    row: dict[str, Any], columns: dict[str, str] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        clean_rows([row], columns)


def test_every_reason_is_counted_and_the_counts_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        chat_row(("user", "Flu?"), ("assistant", "Rest.")),
        chat_row(("user", "Flu?"), ("assistant", "\u00a0")),
        chat_row(("user", "Flu?")),
        chat_row(("user", "Flu?"), ("assistant", BOILERPLATE)),
        chat_row(("user", "Flu?"), ("assistant", "\n\nRest.")),
        chat_row(("user", "Flu?"), ("assistant", "Sleep.")),
        chat_row(("user", "Flu?"), ("assistant", "Rest.")),
        chat_row(("user", "Flu?"), ("narrator", "Rest.")),
    ]
    mapping, metrics = write_clean(rows, tmp_path, monkeypatch)
    assert metrics == {
        "rows_in": 8,
        "rows_kept": 2,
        "dropped": dict.fromkeys(REASONS, 0)
        | {"malformed": 1, "empty": 1, "no_answer": 1, "boilerplate": 1, "duplicate": 2},
        "changed": dict.fromkeys(CHANGES, 0) | {"stripped": 1, "blank_lines": 1},
    }
    assert metrics["rows_in"] == metrics["rows_kept"] + sum(metrics["dropped"].values())
    records = pq.read_table("data/clean/records.parquet")
    assert records.schema == records_schema(mapping)
    assert records.column("id").to_pylist() == [0, 5]


def test_dropped_rows_are_written_with_the_sources_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"question": "Q.  Flu?", "answer": "Rest.", "n": 1},
        {"question": "Q.\u00a0流感?", "answer": None, "n": 2},
        {"question": "Q. Flu?", "answer": "Rest.", "n": 3},
    ]
    write_clean(rows, tmp_path, monkeypatch)
    texts = Path("data/clean/dropped.jsonl").read_text(encoding="utf-8")
    assert texts == (
        '{"id":1,"reason":"empty","question":"Q.\u00a0流感?","answer":null}\n'
        '{"id":2,"reason":"duplicate","same_as":0,"question":"Q. Flu?","answer":"Rest."}\n'
    )
    assert pq.read_table("data/clean/dropped.parquet").to_pylist() == [
        {"id": 1, "reason": "empty"},
        {"id": 2, "reason": "duplicate"},
    ]


def test_the_task_is_written_beside_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapping, _ = write_clean([{"output": "a", "instruction": "b"}], tmp_path, monkeypatch)
    assert json.loads(Path("data/clean/task.json").read_text()) == {"task": "alpaca"}
    assert read_task(Path("data/clean/task.json")) is mapping.task


def test_batch_size_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"question": f"Q. {n % 7}", "answer": ["a", "", None, "b"][n % 4]} for n in range(50)]
    _, metrics = write_clean(rows, tmp_path / "one batch", monkeypatch)
    outputs = {file.name: file.read_bytes() for file in Path("data/clean").iterdir()}
    _, metrics_of_batches = write_clean(rows, tmp_path / "batches", monkeypatch, batch_size=3)
    assert metrics_of_batches == metrics
    assert pq.read_table("data/clean/records.parquet").equals(
        pq.read_table(pa.BufferReader(outputs["records.parquet"]))
    )
    assert Path("data/clean/dropped.jsonl").read_bytes() == outputs["dropped.jsonl"]


def test_no_row_left_is_an_error_with_counts_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        DataError,
        match=r"no row left of 2: dropped 1 malformed, 1 no_answer. Look at .* Malformed is row 0: message 1 ",
    ):
        write_clean([chat_row(("narrator", "x")), chat_row(("user", "x"))], tmp_path, monkeypatch)
    assert list(Path("data").iterdir()) == []


QA = {"question": "q", "answer": "a"}


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        pytest.param([{"question": "", "answer": BOILERPLATE}], ["empty"], id="empty before boilerplate"),
        pytest.param([QA | {"question": None}] * 2, ["empty", "empty"], id="empty before duplicate"),
        pytest.param([QA | {"answer": BOILERPLATE}] * 2, ["boilerplate"] * 2, id="boilerplate before duplicate"),
        pytest.param([QA | {"question": "Q."}], ["empty"], id="nothing but the prefix"),
        pytest.param([QA, QA | {"answer": "b"}], [], id="other answer"),
        pytest.param([QA, QA | {"question": "Q"}], [], id="other case"),
        pytest.param([chat_row(("user", ""), ("user", "x"))], ["no_answer"], id="no answer before empty"),
        pytest.param(
            [chat_row(("user", "x"), ("user", BOILERPLATE))], ["no_answer"], id="no answer before boilerplate"
        ),
    ],
)
def test_first_reason_that_applies_is_given(rows: list[dict[str, Any]], reasons: list[str]) -> None:
    _, dropped = clean_rows(rows)
    assert [row["reason"] for row in dropped] == reasons


def test_duplicates_are_kept_on_request() -> None:
    rows = [{"question": "q", "answer": "a"}] * 2
    assert clean_rows(rows, deduplicate=False) == ([{"id": 0, **rows[0]}, {"id": 1, **rows[0]}], [])


def test_stored_mapping_must_fit_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/raw").mkdir(parents=True)
    pq.write_table(pa.table({"Title": ["a"], "Body": ["b"], "Reply": ["c"]}), "data/raw/rows.parquet")
    rows = ParquetReader(Path("data/raw/rows.parquet"))
    mapping = resolve_columns(rows.column_names, {"question": "{Title}: {Body}", "answer": "Reply"})
    write_column_mapping(Path("data/raw/columns.json"), mapping)
    assert read_mapping(rows) == mapping
    pq.write_table(pa.table({"Title": ["a"], "Reply": ["c"]}), "data/raw/rows.parquet")
    message = (
        r"columns.json is damaged \(data/raw/rows.parquet has no column Body\); an earlier stage writes it: dvc repro"
    )
    with pytest.raises(DataError, match=message):
        read_mapping(ParquetReader(Path("data/raw/rows.parquet")))


def test_rows_of_the_test_set_are_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = pa.table({"question": ["a", "a", "a", ""], "answer": ["b", "b", "b", "c"]})
    mapping = resolve_columns(table.column_names, None)._replace(first_test_row=2)
    metrics = write_cleaned(clean_batches([table], mapping, clean_options()), mapping)
    assert (metrics["rows_in"], metrics["rows_kept"], metrics["dropped"]["duplicate"]) == (2, 1, 1)
    assert metrics["test_rows"] == {
        "rows_in": 2,
        "rows_kept": 1,
        "dropped": {"malformed": 0, "invalid_unicode": 0, "empty": 1, "no_answer": 0},
    }
    assert read_first_test_row(Path("data/clean/task.json")) == 2
    assert pq.read_table("data/clean/records.parquet").column("id").to_pylist() == [0, 2]


def test_a_test_set_of_unusable_rows_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = pa.table({"question": ["a", ""], "answer": ["b", "c"]})
    mapping = resolve_columns(table.column_names, None)._replace(first_test_row=1)
    with pytest.raises(DataError, match="no row of the test set left of 1: dropped 1 empty"):
        write_cleaned(clean_batches([table], mapping, clean_options()), mapping)


def test_chats_are_stored_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = chat_row(("user", "Über?"), ("assistant", "Ja."))
    write_clean([row], tmp_path, monkeypatch)
    records = pq.read_table("data/clean/records.parquet")
    assert records.schema.field("messages").type == pa.json_()
    assert records.to_pylist() == [
        {"id": 0, "messages": json.dumps(row["messages"], ensure_ascii=False, separators=(",", ":")), "tools": None}
    ]


def test_dropped_rows_that_utf8_cannot_hold_are_written_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = pa.table({"question": json_column("a\ud800", "c"), "answer": ["b", "d"]})
    mapping = resolve_columns(table.column_names, None)
    metrics = write_cleaned(clean_batches([table], mapping, clean_options()), mapping)
    assert metrics["dropped"]["invalid_unicode"] == 1
    assert json.loads(Path("data/clean/dropped.jsonl").read_text(encoding="utf-8"))["question"] == "a\ud800"


def test_the_log_shows_the_first_change_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        chat_row(("user", "a\r\nb"), ("assistant", "c"), ("user", "thanks \x1b[31m")),
        chat_row(("narrator", "x")),
        chat_row(("user", "d\r\ne"), ("assistant", "f")),
    ]
    with caplog.at_level("INFO"):
        write_clean(rows, tmp_path, monkeypatch)
    assert [record.getMessage() for record in caplog.records] == [
        r"  2 with normalized line ends, such as row 0: 'a\r\nb' → 'a\nb'",
        r"  1 with unanswered turns removed, such as row 0: 'user: thanks \x1b[31m' removed",
        "Rows that are no chat were dropped as malformed; the first is row 1: message 1 has the role 'narrator'; expected "
        "one of system, developer, user, human, assistant, gpt, chatgpt, bing, bard, model, ai, bot, tool, observation, "
        "function, ipython, tool_response, function_response, function_call, tool_call",
    ]
