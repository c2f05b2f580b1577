"""Loads the rows of a dataset, with the source's own columns: from files, the Hugging Face Hub, or the generators."""

import hashlib
import logging
import os
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipeline.config.sources import Data, FileRows, GeneratedRows, HubRows
from pipeline.core.files import local_files, local_path, sha256_of_source
from pipeline.errors import DataError
from pipeline.fetch.streams import (
    COMPRESSIONS,
    FORMATS,
    DataFile,
    HashingReader,
    is_remote,
    open_data_file,
    unreadable_error,
)
from pipeline.fetch.tables import MAX_ROWS, ColumnTypes, concat_tables, read_tables
from pipeline.records.columns import ColumnMapping, resolve_columns
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)


class LoadedRows(NamedTuple):
    table: pa.Table
    revision: str  # the Hub's commit, or the SHA-256 of what was read
    mapping: ColumnMapping


def load_rows(source: Data) -> LoadedRows:
    """The source's rows and their column mapping. Raises DataError if the source cannot be read or lacks the columns."""
    if isinstance(source, HubRows):
        table, revision = _load_from_hub(source)
    elif isinstance(source, GeneratedRows):
        table, revision = _generate(source)
    else:
        table, revision = _load_files(source)
    table = table.slice(0, source.limit)
    if len(set(table.column_names)) < table.num_columns:
        raise DataError(f"columns with the same name: {format_names(table.column_names)}; expected each name once")
    if table.num_rows == 0:
        raise DataError("data: the source has no rows; expected at least one")
    return LoadedRows(table, revision, resolve_columns(table.column_names, source.columns))


def require_file(path: str) -> Path:
    """The local file of a path. Raises DataError if there is none."""
    local = local_path(path)
    if local.is_dir():
        raise DataError(f"{path} is a folder; expected a file")
    if not local.exists():
        raise DataError(f"no such file: {path}")
    return local


def _require_checksum(path: str, checksum: str, expected: str | None) -> str:
    if expected not in (None, checksum):
        raise DataError(
            f"{path} has changed since params.yaml was composed, or does not have the checksum in data.sha256 "
            f"(SHA-256 {checksum[:12]}…, expected {expected[:12]}…).\n"
            "To use the changed data, compose params.yaml again: make params. Correct data.sha256 if you set it yourself"
        )
    return checksum


def _generate(source: GeneratedRows) -> tuple[pa.Table, str]:
    from pipeline.synthetic import dialogues, letters

    path = require_file(source.path)
    checksum = _require_checksum(source.path, sha256_of_source(source.path), source.sha256)
    generate = letters.generate_letters if source.length == "real" else dialogues.generate_dialogues
    rows = iter(generate(dialogues.read_knowledge(path), source.rows, source.seed))
    tables = []
    while chunk := list(islice(rows, MAX_ROWS)):  # all rows as dictionaries would take several times the memory
        tables.append(pa.Table.from_pylist(chunk))
    return pa.concat_tables(tables), checksum


def _load_files(source: FileRows) -> tuple[pa.Table, str]:
    if is_remote(source.path):
        table, readers = read_files(_remote_data_files(source.path), source.limit, read_all=source.sha256 is not None)
        return table, _require_checksum(source.path, _remote_revision(readers), source.sha256)
    files = local_data_files(source.path)
    checksum = _require_checksum(source.path, sha256_of_source(source.path), source.sha256)
    return read_files(files, source.limit)[0], checksum


def peek_columns(path: str) -> list[str]:
    """The columns of local files, from the start of the first. Raises DataError if that is not in its extension's format."""
    table, _ = read_files(local_data_files(path)[:1], limit=100)
    if table.num_rows == 0:
        raise DataError(f"{path} has no rows; expected at least one")
    names: list[str] = table.column_names
    return names


def require_supported_address(path: str) -> None:
    """Raise DataError if no installed package opens such addresses, or the extension is of no known format."""
    import fsspec

    try:
        fsspec.get_filesystem_class(path.partition("://")[0].rpartition("::")[2])
    except (ValueError, ImportError) as error:
        raise unreadable_error(path, error) from None
    if not path.endswith("/"):
        _require_format(DataFile(path, path))


def local_data_files(path: str) -> list[DataFile]:
    """The data files of a path: a file, those in a folder and below it, or the matches of a glob.

    Raises DataError if there are none, or if they are in different formats.
    """
    base, matches = local_files(path)
    local = local_path(path)
    if local.is_file():
        return _require_one_format([DataFile(path, str(local))], path)
    if not matches and not local.is_dir():
        is_glob = base != local
        raise DataError(f"no file matches {path}" if is_glob else f"no such file: {path}")
    prefix = path.rstrip("/") if local.is_dir() else str(base)
    files = [DataFile(f"{prefix}/{file.relative_to(base).as_posix()}", str(file)) for file in matches]
    return _select_data_files(files, path)


def _remote_data_files(path: str) -> list[DataFile]:
    import fsspec

    if path.startswith(("http://", "https://")):  # no folders and no globs: ? begins a query
        return _require_one_format([DataFile(path, path)], path)
    try:
        system, inside = fsspec.url_to_fs(path)
        if any(character in inside for character in "*?["):
            matches = sorted(system.glob(inside))
        elif system.isdir(inside):
            matches = sorted(system.find(inside))
        else:
            return _require_one_format([DataFile(path, path)], path)
    except Exception as error:  # each of fsspec's file systems raises its own types
        raise unreadable_error(path, error) from None
    if not matches:
        raise DataError(f"no file matches {path}")
    return _select_data_files([DataFile(name, name) for name in map(system.unstrip_protocol, matches)], path)


def _select_data_files(files: list[DataFile], path: str) -> list[DataFile]:
    """The files in a known format. Raises DataError if there are none, or if they are in different formats."""
    known = [file for file in files if file.format]
    if not known:
        raise DataError(f"{path} has no data files; expected some that end in {_extensions()}")
    if skipped := [file.name for file in files if not file.format]:
        log.info(f"Skipping files that do not end in {_extensions()}: {format_names(skipped)}")
    return _require_one_format(known, path)


def _require_one_format(files: list[DataFile], path: str) -> list[DataFile]:
    if len(formats := {_require_format(file) for file in files}) > 1:
        raise DataError(
            f"{path} has files in {len(formats)} formats ({', '.join(sorted(formats))}); expected one: select it, as in "
            f"data.path={path.rstrip('/')}/*{min(formats)}"
        )
    return files


def _require_format(file: DataFile) -> str:
    if file.format is None:
        extension = Path(file.name.partition("?")[0]).suffix
        raise DataError(f"{file.name}: unknown extension {extension or '(none)'}; expected one of {_extensions()}")
    return file.format


def _extensions() -> str:
    return f"{', '.join(FORMATS)} (also compressed: {', '.join(COMPRESSIONS)})"


def read_files(
    files: list[DataFile], limit: int | None = None, read_all: bool = False
) -> tuple[pa.Table, list[HashingReader]]:
    """(the first `limit` rows of all files, the readers of the remote ones).

    `read_all`: read files to their ends for the checksum, whatever the limit. Raises DataError if a file is not in the
    format of its extension, if columns differ between files, or if a column mixes types.
    """
    types: ColumnTypes = {}
    tables: list[pa.Table] = []
    readers: list[HashingReader] = []
    columns: set[str] = set()
    remaining = limit
    for file in files:
        if remaining == 0 and not read_all:
            break
        with open_data_file(file, read_all or limit is None) as (stream, reader):
            parts = list(read_tables(stream, file.name, remaining, types))
            if reader:
                readers.append(reader)
                if read_all or limit is None:
                    _read_to_end(reader)
        tables += parts
        remaining = None if remaining is None else remaining - sum(table.num_rows for table in parts)
        file_columns = {name for table in parts for name in table.column_names}
        columns = columns or file_columns
        if file_columns and file_columns != columns:
            raise DataError(
                f"{file.name} has other columns than the files before it: "
                f"{format_names(sorted(file_columns ^ columns))} not in both; expected the same in all"
            )
    return concat_tables(tables), readers


def _read_to_end(reader: HashingReader) -> None:
    while not reader.is_complete and reader.read(1 << 20):
        pass


def _remote_revision(readers: list[HashingReader]) -> str:
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


def _load_from_hub(source: HubRows) -> tuple[pa.Table, str]:
    """A split of a dataset on the Hub, read from the snapshot of one commit, so later runs also work offline."""
    import datasets

    from pipeline.fetch import hub

    folder = hub.fetch_snapshot(source.name, source.revision, "dataset")
    datasets.disable_progress_bars()
    try:
        split = datasets.load_dataset(os.fspath(folder), source.config, split=source.split)
    except (ValueError, FileNotFoundError, datasets.exceptions.DatasetsError, pa.ArrowException) as error:
        raise DataError(
            f"data.name: {source.name} at {folder.name} has no readable split {source.split}: {error}"
            f"{_skipped_files_hint(source, folder)}"
        ) from None
    return split.data.table.replace_schema_metadata(None).combine_chunks(), folder.name


def _skipped_files_hint(source: HubRows, folder: Path) -> str:
    """The files that were not downloaded, if there are any: the split may be in them."""
    from pipeline.fetch.hub import skipped_files

    if not (names := skipped_files(source.name, folder.name, "dataset")):
        return ""
    return (
        f"\nNot downloaded, because they can run code: {format_names(names)}. If the Hub has converted the dataset to "
        "Parquet, use that: data.revision=refs/convert/parquet. If not, convert it yourself if you trust it: data=file"
    )
