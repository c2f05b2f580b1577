"""Files as streams of bytes: local ones or at any address that fsspec knows, unpacked by their ending.

What is read of a remote file is hashed while it is read, so that it is fetched once and never stored whole for that.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.errors import DataError

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
ALIKE = {".ndjson": ".jsonl", ".feather": ".arrow"}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
SEEKING = (".parquet", ".arrow")  # what is read from its end
CORRUPTION_ERRORS = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    pa.ArrowException,
)  # how libraries call what is cut short
BLOCK = 1 << 16


class DataFile(NamedTuple):
    """One file: `name` is what messages call it, `address` a local path or what fsspec opens."""

    name: str
    address: str

    @property
    def kind(self) -> str | None:
        """One of KINDS by the name's ending, packing aside; null for any other."""
        return format_and_compression(self.name)[0]


class Opened(NamedTuple):
    stream: Any
    watched: "HashingReader | None"  # of a remote file


def is_remote(path: str) -> bool:
    return "://" in path


def format_and_compression(name: str) -> tuple[str | None, str]:
    """
    >>> format_and_compression("https://example.org/Rows.CSV.gz?download=1"), format_and_compression("rows.ndjson"), format_and_compression("notes.txt")
    (('.csv', '.gz'), ('.jsonl', ''), (None, ''))
    """
    name = (name.partition("?")[0] if is_remote(name) else name).lower()
    packing = next((ending for ending in COMPRESSIONS if name.endswith(ending)), "")
    last = "." + name.removesuffix(packing).rpartition("/")[2].rpartition(".")[2]
    kind = ALIKE.get(last, last)
    return (kind if kind in FORMATS else None), packing


class HashingReader(io.RawIOBase):
    """A remote file; knows how many bytes were read of it, their SHA-256, and whether the end was reached in one go."""

    def __init__(self, file: Any, name: str) -> None:
        self.file, self.name = file, name
        self.digest, self.size, self.whole, self.jumped = hashlib.sha256(), 0, False, False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return getattr(self.file, "size", None) is not None  # an HTTP server may know no ranges

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.jumped = True
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer: what is read, and so its checksum, must not depend on how fast the network is."""
        filled = 0
        while filled < len(buffer):
            try:
                block = self.file.read(len(buffer) - filled)
            except Exception as error:  # fsspec's file systems each have faults of their own
                raise unreadable_error(self.name, error) from None
            if not block:
                self.whole = not self.jumped
                break
            buffer[filled : filled + len(block)] = block
            filled += len(block)
        self.digest.update(buffer[:filled])
        self.size += filled
        return filled

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


@contextmanager
def open_data_file(place: DataFile, whole: bool) -> Iterator[Opened]:
    """The file's bytes, unpacked. `whole`: all of it will be wanted, so that what needs seeking is copied first."""
    kind, packing = format_and_compression(place.name)
    with ExitStack() as stack:
        watched = None
        if is_remote(place.address):
            watched = HashingReader(_remote(place, streamed=whole or kind not in SEEKING, whole=whole), place.name)
            raw: Any = stack.enter_context(io.BufferedReader(watched, BLOCK))
        elif kind in SEEKING and not packing:
            raw = stack.enter_context(pa.OSFile(place.address))
        else:
            raw = stack.enter_context(open(place.address, "rb", buffering=BLOCK))
        stream = _unpacked(raw, packing)
        if kind in SEEKING and (packing or (watched and (whole or not watched.seekable()))):
            stream = stack.enter_context(_copied(stream, place.name))
        yield Opened(stream, watched)


def _remote(place: DataFile, streamed: bool, whole: bool) -> Any:
    import fsspec

    try:
        system, path = fsspec.url_to_fs(place.address)
        if streamed and "http" in str(system.protocol):
            return system.open(path, "rb", block_size=0)  # one request, read as it comes
        return system.open(path, "rb") if whole else system.open(path, "rb", block_size=1 << 20)
    except Exception as error:  # fsspec's file systems each have faults of their own
        raise unreadable_error(place.name, error) from None


def unreadable_error(name: str, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):  # what fsspec calls a server that does not answer, too
        if getattr(error.__cause__, "status", 404) == 404 and not isinstance(error.__cause__, OSError):
            return DataError(f"no such file: {name}")
        error = error.__cause__  # type: ignore[assignment]
    if isinstance(error, ImportError):
        return DataError(f"{name}: its kind of address needs another package: {error}")
    return DataError(
        f"{name} cannot be read ({type(error).__name__}: {error or 'no more is known'}). "
        "Check the address, the connection and the credentials"
    )


def _unpacked(raw: Any, packing: str) -> Any:
    if packing == ".zst":
        return io.BufferedReader(_Zstandard(raw), BLOCK)
    opener = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(packing)
    return opener(raw, "rb") if opener else raw


class _Zstandard(io.RawIOBase):
    """Arrow's decompression as a stream of Python's, which knows lines."""

    def __init__(self, raw: Any) -> None:
        self.file = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self.file.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


@contextmanager
def _copied(stream: Any, name: str) -> Iterator[Any]:
    """A temporary copy, which can be read from its end."""
    with tempfile.TemporaryFile() as copy:
        try:
            shutil.copyfileobj(stream, copy, BLOCK)
        except CORRUPTION_ERRORS as error:
            raise DataError(
                f"{name}, after byte {copy.tell()}: damaged or cut short ({error}); fetch it anew"
            ) from None
        copy.seek(0)
        yield copy
