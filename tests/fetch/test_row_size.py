"""Rows without an end: an error with the file's name, before they fill the memory."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from support.sources import load_from

from pipeline.errors import DataError

LIMIT = 1 << 20


def zstandard(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard,
}
ENDLESS = {
    "line of JSON": ("rows.jsonl", b'{"text": "', b"a"),
    "later line of JSON": ("rows.jsonl", b'{"text": "b"}\n{"text": "', b"a"),
    "string in a list": ("rows.json", b'[{"text": "b"},\n{"text": "', b"a"),
    "line of CSV": ("rows.csv", b"text\n", b"a"),
    "cell of CSV": ("rows.csv", b'text\n"', b"a\n"),
    "names of CSV": ("rows.csv", b"", b"a,"),
    "line of TSV": ("rows.tsv", b"text\tmore\n", b"a"),
}


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("streams", "delimited", "json_stream"):
        monkeypatch.setattr(f"pipeline.fetch.{module}.MAX_ROW_BYTES", LIMIT)
    monkeypatch.setattr("pipeline.fetch.json_stream.JsonStream.read_value.__defaults__", (LIMIT,))
    monkeypatch.setattr("pipeline.fetch.json_rows.MAX_OBJECT", LIMIT // 4)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(("name", "start", "unit"), ENDLESS.values(), ids=ENDLESS)
def test_row_without_an_end_is_an_error(tmp_path: Path, name: str, start: bytes, unit: bytes, compression: str) -> None:
    path = tmp_path / f"{name}{compression}"
    path.write_bytes(COMPRESSIONS[compression](start + unit * (8 * LIMIT // len(unit))))
    with pytest.raises(DataError) as error:
        load_from(path)
    assert str(error.value).startswith(str(path))
    assert "longer than 1 MiB, the limit for one row" in str(error.value)


def test_list_that_is_no_row_is_not_held_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.fetch.json_rows.MAX_HELD", LIMIT)
    (tmp_path / "rows.json").write_bytes(b'{"text": [' + b"1," * LIMIT)
    with pytest.raises(DataError, match=r"rows\.json, text: more than 1 MiB of values that are no list of objects"):
        load_from(tmp_path / "rows.json")


def test_row_just_below_the_limit_is_read(tmp_path: Path) -> None:
    text = "a" * (LIMIT - 100)
    for name, content in {
        "rows.jsonl": f'{{"text": "{text}"}}\n{{"text": "b"}}\n',
        "rows.json": f'[{{"text": "{text}"}}, {{"text": "b"}}]',
        "rows.csv": f"text\n{text}\nb\n",
    }.items():
        (tmp_path / name).write_text(content)
        assert load_from(tmp_path / name).table.to_pydict() == {"text": [text, "b"]}
