"""Rows of a dataset, as their source has them: a file, the Hugging Face hub, or the generator of dialogues."""

import csv
import json
import os
import sys
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.files import local_path, read_jsonl, sha256, utf8
from pipeline.params import FileRows, GeneratedRows, HubRows
from pipeline.tasks import mapped_task, task_of

ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


class Source(NamedTuple):
    table: pa.Table
    revision: str  # the hub's commit, or the SHA-256 of a local source


def load(source: FileRows | GeneratedRows | HubRows) -> Source:
    """The source's rows, columns as they are; DataError if it lacks the columns that the parameters map."""
    if isinstance(source, HubRows):
        loaded = _from_hub(source)
    elif isinstance(source, GeneratedRows):
        loaded = _generated(source)
    else:
        loaded = _from_file(source)
    table = loaded.table.slice(0, source.limit)
    if len(set(table.column_names)) < table.num_columns:
        raise DataError(f"columns with the same name: {', '.join(table.column_names)}; expected each name once")
    if table.num_rows == 0:
        raise DataError("data: the source has no rows; expected at least one")
    require_columns(table.column_names, source.columns)
    return Source(table, loaded.revision)


def require_columns(there: list[str], columns: Mapping[str, str] | None) -> None:
    """Raise DataError unless the source's columns, mapped, make up a task that the pipeline knows."""
    if columns is None:
        task_of(there)
        return
    missing = [column for column in columns.values() if column not in there]
    if missing:
        raise DataError(f"no column {', '.join(missing)}, which data.columns names; columns there: {', '.join(there)}")
    mapped_task(columns)


def require_file(path: str) -> Path:
    """The local file of that path; DataError if there is none."""
    local = local_path(path)
    if local.is_dir():
        raise DataError(f"{path} is a folder; expected a file")
    if not local.exists():
        raise DataError(f"no such file: {path}")
    return local


def _require_unchanged(path: str, expected: str | None) -> str:
    """The file's SHA-256; DataError if the parameters have another one."""
    found = sha256(require_file(path))
    if expected not in (None, found):
        raise DataError(
            f"{path} has changed since params.yaml was composed (SHA-256 {found[:12]}…, expected {expected[:12]}…).\n"
            "Compose anew, so that the change counts: make params"
        )
    return found


def _from_file(source: FileRows) -> Source:
    checksum = _require_unchanged(source.path, source.sha256)
    return Source(read_table(local_path(source.path)), checksum)


def _generated(source: GeneratedRows) -> Source:
    from pipeline.dialogues import generate, read_knowledge

    checksum = _require_unchanged(source.path, source.sha256)
    dialogues = generate(read_knowledge(local_path(source.path)), source.rows, source.seed)
    return Source(pa.Table.from_pylist(dialogues), checksum)


def peek(path: str) -> list[str]:
    """The columns of a file, from its beginning alone; DataError if it is not what its ending says."""
    table = read_table(require_file(path), rows=100)
    if table.num_rows == 0:
        raise DataError(f"{path} has no rows; expected at least one")
    return table.column_names


def read_table(path: Path, rows: int | None = None) -> pa.Table:
    """The rows of a .jsonl, .json, .csv or .parquet file, or the first `rows` of them.

    DataError if the file is not what its ending says, or if a column mixes types.
    """
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown ending {path.suffix or '(none)'}; expected one of {', '.join(ENDINGS)}")
    try:
        return reader(path, rows)
    except UnicodeDecodeError:
        _require_utf8(path)
        raise
    except (pa.ArrowException, OSError) as error:  # Arrow calls a damaged file an OSError, too
        raise DataError(f"{path}: not a table that {path.suffix} holds: {error}; write the file anew") from None


def _require_utf8(path: Path) -> None:
    """Raise DataError that names the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            utf8(line, f"{path}, line {number}")


def _read_jsonl(path: Path, rows: int | None) -> pa.Table:
    return _from_objects(read_jsonl(path, limit=rows), path)


def _read_json(path: Path, rows: int | None) -> pa.Table:
    try:
        objects = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(objects, list) or not all(isinstance(each, dict) for each in objects):
        raise DataError(f"{path}: expected a JSON list of objects; for one object a line, name it .jsonl")
    return _from_objects(objects[:rows], path)


def _from_objects(objects: list[dict[str, Any]], path: Path) -> pa.Table:
    names = list(dict.fromkeys(name for each in objects for name in each))
    return pa.table({name: _column(name, [each.get(name) for each in objects], path) for name in names})


def _column(name: str, values: list[Any], path: Path) -> pa.Array:
    """One type a column; DataError names the first row whose value does not go with those before it."""
    if (error := _fault_of(values)) is None:
        return pa.array(values)
    number = bisect_left(range(len(values)), True, key=lambda row: _fault_of(values[: row + 1]) is not None) + 1
    raise DataError(
        f"{path}, row {number}: column {name} holds {_shown(values[number - 1])}, which does not go with the rows before it "
        f"or into no table ({error}); expected one type a column, text in UTF-8"
    )


def _fault_of(values: list[Any]) -> Exception | None:
    try:
        pa.array(values)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
        return error
    return None


def _shown(value: Any) -> str:
    text = ascii(value)
    return f"a {type(value).__name__}, {text if len(text) <= 60 else text[:57] + '...'}"


def _read_csv(path: Path, rows: int | None) -> pa.Table:
    """Every cell as the text it is: libraries that guess types take "NA", "1e5" and "007" for something else."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            names = next((row for row in reader if row), [])
            cells = list(islice(_whole_rows(reader, len(names), path), rows))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    if not names:
        raise DataError(f"{path} is empty; expected a first line with the names of the columns")
    if doubled := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(f"{path}: more than one column is called {', '.join(doubled)}")
    columns = zip(*cells, strict=True) if cells else [[]] * len(names)
    return pa.table({name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)})


def _whole_rows(reader: Any, width: int, path: Path) -> Iterator[list[str]]:
    for row in reader:
        if row and len(row) != width:
            raise DataError(f"{path}, line {reader.line_num}: {len(row)} cells; expected {width}, as in the first line")
        if row:
            yield row


def _read_parquet(path: Path, rows: int | None) -> pa.Table:
    file = pq.ParquetFile(path)
    if rows is None:
        return file.read().replace_schema_metadata(None)
    batches = list(islice(file.iter_batches(batch_size=rows), 1))
    return pa.Table.from_batches(batches, schema=file.schema_arrow)


def _from_hub(source: HubRows) -> Source:
    """A split of a dataset on the hub, read from the snapshot of one commit: offline too, once it was there."""
    import datasets

    from pipeline.hub import snapshot

    folder = snapshot(source.name, source.revision, "dataset")
    datasets.disable_progress_bars()
    try:
        split = datasets.load_dataset(os.fspath(folder), source.config, split=source.split)
    except (ValueError, datasets.exceptions.DatasetsError, pa.ArrowException) as error:
        raise DataError(
            f"data.name: {source.name} at {folder.name} has no readable split {source.split}: {error}"
        ) from None
    return Source(split.data.table.replace_schema_metadata(None).combine_chunks(), folder.name)
