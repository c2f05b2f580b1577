"""Bad input for fetch and clean: each row is kept or dropped for a reason, or one error reports file and row."""

import gzip
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.project import SHIPPED
from support.sources import file_rows

from pipeline.clean import stage as clean
from pipeline.config.params import Clean
from pipeline.core.files import read_parquet
from pipeline.core.paths import RAW_COLUMNS, RAW_ROWS
from pipeline.errors import PipelineError
from pipeline.fetch import stage as fetch
from pipeline.records.columns import read_column_mapping

OPTIONS = Clean(**yaml.safe_load((SHIPPED / "params.yaml").read_text(encoding="utf-8"))["clean"])
FetchAndClean = Callable[..., dict[str, Any]]
settings.register_profile(
    "bad input",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
bad_input = settings.get_profile("bad input")


@pytest.fixture
def fetch_and_clean(tmp_path: Path) -> Iterator[FetchAndClean]:
    """A function that writes a file, fetches and cleans it as the stages do, and returns clean's metrics."""
    previous = Path.cwd()
    os.chdir(tmp_path)

    def run(name: str, content: bytes, columns: dict[str, str] | None = None) -> dict[str, Any]:
        Path(name).write_bytes(content)
        source = file_rows(name, columns=columns)
        fetched = fetch.fetch_data(source)
        mapping = read_column_mapping(RAW_COLUMNS)
        metrics = clean.write_cleaned(clean.clean_batches([read_parquet(RAW_ROWS)], mapping, OPTIONS), mapping)
        assert metrics["rows_in"] == fetched["rows"] == metrics["rows_kept"] + sum(metrics["dropped"].values())
        return metrics

    yield run
    os.chdir(previous)


def require_handled(fetch_and_clean: FetchAndClean, name: str, content: bytes, rows: int | None = None) -> None:
    """Require that all rows are counted, or that a PipelineError names the file, a row or the columns."""
    message = ""
    try:
        assert fetch_and_clean(name, content)["rows_in"] == rows or rows is None
    except PipelineError as error:
        message = str(error)
    counted = f"{rows:,}" if rows else r"\d"
    where = rf"{re.escape(name)}|row \d|No known task|no rows|equally well|no row left of {counted}"
    assert not message or re.search(where, message)


def jsonl(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def names(count: int) -> bytes:
    return b",".join(b"c%d" % number for number in range(count))


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def invalid_text() -> pa.Table:
    """A column of strings that are not valid UTF-8."""
    cells = pa.array([b"fine", b"\xff\xfe", b"fine"], pa.binary())
    return pa.table({"text": pa.Array.from_buffers(pa.string(), 3, cells.buffers())})


COUNTED = {
    "null cells": (
        "rows.jsonl",
        jsonl(
            {"question": None, "answer": "a"}, {"question": "b", "answer": None}, {}, {"question": "c", "answer": "d"}
        ),
        (1, {"empty": 3}),
    ),
    "numbers where text should be": ("rows.jsonl", jsonl({"prompt": 1, "completion": 2.5}), (1, {})),
    "truth values": ("rows.jsonl", jsonl({"prompt": True, "completion": False}), (1, {})),
    "NUL and control signs": ("rows.jsonl", jsonl({"text": "\0"}, {"text": "a\0\x07\x1b[0m\x7f"}), (1, {"empty": 1})),
    "NUL in CSV": ("rows.csv", b"text\n\0\na\0b\n", (1, {"empty": 1})),
    "right to left": ("rows.csv", "text\n\u202eמה שלומך?\u202c\n؟\n".encode(), (2, {})),
    "a cell of 1 MB": ("rows.csv", b'text\n"' + b"x y\n" * 262_144 + b'"\n', (1, {})),
    "byte order mark": ("rows.csv", b"\xef\xbb\xbftext\na\n", (1, {})),
    "CRLF and blank lines": ("rows.csv", b"question,answer\r\n\r\na,b\r\n\r\n", (1, {})),
    "carriage returns alone": ("rows.csv", b"question,answer\ra,b\rc,d\r", (2, {})),
    "10,000 columns": (
        "rows.jsonl",
        jsonl({**{f"c{i}": "x" for i in range(10_000)}, "text": "a"}),
        (1, {}),
    ),
    "numbers and texts": ("rows.jsonl", jsonl({"text": 1}, {"text": "a"}), (2, {})),
    "lone surrogate": ("rows.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}\n', (1, {"invalid_unicode": 1})),
    "columns without names": ("rows.csv", b"text,,\na,b,c\n", (1, {})),
    "nested beside the text": ("rows.jsonl", jsonl({"text": "a", "more": [[[{"x": [None, 1]}]]]}), (1, {})),
    "objects without keys beside the text": (
        "rows.jsonl",
        jsonl({"text": "a", "more": {}, "tools": [{"parameters": {}}]}),
        (1, {}),
    ),
}


@pytest.mark.parametrize(("name", "content", "counts"), COUNTED.values(), ids=COUNTED)
def test_odd_rows_are_handled_and_counted(
    name: str, content: bytes, counts: tuple[int, dict[str, int]], fetch_and_clean: FetchAndClean
) -> None:
    metrics = fetch_and_clean(name, content)
    assert (metrics["rows_kept"], {reason: n for reason, n in metrics["dropped"].items() if n}) == counts


ERRORS = {
    "lone surrogate in a name": (
        "rows.jsonl",
        b'{"\\ud800": "a"}\n',
        r"rows.jsonl: the column name '\ud800' is not valid text",
    ),
    "invalid UTF-8 in JSON lines": (
        "rows.jsonl",
        b'{"text": "a"}\n{"text": "\xc3("}\n',
        "rows.jsonl, line 2: not UTF-8 text (byte 11",
    ),
    "invalid UTF-8 in JSON": (
        "rows.json",
        b'[{"text": "a"},\n{"text": "\xff"}]',
        "rows.json, line 2: not UTF-8 text (byte 11",
    ),
    "invalid UTF-8 in CSV": ("rows.csv", b"text\na\n\xff\n", "rows.csv, line 3: not UTF-8 text (byte 1"),
    "invalid UTF-8 in Parquet": (
        "rows.parquet",
        parquet(invalid_text()),
        "rows.parquet, row 2: column text holds text that is not UTF-8",
    ),
    "bytes where text should be": (
        "rows.parquet",
        parquet(pa.table({"text": [b"x"]})),
        "row 0, column text: the bytes b'x'; expected text",
    ),
    "ragged CSV": ("rows.csv", b"question,answer\na,b\nc\n", "rows.csv, line 3: 1 cell; expected 2"),
    "duplicate columns": ("rows.csv", b"text,text,text_1\na,b,c\n", "rows.csv: more than one column is called text_1"),
    "duplicate columns in Parquet": (
        "rows.parquet",
        parquet(pa.table([["a"], ["b"]], names=["text", "text"])),
        "rows.parquet: more than one column is called text",
    ),
    "duplicate keys in JSON": (
        "rows.jsonl",
        b'{"text": "a"}\n{"text": "a", "text": "b"}\n',
        "rows.jsonl, line 2: not readable as JSON (the key 'text' occurs twice)",
    ),
    "JSON that ends in the middle": (
        "rows.json",
        b'[{"text": "a"},\n{"text": "b',
        "rows.json, line 2: not JSON (Unterminated string",
    ),
    "JSON list without an end": (
        "rows.json",
        b'[{"text": "a"}\n',
        "rows.json, line 2: not JSON (Expecting ',' or ']', column 1)",
    ),
    "JSON list with more after it": (
        "rows.json",
        b'[{"text": "a"}] []',
        "rows.json, line 1: not JSON (more text after the end of the list, column 17)",
    ),
    "JSON line that ends in the middle": (
        "rows.jsonl",
        b'{"text": "a"}\n{"te',
        "rows.jsonl, line 2: not JSON (Unterminated string",
    ),
    "JSON with thousands of brackets": (
        "rows.jsonl",
        b'{"text": ' + b"[" * 100_000 + b"\n",
        "rows.jsonl, line 1: not readable as JSON (maximum recursion",
    ),
    "JSON with thousands of digits": (
        "rows.jsonl",
        b'{"text": ' + b"9" * 5000 + b"}\n",
        "rows.jsonl, line 1: not readable as JSON (Exceeds the limit",
    ),
    "JSON without keys": ("rows.jsonl", b"{}\n{}\n", "rows.jsonl, row 1: an object without keys"),
    "Parquet cut short": (
        "rows.parquet",
        parquet(pa.table({"text": ["a"] * 99}))[:-20],
        "rows.parquet: not a valid .parquet file",
    ),
    "empty CSV": ("rows.csv", b"", "rows.csv is empty"),
    "empty JSON": ("rows.json", b" \n", "rows.json is empty"),
    "empty list": ("rows.json", b"[]", "the source has no rows"),
    "empty JSON lines": ("rows.jsonl", b"\n \n", "rows.jsonl is empty"),
    "empty Parquet": ("rows.parquet", b"", "rows.parquet: not a valid"),
    "empty gzip": ("rows.csv.gz", gzip.compress(b""), "rows.csv.gz is empty"),
    "not gzip": ("rows.csv.gz", b"text\na\n", "rows.csv.gz: not a valid .csv file: Not a gzipped file"),
    "a million empty cells": (
        "rows.csv",
        names(999) + b",text\n" + (b"," * 999 + b"\n") * 1000,
        "no row left of 1,000: dropped 1,000 empty.",
    ),
    "no valid messages": (
        "rows.jsonl",
        jsonl(
            {"messages": [{"role": "narrator", "content": "x"}]},
            {"messages": []},
            {"messages": None},
            {"messages": [{"from": "human", "value": "x"}]},
        ),
        "no row left of 4: dropped 1 malformed, 3 no_answer.",
    ),
    "10,000 columns of no task": ("rows.csv", names(10_000) + b"\n" + b"," * 9_999 + b"\n", "c28, c29 and 9,970 more"),
}


@pytest.mark.parametrize(("name", "content", "message"), ERRORS.values(), ids=ERRORS)
def test_the_error_names_file_and_row(name: str, content: bytes, message: str, fetch_and_clean: FetchAndClean) -> None:
    with pytest.raises(PipelineError) as error:
        fetch_and_clean(name, content)
    assert message in str(error.value)
    assert len(str(error.value)) < 1500


SIGNS = st.characters(codec=None) | st.sampled_from("\0\x07\r\n\t\"',;\u202e\u2028\ufeff\ud800\udfff؟中é")
TEXTS = st.text(SIGNS, max_size=12)
KEYS = st.sampled_from(["text", "question", "answer", "messages", "conversations", "Question", ""]) | TEXTS
CELLS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.sampled_from(["role", "content"]), inner, max_size=3)
    ),
    max_leaves=6,
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "system", "tool"]) | CELLS,
            "content": TEXTS | st.none() | CELLS,
            "from": st.sampled_from(["human", "gpt", "system", "bing"]),
            "value": TEXTS,
        },
    ),
    max_size=4,
)
OBJECTS = (
    st.dictionaries(KEYS, CELLS, min_size=1, max_size=4)
    | st.fixed_dictionaries({"question": TEXTS | st.none(), "answer": TEXTS | st.none()})
    | st.fixed_dictionaries({"messages": TURNS | st.none()})
)


@given(rows=st.lists(OBJECTS, min_size=1, max_size=5))
@settings(bad_input)
def test_any_objects_are_handled(rows: list[dict[str, Any]], fetch_and_clean: FetchAndClean) -> None:
    require_handled(fetch_and_clean, "rows.jsonl", jsonl(*rows), len(rows))
    require_handled(fetch_and_clean, "rows.json", json.dumps(rows).encode(), len(rows))


@given(rows=st.lists(st.fixed_dictionaries({"messages": TURNS}), min_size=1, max_size=4))
@settings(bad_input)
def test_any_chats_are_handled(rows: list[dict[str, Any]], fetch_and_clean: FetchAndClean) -> None:
    require_handled(fetch_and_clean, "rows.jsonl", jsonl(*rows), len(rows))


@given(
    rows=st.lists(st.lists(TEXTS.map(lambda cell: cell.encode("utf-8", "surrogatepass")), max_size=3), max_size=5),
    separator=st.sampled_from([b",", b"\t"]),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    name=st.sampled_from(["rows.csv", "rows.tsv"]),
)
@settings(bad_input)
def test_any_cells_are_handled(
    rows: list[list[bytes]], separator: bytes, end: bytes, mark: bytes, name: str, fetch_and_clean: FetchAndClean
) -> None:
    lines = [separator.join([b"question", b"answer"]), *(separator.join(row) for row in rows)]
    require_handled(fetch_and_clean, name, mark + end.join(lines))


GOOD = pa.table({"question": ["a", "b", None], "answer": ["“x”", "y", "z"], "more": [[1], None, [2, 3]]})


def ipc(table: pa.Table, open_writer: Any) -> bytes:
    sink = io.BytesIO()
    with open_writer(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


VALID = {
    "rows.jsonl": jsonl(*GOOD.to_pylist()),
    "rows.json": json.dumps(GOOD.to_pylist(), indent=1).encode(),
    "rows.csv": 'question,answer\r\na,"“x”"\r\n"b\n",y\r\n'.encode(),
    "rows.parquet": parquet(GOOD),
    "stream.arrow": ipc(GOOD, pa.ipc.new_stream),
    "file.arrow": ipc(GOOD, pa.ipc.new_file),
    "rows.jsonl.gz": gzip.compress(jsonl(*GOOD.to_pylist()), mtime=0),
}


@pytest.mark.parametrize("name", VALID)
def test_truncated_files_are_handled(name: str, fetch_and_clean: FetchAndClean) -> None:
    content = VALID[name]
    for size in range(0, len(content), max(1, len(content) // 150)):
        require_handled(fetch_and_clean, name, content[:size])


@given(name=st.sampled_from([*VALID]), content=st.binary(max_size=60))
@settings(bad_input)
def test_any_bytes_are_handled(name: str, content: bytes, fetch_and_clean: FetchAndClean) -> None:
    require_handled(fetch_and_clean, name, content)


@given(
    name=st.sampled_from(["rows.jsonl", "rows.json", "rows.csv", "rows.jsonl.gz"]),
    position=st.integers(0, 10_000),
    removed=st.integers(0, 3),
    new=st.binary(max_size=3),
)
@settings(bad_input)
def test_any_edit_of_a_valid_file_is_handled(
    name: str, position: int, removed: int, new: bytes, fetch_and_clean: FetchAndClean
) -> None:
    content = VALID[name]
    position %= len(content)
    require_handled(fetch_and_clean, name, content[:position] + new + content[position + removed :])
