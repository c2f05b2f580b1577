"""Rows of a dataset, as their source has them: files, the Hugging Face hub, or the generator of dialogues."""

import hashlib
import logging
import os
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipeline.config.params import FileRows, GeneratedRows, HubRows
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
from pipeline.fetch.tables import ROWS, Types, concat_tables, read_tables
from pipeline.records.columns import ColumnMapping, resolve_columns
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)


class LoadedRows(NamedTuple):
    table: pa.Table
    revision: str  # the hub's commit, or the SHA-256 of what was read
    taken: ColumnMapping


def load_rows(source: FileRows | GeneratedRows | HubRows) -> LoadedRows:
    """The source's rows, columns as they are; DataError if they do not hold what the parameters map."""
    if isinstance(source, HubRows):
        table, revision = _from_hub(source)
    elif isinstance(source, GeneratedRows):
        table, revision = _generated(source)
    else:
        table, revision = _from_files(source)
    table = table.slice(0, source.limit)
    if len(set(table.column_names)) < table.num_columns:
        raise DataError(f"columns with the same name: {format_names(table.column_names)}; expected each name once")
    if table.num_rows == 0:
        raise DataError("data: the source has no rows; expected at least one")
    return LoadedRows(table, revision, resolve_columns(table.column_names, source.columns))


def require_file(path: str) -> Path:
    """The local file of that path; DataError if there is none."""
    local = local_path(path)
    if local.is_dir():
        raise DataError(f"{path} is a folder; expected a file")
    if not local.exists():
        raise DataError(f"no such file: {path}")
    return local


def _require_checksum(path: str, found: str, expected: str | None) -> str:
    if expected not in (None, found):
        raise DataError(
            f"{path} has changed since params.yaml was composed, or is not what data.sha256 asks for "
            f"(SHA-256 {found[:12]}…, expected {expected[:12]}…).\n"
            "Compose anew, so that the change counts: make params. Correct data.sha256 if you gave it yourself"
        )
    return found


def _generated(source: GeneratedRows) -> tuple[pa.Table, str]:
    from pipeline.synthetic import dialogues, letters

    path = require_file(source.path)
    checksum = _require_checksum(source.path, sha256_of_source(source.path), source.sha256)
    generate = letters.generate_letters if source.length == "real" else dialogues.generate_dialogues
    rows = iter(generate(dialogues.read_knowledge(path), source.rows, source.seed))
    tables = []
    while some := list(islice(rows, ROWS)):  # as dictionaries all of them would take several times the memory
        tables.append(pa.Table.from_pylist(some))
    return pa.concat_tables(tables), checksum


def _from_files(source: FileRows) -> tuple[pa.Table, str]:
    if is_remote(source.path):
        table, watched = read_files(_remote_places(source.path), source.limit, whole=source.sha256 is not None)
        return table, _require_checksum(source.path, _revision(watched), source.sha256)
    places = local_data_files(source.path)
    checksum = _require_checksum(source.path, sha256_of_source(source.path), source.sha256)
    return read_files(places, source.limit)[0], checksum


def peek_columns(path: str) -> list[str]:
    """The columns of local files, from the beginning of the first; DataError if it is not what its ending says."""
    table, _ = read_files(local_data_files(path)[:1], limit=100)
    if table.num_rows == 0:
        raise DataError(f"{path} has no rows; expected at least one")
    return table.column_names


def require_known_address(path: str) -> None:
    """Raise DataError if no package is there that opens such addresses, or the ending tells no format."""
    import fsspec

    try:
        fsspec.get_filesystem_class(path.partition("://")[0].rpartition("::")[2])
    except (ValueError, ImportError) as error:
        raise unreadable_error(path, error) from None
    if not path.endswith("/"):
        _require_kind(DataFile(path, path))


def local_data_files(path: str) -> list[DataFile]:
    """The data files of a path: a file, those in a folder and below it, or those that a glob matches; of one kind."""
    base, found = local_files(path)
    local = local_path(path)
    if local.is_file():
        return _one_kind([DataFile(path, str(local))], path)
    if not found and not local.is_dir():
        glob = base != local
        raise DataError(f"no file matches {path}" if glob else f"no such file: {path}")
    prefix = path.rstrip("/") if local.is_dir() else str(base)
    return _data_files([DataFile(f"{prefix}/{file.relative_to(base).as_posix()}", str(file)) for file in found], path)


def _remote_places(path: str) -> list[DataFile]:
    import fsspec

    if path.startswith(("http://", "https://")):  # which know neither folders nor globs; ? begins a query
        return _one_kind([DataFile(path, path)], path)
    try:
        system, inside = fsspec.url_to_fs(path)
        if any(sign in inside for sign in "*?["):
            found = sorted(system.glob(inside))
        elif system.isdir(inside):
            found = sorted(system.find(inside))
        else:
            return _one_kind([DataFile(path, path)], path)
    except Exception as error:  # fsspec's file systems each have faults of their own
        raise unreadable_error(path, error) from None
    if not found:
        raise DataError(f"no file matches {path}")
    return _data_files([DataFile(name, name) for name in map(system.unstrip_protocol, found)], path)


def _data_files(places: list[DataFile], path: str) -> list[DataFile]:
    known = [place for place in places if place.kind]
    if not known:
        raise DataError(f"{path} has no data files; expected some that end in {_endings()}")
    if left := [place.name for place in places if not place.kind]:
        log.info(f"Left out, since they end in none of {_endings()}: {format_names(left)}")
    return _one_kind(known, path)


def _one_kind(places: list[DataFile], path: str) -> list[DataFile]:
    if len(kinds := {_require_kind(place) for place in places}) > 1:
        raise DataError(
            f"{path} has files of {len(kinds)} kinds ({', '.join(sorted(kinds))}); expected one kind: name it, as in "
            f"data.path={path.rstrip('/')}/*{min(kinds)}"
        )
    return places


def _require_kind(place: DataFile) -> str:
    if (kind := place.kind) is None:
        ending = Path(place.name.partition("?")[0]).suffix
        raise DataError(f"{place.name}: unknown ending {ending or '(none)'}; expected one of {_endings()}")
    return kind


def _endings() -> str:
    return f"{', '.join(FORMATS)} (also packed: {', '.join(COMPRESSIONS)})"


def read_files(
    places: list[DataFile], limit: int | None = None, whole: bool = False
) -> tuple[pa.Table, list[HashingReader]]:
    """The (first `limit`) rows of all files, and what was read of the remote ones.

    `whole`: files are read to their ends, for the checksum, whatever the limit. DataError if a file is not what its
    ending says, if columns differ from file to file, or a column mixes types.
    """
    types: Types = {}
    tables: list[pa.Table] = []
    seen: list[HashingReader] = []
    columns: set[str] = set()
    left = limit
    for place in places:
        if left == 0 and not whole:
            break
        with open_data_file(place, whole or limit is None) as (stream, watched):
            part = list(read_tables(stream, place.name, left, types))
            if watched:
                seen.append(watched)
                _finish(watched, whole or limit is None)
        tables += part
        left = None if left is None else left - sum(table.num_rows for table in part)
        here = {name for table in part for name in table.column_names}
        columns = columns or here
        if here and here != columns:
            raise DataError(
                f"{place.name} has other columns than the files before it: {format_names(sorted(here ^ columns))} "
                "not in both; expected the same in all"
            )
    return concat_tables(tables), seen


def _finish(watched: HashingReader, whole: bool) -> None:
    """Read what a reader did not need, if the checksum of all is wanted."""
    while whole and not watched.whole and watched.read(1 << 20):
        pass


def _revision(seen: list[HashingReader]) -> str:
    """The SHA-256 of a remote file; of several, that of theirs, a line each; with a limit, that of what was read."""
    digests = [watched.digest.hexdigest() for watched in seen]
    digest = digests[0] if len(seen) == 1 else hashlib.sha256("".join(f"{d}\n" for d in digests).encode()).hexdigest()
    read_of_it = sum(watched.size for watched in seen)
    return digest if all(watched.whole for watched in seen) else f"{digest} of the {read_of_it} bytes that were read"


def _from_hub(source: HubRows) -> tuple[pa.Table, str]:
    """A split of a dataset on the hub, read from the snapshot of one commit: offline too, once it was there."""
    import datasets

    from pipeline.fetch import hub

    folder = hub.fetch_snapshot(source.name, source.revision, "dataset")
    datasets.disable_progress_bars()
    try:
        split = datasets.load_dataset(os.fspath(folder), source.config, split=source.split)
    except (ValueError, FileNotFoundError, datasets.exceptions.DatasetsError, pa.ArrowException) as error:
        raise DataError(
            f"data.name: {source.name} at {folder.name} has no readable split {source.split}: {error}{_refused(source, folder)}"
        ) from None
    return split.data.table.replace_schema_metadata(None).combine_chunks(), folder.name


def _refused(source: HubRows, folder: Path) -> str:
    """What of a dataset was not fetched, if that may be why it cannot be read."""
    from pipeline.fetch.hub import skipped_files

    if not (names := skipped_files(source.name, folder.name, "dataset")):
        return ""
    return (
        f"\nNot fetched, since opening or running it can do anything: {format_names(names)}. Where the hub has made Parquet of "
        "it, take that: data.revision=refs/convert/parquet. Else convert it where you trust it: data=file"
    )
