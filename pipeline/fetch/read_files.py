"""Reads data files one after another into one table, and hashes the remote ones."""

import hashlib
from typing import NamedTuple

import pyarrow as pa

from pipeline.config.addresses import display_address
from pipeline.errors import DataError
from pipeline.fetch.data_files import local_data_files
from pipeline.fetch.streams import DataFile, HashingReader, open_data_file
from pipeline.fetch.table_builder import concat_tables
from pipeline.fetch.tables import ReadOptions, read_tables

PEEKED_ROWS = 100


class FilesRead(NamedTuple):
    table: pa.Table
    readers: list[HashingReader]  # of the remote files
    columns: dict[str, list[str]]  # name of a file → its columns


def read_files(
    files: list[DataFile], limit: int | None = None, read_all: bool = False, options: ReadOptions | None = None
) -> FilesRead:
    """The first `limit` rows of all files; a column that a file lacks is null there.

    `read_all`: read files to their ends for the checksum, whatever the limit. Raises DataError if a file is not in the
    format of its extension.
    """
    tables: list[pa.Table] = []
    readers: list[HashingReader] = []
    columns: dict[str, list[str]] = {}
    remaining = limit
    for file in files:
        if remaining == 0 and not read_all:
            break
        with open_data_file(file, read_all or limit is None) as (stream, reader):
            parts = list(read_tables(stream, file.name, remaining, options))
            if reader:
                readers.append(reader)
                if read_all or limit is None:
                    _read_to_end(reader)
        tables += parts
        remaining = None if remaining is None else remaining - sum(table.num_rows for table in parts)
        if any(table.num_rows for table in parts):
            columns[file.name] = list(dict.fromkeys(name for table in parts for name in table.column_names))
    return FilesRead(concat_tables(tables), readers, columns)


def _read_to_end(reader: HashingReader) -> None:
    while not reader.is_complete and reader.read(1 << 20):
        pass


def revision_of_remote(readers: list[HashingReader]) -> str:
    """The SHA-256 of a remote file; of several files, that of their checksums, one per line.

    With a limit, it is the SHA-256 of the bytes that were read, and the number of bytes.
    """
    digests = [reader.sha256.hexdigest() for reader in readers]
    digest = (
        digests[0] if len(readers) == 1 else hashlib.sha256("".join(f"{d}\n" for d in digests).encode()).hexdigest()
    )
    bytes_read = sum(reader.bytes_read for reader in readers)
    is_complete = all(reader.is_complete for reader in readers)
    return digest if is_complete else f"{digest} of the {bytes_read} bytes that were read"


def peek_rows(path: str, options: ReadOptions | None = None, key: str = "data.path") -> pa.Table:
    """The first rows of local files. Raises DataError if the first file is not in its extension's format, or has none."""
    table = read_files(local_data_files(path, key)[:1], limit=PEEKED_ROWS, options=options).table
    if table.num_rows == 0:
        raise DataError(f"{display_address(path)} has no rows; expected at least one")
    return table
