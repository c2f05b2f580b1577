"""Every format, compression and address: the rows, and the checksum of what was read."""

import base64
import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from support.project import ROOT, SHIPPED
from support.sources import file_rows, load_from
from support.store import Store, serve_store

from pipeline.compose.composition import compose_params, parse_params
from pipeline.errors import ConfigError, DataError
from pipeline.fetch.stage import describe_fetch, source_name
from pipeline.records.columns import column_values

ROWS = [
    {"question": "Is it flu?", "answer": "NA"},
    {"question": "“Why?”\nTell me.", "answer": "007"},
    {"question": "مرحبا؟", "answer": "a\tb, c"},
]
TABLE = pa.Table.from_pylist(ROWS)


def zstandard(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def bytes_of(write: Callable[[Any], object]) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


def stream_of(table: pa.Table) -> bytes:
    def write(sink: Any) -> None:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)

    return bytes_of(write)


FORMATS: dict[str, bytes] = {
    "jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode(),
    "ndjson": "".join(json.dumps(row) + "\r\n" for row in ROWS).encode(),
    "json": json.dumps(ROWS, indent=1).encode(),
    "csv": 'question,answer\nIs it flu?,NA\n"“Why?”\nTell me.",007\nمرحبا؟,"a\tb, c"\n'.encode(),
    "tsv": 'question\tanswer\nIs it flu?\tNA\n"“Why?”\nTell me."\t007\nمرحبا؟\t"a\tb, c"\n'.encode(),
    "parquet": bytes_of(lambda sink: pq.write_table(TABLE, sink, row_group_size=2)),
    "arrow": stream_of(TABLE),
    "feather": bytes_of(lambda sink: pyarrow.feather.write_feather(TABLE, sink)),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard,
}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("extension", FORMATS)
def test_every_format_with_every_compression(tmp_path: Path, extension: str, compression: str) -> None:
    content = COMPRESSIONS[compression](FORMATS[extension])
    path = tmp_path / f"rows.{extension}{compression}"
    path.write_bytes(content)
    source = load_from(path)
    assert source.table.to_pylist() == ROWS
    assert source.revision == digest(content)
    assert load_from(path, limit=2).table.to_pylist() == ROWS[:2]


@pytest.mark.parametrize("compression", list(COMPRESSIONS)[1:])
@pytest.mark.parametrize("extension", ["jsonl", "json", "csv", "parquet"])
def test_truncated_compressed_file_is_a_data_error(tmp_path: Path, extension: str, compression: str) -> None:
    path = tmp_path / f"rows.{extension}{compression}"
    path.write_bytes(COMPRESSIONS[compression](FORMATS[extension] * 2000)[:-40])
    with pytest.raises(DataError, match=r"rows\..*(damaged|cut short|not JSON|not CSV|not a valid)"):
        load_from(path)


def test_concatenated_compressed_files_are_read_to_the_end(tmp_path: Path) -> None:
    for compression, pack in COMPRESSIONS.items():
        (tmp_path / f"rows.jsonl{compression}").write_bytes(pack(b'{"text": "a"}\n') + pack(b'{"text": "b"}\n'))
        assert load_from(tmp_path / f"rows.jsonl{compression}").table.to_pydict() == {"text": ["a", "b"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data/more").mkdir(parents=True)
    for name, text in {"b.jsonl": "b", "more/c.jsonl.gz": "c", "a.jsonl": "a"}.items():
        content = json.dumps({"text": text}).encode()
        (tmp_path / "data" / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith("gz") else content)
    (tmp_path / "data/README.md").write_text("Mine.")
    (tmp_path / "data/.hidden.jsonl").write_text("no JSON")
    return tmp_path / "data"


def test_folder_gives_all_its_data_files_sorted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert load_from(folder).table.to_pydict() == {"text": ["a", "b", "c"]}
    assert f"Not read in {folder}, because they hold no rows: README.md" in caplog.text
    assert load_from(folder, limit=2).table.to_pydict() == {"text": ["a", "b"]}


def test_glob_gives_its_matches_sorted(folder: Path) -> None:
    assert load_from(folder / "*.jsonl").table.to_pydict() == {"text": ["a", "b"]}
    assert load_from(folder / "**/*.jsonl*").table.to_pydict() == {"text": ["a", "b", "c"]}
    assert load_from(folder.parent / "d*a/[ab].jsonl").table.to_pydict() == {"text": ["a", "b"]}


def test_existing_file_with_glob_characters_is_no_glob(tmp_path: Path) -> None:
    (tmp_path / "a[1].jsonl").write_text('{"text": "one"}')
    (tmp_path / "a1.jsonl").write_text('{"text": "other"}')
    assert load_from(tmp_path / "a[1].jsonl").table.to_pydict() == {"text": ["one"]}


def test_checksum_of_several_files_covers_names_sizes_and_contents(folder: Path) -> None:
    a, b = b'{"text": "a"}', b'{"text": "b"}'
    of_glob = digest(b"a.jsonl\x0013\0" + a + b"b.jsonl\x0013\0" + b)
    c = (folder / "more/c.jsonl.gz").read_bytes()
    of_folder = digest(
        b"README.md\x005\0Mine." + b"a.jsonl\x0013\0" + a + b"b.jsonl\x0013\0" + b
        + b"more/c.jsonl.gz\0%d\0" % len(c) + c
    )  # fmt: skip
    assert load_from(folder / "*.jsonl", sha256=of_glob).revision == of_glob
    assert load_from(folder, sha256=of_folder).revision == of_folder


def test_composition_writes_the_checksum_of_local_files_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SHIPPED)

    def checksum(path: object, *overrides: str) -> Any:
        return parse_params(compose_params("data=file", "model=scratch", f"data.path='{path}'", *overrides))["data"][
            "sha256"
        ]

    for path in (folder, folder / "*.jsonl", folder / "a.jsonl"):
        assert checksum(path) == load_from(path).revision
    assert checksum("https://nowhere.invalid/rows.csv") is None
    before = checksum(folder)
    (folder / "b.jsonl").write_text('{"text": "new"}')
    assert checksum(folder) != before
    assert checksum(folder, f"data.sha256={'0' * 64}") == "0" * 64
    with pytest.raises(ConfigError, match=r"data.sha256: 'abc' is invalid; expected a SHA-256"):
        checksum(folder, "data.sha256=abc")


INCONSISTENT = {
    "two formats": (
        {"a.csv": "text\na\n", "b.tsv": "text\nb\n"},
        "has files in 2 formats (.csv, .tsv); expected one: select it, as in data.path=",
    ),
    "other columns": (
        {"a.csv": "text,x\na,1\n", "b.csv": "x,y\nb,2\n"},
        "b.csv: no column text, which other files have",
    ),
    "no data": ({"README.md": "a", "notes": "b"}, "has no data files; expected some that end in .jsonl"),
}


@pytest.mark.parametrize(("files", "message"), INCONSISTENT.values(), ids=INCONSISTENT)
def test_inconsistent_files_are_a_data_error(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as error:
        load_from(tmp_path)
    assert message in str(error.value)


def test_columns_that_are_not_mapped_may_differ_between_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,x\na,1\n")
    (tmp_path / "b.csv").write_text("y,text\n2,b\n")
    assert load_from(tmp_path).table.to_pydict() == {"text": ["a", "b"], "x": ["1", None], "y": [None, "2"]}


def test_types_that_differ_between_files_keep_their_values(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [1]}), tmp_path / "b.parquet")
    assert column_values(load_from(tmp_path).table, "text") == ["a", 1]


def test_types_that_differ_between_chunks_keep_their_values(tmp_path: Path) -> None:
    parts = [{"text": None, "n": 1, "o": {"a": 1}}] * 5000 + [{"text": "x", "n": 1.5, "o": {"b": "y"}, "late": True}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in parts))
    table = load_from(tmp_path / "rows.jsonl").table
    assert table.num_rows == 5001
    values = {name: column_values(table.slice(4999), name) for name in table.column_names}
    assert repr(values) == "{'text': [None, 'x'], 'n': [1, 1.5], 'o': [{'a': 1}, {'b': 'y'}], 'late': [None, True]}"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Store]:
    with serve_store(tmp_path) as store:
        yield store


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("extension", ["jsonl", "csv", "json", "parquet", "arrow"])
def test_every_format_is_read_over_http(tmp_path: Path, extension: str, compression: str, ranges: bool) -> None:
    content = COMPRESSIONS[compression](FORMATS[extension])
    (tmp_path / f"rows.{extension}{compression}").write_bytes(content)
    with serve_store(tmp_path, ranges) as store:
        address = f"{store.address}/rows.{extension}{compression}?download=1"
        source = load_from(address, sha256=digest(content))
        assert source.table.to_pylist() == ROWS
        assert source.revision == digest(content)
        assert load_from(address, limit=1).table.to_pylist() == ROWS[:1]
        with pytest.raises(DataError, match=r"SHA-256 .*, expected 000000000000…"):
            load_from(address, sha256="0" * 64, limit=1)


def test_limit_reads_only_the_start_of_a_file(tmp_path: Path, served: Store) -> None:
    lines = "".join(json.dumps({"text": f"{number:0100}"}) + "\n" for number in range(200_000)).encode()
    (tmp_path / "rows.jsonl").write_bytes(lines)
    source = load_from(f"{served.address}/rows.jsonl", limit=3)
    assert source.table.to_pydict() == {"text": [f"{number:0100}" for number in range(3)]}
    assert source.revision == f"{digest(lines[:65536])} of the 65536 bytes that were read"
    assert served.sent < 12_000_000 < len(lines)


def test_limit_reads_only_the_first_row_groups_of_a_parquet_file(tmp_path: Path, served: Store) -> None:
    table = pa.table({"text": [os.urandom(500).hex() for _ in range(10_000)]})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=500)
    size = (tmp_path / "rows.parquet").stat().st_size
    source = load_from(f"{served.address}/rows.parquet", limit=5)
    assert source.table.to_pylist() == table.slice(0, 5).to_pylist()
    assert " bytes that were read" in source.revision
    assert served.sent < size / 2


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The header that a server gets if its client reads our netrc."""
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login ann password s3cretw0rd\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    return "Basic " + base64.b64encode(b"ann:s3cretw0rd").decode()


@pytest.mark.parametrize("prefix", ["", "simplecache::"])
def test_web_address_uses_the_credentials_in_netrc(tmp_path: Path, served: Store, netrc: str, prefix: str) -> None:
    (tmp_path / "rows.csv").write_bytes(FORMATS["csv"])
    served.authorization = netrc
    assert load_from(f"{prefix}{served.address}/rows.csv").table.to_pylist() == ROWS
    served.authorization = "another"
    (tmp_path / "other.csv").write_bytes(FORMATS["csv"])
    with pytest.raises(DataError, match="no such file" if prefix else "401") as error:  # the cache hides the reason
        load_from(f"{prefix}{served.address}/other.csv")
    assert "s3cretw0rd" not in str(error.value)


def test_query_is_sent_and_never_shown(tmp_path: Path, served: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="pipeline")
    (tmp_path / "rows.csv").write_bytes(FORMATS["csv"])
    address = f"{served.address}/rows.csv?download=1"
    assert load_from(address).table.num_rows == 3
    assert any("download=1" in request for request in served.requests)
    assert (source_name(file_rows(address)), "download" in describe_fetch(file_rows(address))) == (
        f"{served.address}/rows.csv",
        False,
    )
    served.authorization = "another"
    with pytest.raises(DataError) as error:
        load_from(address)
    assert "download" not in str(error.value) + caplog.text


def test_s3_file_folder_and_glob(tmp_path: Path, served: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bucket/rows").mkdir(parents=True)
    contents = [b'{"text": "a"}\n', b'{"text": "b"}\n']
    for name, content in zip("ab", contents, strict=True):
        (tmp_path / f"bucket/rows/{name}.jsonl").write_bytes(content)
    # In its own process, so that deprecation warnings of botocore are not errors of this project.
    code = (
        "import sys; from support.sources import load_from\n"
        "for path in sys.argv[1:]: s = load_from(path); print(s.table['text'].to_pylist(), s.revision)"
    )
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": served.address,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }
    paths = ("s3://bucket/rows/a.jsonl", "s3://bucket/rows", "s3://bucket/rows/*.jsonl")
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    both = digest("".join(digest(content) + "\n" for content in contents).encode())
    assert done.stdout.splitlines() == [f"['a'] {digest(contents[0])}", f"['a', 'b'] {both}", f"['a', 'b'] {both}"], (
        done.stderr
    )


def test_memory_address_folder_and_glob() -> None:
    memory = fsspec.filesystem("memory")
    for name, text in {"a": "x", "b": "y"}.items():
        memory.pipe(f"/rows/{name}.csv", f"text\n{text}\n".encode())
    both = digest("".join(digest(f"text\n{text}\n".encode()) + "\n" for text in "xy").encode())
    for path in ("memory://rows", "memory://rows/*.csv"):
        source = load_from(path)
        assert source.table.to_pydict() == {"text": ["x", "y"]}
        assert source.revision == both
    assert load_from("memory://rows/b.csv").table.to_pydict() == {"text": ["y"]}
    assert load_from("memory://rows", limit=1, sha256=both).table.to_pydict() == {"text": ["x"]}
    with pytest.raises(DataError, match=r"no file matches memory://rows/\*\.tsv"):
        load_from("memory://rows/*.tsv")


def test_unavailable_address_is_a_data_error(tmp_path: Path, served: Store) -> None:
    with pytest.raises(DataError, match=r"no such file: http://.*/nothing\.csv"):
        load_from(f"{served.address}/nothing.csv")
    with pytest.raises(DataError, match=r"rows\.csv cannot be read \(.*\)\. Check the URL, the connection"):
        load_from("http://127.0.0.1:9/rows.csv")
    with pytest.raises(DataError, match="no such file: memory://nothing"):
        load_from("memory://nothing/rows.csv")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nope://x/rows.csv", "Protocol not known: nope"),
        ("https://example.org/rows", r"unknown extension \(none\); expected one of \.jsonl"),
    ],
)
def test_composition_rejects_an_unsupported_address_without_opening_it(
    path: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SHIPPED)
    with pytest.raises(ConfigError, match=rf"data\.path: .*{message}"):
        compose_params("data=file", "model=scratch", f"data.path={path}")
