"""Loads the rows of a dataset, with the source's own columns: from files, the Hugging Face Hub, or the generators."""

import logging
import os
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.config.addresses import WEB, display_address, is_remote
from pipeline.config.sources import Data, FileRows, GeneratedRows, HubRows
from pipeline.core.files import sha256_of_source
from pipeline.errors import DataError
from pipeline.fetch.data_files import find_data_files, require_file, require_format
from pipeline.fetch.read_files import read_files, revision_of_remote
from pipeline.fetch.streams import DataFile, unreadable_error
from pipeline.fetch.table_builder import MAX_ROWS, concat_tables
from pipeline.fetch.tables import ReadOptions, read_options
from pipeline.records.columns import ColumnMapping, resolve_columns
from pipeline.records.detection import normalize_name, referenced_columns
from pipeline.records.suggestions import SAMPLE_ROWS
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)


class SourceRows(NamedTuple):
    table: pa.Table
    revision: str  # the Hub's commit, or the SHA-256 of what was read
    file_columns: dict[str, list[str]]  # name of a file → its columns


class LoadedRows(NamedTuple):
    """The rows of a source, followed by those of the user's own test set, from `mapping.first_test_row` on."""

    table: pa.Table
    revision: str
    mapping: ColumnMapping
    test_revision: str | None = None

    @property
    def test_rows(self) -> int:
        """The number of rows of the user's own test set."""
        first = self.mapping.first_test_row
        return 0 if first is None else self.table.num_rows - first


def load_rows(source: Data) -> LoadedRows:
    """The source's rows and their column mapping. Raises DataError if the source cannot be read or lacks the columns."""
    rows, test = read_source(source)
    table = rows.table.slice(0, source.limit)
    _require_rows(table, "data: the source")
    mapping = resolve_columns(table.column_names, source.columns, table.slice(0, SAMPLE_ROWS))
    _check_files(rows, mapping)
    loaded = LoadedRows(table, rows.revision, mapping)
    return loaded if test is None else _append_test_rows(loaded, test, test_key(source))


def read_source(source: Data) -> tuple[SourceRows, SourceRows | None]:
    """(the source's rows, those of the user's own test set). Raises DataError if the source cannot be read.

    The rows of a file are those within data.limit; those of the Hub are the whole split.
    """
    if isinstance(source, HubRows):
        from pipeline.fetch.hub_rows import fetch_hub_splits

        commit, rows, test_rows = fetch_hub_splits(source)
        return SourceRows(rows, commit, {}), None if test_rows is None else SourceRows(test_rows, commit, {})
    if isinstance(source, GeneratedRows):
        return _generate(source), None
    return _load_files(source)


def _require_rows(table: pa.Table, name: str) -> None:
    if len(set(table.column_names)) < table.num_columns:
        raise DataError(
            f"{name} has columns with the same name: {format_names(table.column_names)}; expected each name once"
        )
    if table.num_rows == 0:
        raise DataError(f"{name} has no rows; expected at least one")


def _check_files(rows: SourceRows, mapping: ColumnMapping) -> None:
    """Log the columns that only some files have. Raises DataError if a file lacks one that the mapping needs."""
    columns = rows.table.column_names
    for file, own in rows.file_columns.items():
        if missing := _missing_columns(mapping, own):
            raise DataError(
                f"{file}: no column {format_names(missing)}, which other files have ({mapping.describe()}); it has "
                f"{format_names(own)}. Expected the same names in all files"
            )
        if lacking := [name for name in columns if name not in own]:
            log.info(f"{file} lacks columns of other files, which are empty in its rows: {format_names(lacking)}")


def _missing_columns(mapping: ColumnMapping, available: list[str]) -> list[str]:
    """The columns that the task needs and the rows lack."""
    needed = (name for column in mapping.task.required for name in referenced_columns(mapping.columns[column]))
    return [name for name in dict.fromkeys(needed) if name not in available]


def _append_test_rows(loaded: LoadedRows, test: SourceRows, key: str) -> LoadedRows:
    _require_rows(test.table, key)
    table = test.table.rename_columns(match_test_columns(loaded.mapping, test.table.column_names, key))
    mapping = loaded.mapping._replace(first_test_row=loaded.table.num_rows)
    return LoadedRows(concat_tables([loaded.table, table]), loaded.revision, mapping, test.revision)


def match_test_columns(mapping: ColumnMapping, available: list[str], key: str) -> list[str]:
    """The names of the test set's columns, those that the mapping needs as the training rows spell them.

    `key` is the parameter that names the test set. Raises DataError if it lacks a column that the mapping needs.
    """
    spellings = {}
    for name in _missing_columns(mapping, available):
        similar = [column for column in available if normalize_name(column) == normalize_name(name)]
        if len(similar) != 1:
            raise DataError(
                f"{key}: no column {format_names([name])}, which the training rows have ({mapping.describe()}); the test set "
                f"has {format_names(available)}. Expected the same names in both"
            )
        spellings[similar[0]] = name
    return [spellings.get(name, name) for name in available]


def test_key(source: Data) -> str:
    """The parameter that names the user's own test set, with its value."""
    if isinstance(source, HubRows):
        return f"data.test_split={source.test_split}"
    return f"data.test_path={display_address(getattr(source, 'test_path', None) or '')}"


def _require_checksum(path: str, checksum: str, expected: str | None, key: str) -> str:
    if expected not in (None, checksum):
        raise DataError(
            f"{display_address(path)} has changed since params.yaml was composed, or does not have the checksum in {key} "
            f"(SHA-256 {checksum[:12]}…, expected {expected[:12]}…).\n"
            f"To use the changed data, compose params.yaml again: make params. Correct {key} if you set it yourself"
        )
    return checksum


def _generate(source: GeneratedRows) -> SourceRows:
    from pipeline.synthetic import chats, dialogues, letters

    path = require_file(source.path)
    checksum = _require_checksum(source.path, sha256_of_source(source.path), source.sha256, "data.sha256")
    generators: dict[str, Callable[..., Iterable[dict[str, Any]]]] = {
        "short": chats.generate_chats if source.turns == "several" else dialogues.generate_dialogues,
        "real": letters.generate_letters,
    }
    rows = iter(generators[source.length](dialogues.read_knowledge(path), source.rows, source.seed))
    tables = []
    while chunk := list(islice(rows, MAX_ROWS)):  # all rows as dictionaries would take several times the memory
        tables.append(pa.Table.from_pylist(chunk))
    return SourceRows(pa.concat_tables(tables), checksum, {})


def _load_files(source: FileRows) -> tuple[SourceRows, SourceRows | None]:
    """(the rows of data.path, those of data.test_path)."""
    files, test_files = data_and_test_files(source)
    options = read_options(source)
    rows = _read_source(source.path, files, source.limit, options, (source.sha256, "data.sha256"))
    if source.test_path is None:
        return rows, None
    return rows, _read_source(source.test_path, test_files, None, options, (source.test_sha256, "data.test_sha256"))


def _read_source(
    path: str, files: list[DataFile], limit: int | None, options: ReadOptions, checksum: tuple[str | None, str]
) -> SourceRows:
    """`checksum`: the expected one, and the parameter that holds it."""
    if is_remote(path):
        read = read_files(files, limit, read_all=checksum[0] is not None, options=options)
        revision = _require_checksum(path, revision_of_remote(read.readers), *checksum)
    else:
        revision = _require_checksum(path, sha256_of_source(path), *checksum)
        read = read_files(files, limit, options=options)
    return SourceRows(read.table, revision, read.columns)


def data_and_test_files(source: FileRows) -> tuple[list[DataFile], list[DataFile]]:
    """(the files of data.path, those of data.test_path). A file of the test set is no training file, too.

    Raises DataError like `find_data_files`, or if no training file remains.
    """
    files = find_data_files(source.path)
    if source.test_path is None:
        return files, []
    test_files = find_data_files(source.test_path, "data.test_path")
    test_addresses = {_identity(file) for file in test_files}
    training_files = [file for file in files if _identity(file) not in test_addresses]
    if not training_files:
        raise DataError(
            f"data.test_path={display_address(source.test_path)} has all files of data.path={display_address(source.path)}; "
            "expected other rows"
        )
    if both := [file.name for file in files if file not in training_files]:
        log.info(f"Not used for training, because data.test_path names them: {format_names(both)}")
    return training_files, test_files


def _identity(file: DataFile) -> str:
    return file.address if is_remote(file.address) else os.path.realpath(file.address)


def require_supported_address(path: str) -> None:
    """Raise DataError if no installed package opens such addresses, or the extension is of no known format.

    Only web addresses need an extension: any other may name a folder.
    """
    import fsspec

    name = display_address(path)
    try:
        fsspec.get_filesystem_class(path.partition("://")[0].rpartition("::")[2])
    except (ValueError, ImportError) as error:
        raise unreadable_error(name, error) from None
    if path.startswith(WEB):
        require_format(DataFile(name, path))
