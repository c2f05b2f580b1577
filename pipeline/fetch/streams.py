"""Opens data files as streams of bytes: local or at any address that fsspec knows, decompressed by their extension.

A remote file is hashed while it is read, so it is downloaded once and need not be stored for the checksum.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.config.addresses import WEB, display_text, is_remote
from pipeline.errors import DataError

SPREADSHEET_FORMATS = (".xlsx", ".xls", ".ods")
FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", *SPREADSHEET_FORMATS)
FORMAT_ALIASES = {
    ".ndjson": ".jsonl",
    ".tab": ".tsv",
    ".pq": ".parquet",
    ".feather": ".arrow",
    ".ipc": ".arrow",
    ".xlsm": ".xlsx",
    ".xlsb": ".xlsx",
}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
SEEKING_FORMATS = (".parquet", ".arrow", *SPREADSHEET_FORMATS)  # their readers start at the end of the file
# What libraries raise for a file that is damaged or cut short.
CORRUPTION_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
BLOCK_SIZE = 1 << 16
# The size in bytes of a row as it stands in a text file: a line, a JSON object, the cells of CSV. 64 MiB is some 15 million
# tokens, more than any model reads. Parsing takes several times the size, so a longer row would take gigabytes of memory.
MAX_ROW_BYTES = 1 << 26


class DataFile(NamedTuple):
    """One file: `name` is for messages, `address` is a local path or an address that fsspec opens."""

    name: str
    address: str

    @property
    def format(self) -> str | None:
        """One of FORMATS by the name's extension, compression aside; None for any other."""
        return format_and_compression(self.name)[0]


class OpenedFile(NamedTuple):
    stream: Any
    reader: "HashingReader | None"  # None for a local file


def format_and_compression(name: str) -> tuple[str | None, str]:
    """
    >>> format_and_compression("https://example.org/Rows.CSV.gz?download=1")
    ('.csv', '.gz')
    >>> format_and_compression("rows.ndjson"), format_and_compression("notes.txt")
    (('.jsonl', ''), (None, ''))
    >>> format_and_compression("zip://rows.tsv::https://example.org/rows.zip")
    ('.tsv', '')
    """
    if is_remote(name):  # in a chain of addresses, the first that has a path names the file
        link = next(link for link in name.split("::") if is_remote(link))
        name = re.split(r"[?#]", link)[0] if link.startswith(WEB) else link.partition("?")[0]
    name = name.lower()
    compression = next((extension for extension in COMPRESSIONS if name.endswith(extension)), "")
    extension = "." + name.removesuffix(compression).rpartition("/")[2].rpartition(".")[2]
    extension = FORMAT_ALIASES.get(extension, extension)
    return (extension if extension in FORMATS else None), compression


class HashingReader(io.RawIOBase):
    """A remote file, hashed while it is read.

    `sha256` and `bytes_read` are of what was read; `is_complete` is True if that is the whole file, from start to end.
    """

    def __init__(self, file: Any, name: str) -> None:
        self.file, self.name = file, name
        self.sha256, self.bytes_read, self.is_complete, self._has_seeked = hashlib.sha256(), 0, False, False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return getattr(self.file, "size", None) is not None  # an HTTP server may not support ranges

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._has_seeked = True
        return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        return int(self.file.tell())

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer completely: what is read, and so its checksum, must not depend on the network's speed."""
        filled = 0
        while filled < len(buffer):
            try:
                block = self.file.read(len(buffer) - filled)
            except Exception as error:  # each of fsspec's file systems raises its own types
                raise unreadable_error(self.name, error) from None
            if not block:
                self.is_complete = not self._has_seeked
                break
            buffer[filled : filled + len(block)] = block
            filled += len(block)
        self.sha256.update(buffer[:filled])
        self.bytes_read += filled
        return filled

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


@contextmanager
def open_data_file(file: DataFile, read_all: bool) -> Iterator[OpenedFile]:
    """Open a file, decompressed. `read_all`: the caller reads it to the end, so a file that needs seeking is copied."""
    kind, compression = format_and_compression(file.name)
    with ExitStack() as stack:
        reader = None
        if is_remote(file.address):
            reader = HashingReader(_open_remote(file, kind, read_all), file.name)
            raw: Any = stack.enter_context(io.BufferedReader(reader, BLOCK_SIZE))
        elif kind in SEEKING_FORMATS and not compression:
            raw = stack.enter_context(pa.OSFile(file.address))
        else:
            raw = stack.enter_context(open(file.address, "rb", buffering=BLOCK_SIZE))
        stream = _decompressed(raw, compression)
        if kind in SEEKING_FORMATS and (compression or (reader and (read_all or not reader.seekable()))):
            stream = stack.enter_context(_temporary_copy(stream, file.name))
        yield OpenedFile(stream, reader)


def open_file_system(address: str) -> tuple[Any, str]:
    """(fsspec's file system of an address, the path in it). Raises what the file system raises.

    Web addresses use the credentials in ~/.netrc and the proxies in the environment, as curl and requests do.
    """
    import fsspec

    settings = [fsspec.config.conf.get(protocol, {}).get("client_kwargs", {}) for protocol in WEB]
    client = {"trust_env": True} | settings[0] | settings[1]
    for protocol in WEB:  # fsspec applies its configuration to web addresses within a chain, too
        fsspec.config.conf.setdefault(protocol, {})["client_kwargs"] = client
    system, path = fsspec.url_to_fs(address)
    return system, str(path)


def _open_remote(file: DataFile, kind: str | None, read_all: bool) -> Any:
    is_sequential = read_all or kind not in SEEKING_FORMATS
    try:
        system, path = open_file_system(file.address)
        if is_sequential and "http" in str(system.protocol):
            return system.open(path, "rb", block_size=0)  # one request, read as it arrives
        return system.open(path, "rb") if read_all else system.open(path, "rb", block_size=1 << 20)
    except Exception as error:  # each of fsspec's file systems raises its own types
        raise unreadable_error(file.name, error) from None


def unreadable_error(name: str, error: BaseException | None) -> DataError:
    if isinstance(error, FileNotFoundError):  # fsspec also raises this for a server that does not answer
        if getattr(error.__cause__, "status", 404) == 404 and not isinstance(error.__cause__, OSError):
            return DataError(f"no such file: {name}")
        error = error.__cause__
    if isinstance(error, ImportError):
        return DataError(f"{name}: this kind of URL needs another package: {display_text(str(error))}")
    return DataError(
        f"{name} cannot be read ({type(error).__name__}: {display_text(str(error)) or 'no details'}). "
        "Check the URL, the connection and the credentials (docs/data.md, Credentials)"
    )


def iter_lines(stream: Any, name: str) -> Iterator[tuple[int, bytes]]:
    r"""(number from 1, line). Lines end at \n only: str.splitlines would also split at characters that JSON allows.

    Raises DataError if a line is longer than MAX_ROW_BYTES, or if the file is damaged.
    """
    number = 0
    readline = stream.readline
    try:
        while line := readline(MAX_ROW_BYTES + 1):
            number += 1
            if len(line) > MAX_ROW_BYTES:
                raise row_size_error(f"{name}, line {number}")
            yield number, line
    except CORRUPTION_ERRORS as error:
        raise DataError(f"{name}, after line {number}: damaged or cut short ({error}); write the file again") from None


def row_size_error(location: str) -> DataError:
    """The error for a row of more than MAX_ROW_BYTES."""
    return DataError(
        f"{location}: longer than {MAX_ROW_BYTES >> 20} MiB, the limit for one row. Is a line break or a closing quote "
        "missing, or is the file something else?"
    )


def _decompressed(raw: Any, compression: str) -> Any:
    if compression == ".zst":
        return io.BufferedReader(_ZstandardReader(raw), BLOCK_SIZE)
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return openers[compression](raw, "rb") if compression else raw


class _ZstandardReader(io.RawIOBase):
    """Arrow's decompression as a stream of Python's, which can be read line by line."""

    def __init__(self, raw: Any) -> None:
        self.file = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self.file.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


@contextmanager
def _temporary_copy(stream: Any, name: str) -> Iterator[Any]:
    """A copy on the disk, which can be read from its end."""
    with tempfile.TemporaryFile() as copy:
        try:
            shutil.copyfileobj(stream, copy, BLOCK_SIZE)
        except CORRUPTION_ERRORS as error:
            raise DataError(
                f"{name}, after byte {copy.tell()}: damaged or cut short ({error}); write or download the file again"
            ) from None
        copy.seek(0)
        yield copy
