"""Reading and writing files: an output appears whole under its name, or not at all."""

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError, PipelineError

# What libraries written in Rust (safetensors, tokenizers) and C++ (torch.save) say when the system lets them not write.
UNWRITTEN = re.compile(r"\(os error (?P<number>\d+)\)|PytorchStreamWriter")
MAGIC = re.compile(r"[*?[]")  # of a glob


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write a file or folder to; rename it to `path` if all went well.

    Two processes that write the same output do not meet: each has its own temporary name, the last rename wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_orphans(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    _remove(temporary)  # of a killed process that had our id: in containers ids recur
    try:
        with attach_path_to_os_error(path):
            yield temporary
        _replace(temporary, path)
    finally:
        _remove(temporary)


@contextmanager
def attach_path_to_os_error(path: Path) -> Iterator[None]:
    """Make what cannot be written an OSError that names a path, whatever library was to write it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    except PipelineError:
        raise
    except Exception as error:
        if (found := UNWRITTEN.search(str(error))) is None:
            raise
        number = int(found["number"] or errno.EIO)
        raise OSError(number, os.strerror(number), str(path)) from None


def _replace(temporary: Path, path: Path) -> None:
    if not temporary.exists():
        raise FileNotFoundError(errno.ENOENT, "nothing was written to", str(temporary))
    if path.is_dir():  # a folder cannot be renamed over one that holds files
        old = path.parent / f".{path.name}.{os.getpid()}-old"
        path.rename(old)
        temporary.rename(path)
        _remove(old)
    else:
        os.replace(temporary, path)


def _remove_orphans(path: Path) -> None:
    """Remove what a killed process left behind."""
    for orphan in path.parent.glob(f".{path.name}.*"):
        owner = orphan.name.rsplit(".", 1)[-1].removesuffix("-old")
        if owner.isdigit() and not _is_alive(int(owner)):
            _remove(orphan)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OverflowError:  # no process id: the file is somebody's own
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write metrics: sorted neither nor rounded, no NaN (DVC shows NaN as changed for ever)."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file that an earlier stage wrote; DataError if it is not that any more."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged_error(path, error) from None
    if not isinstance(values, dict):
        raise damaged_error(path, "no JSON object")
    return values


def read_parquet(path: Path) -> pa.Table:
    """The table of a Parquet file that an earlier stage wrote; DataError if it is not that any more."""
    rows = ParquetRows(path)
    with _damage_as_fault(path):
        return rows.file.read()


class ParquetRows:
    """The rows of a Parquet file that an earlier stage wrote, some at a time; DataError if it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb"):  # a missing file is told by its name, not by Arrow
            pass
        with _damage_as_fault(path):
            self.file = pq.ParquetFile(path)
        self.num_rows: int = self.file.metadata.num_rows
        self.column_names: list[str] = self.file.schema_arrow.names

    def tables(self, columns: list[str], size: int, bar: Any = None) -> Iterator[pa.Table]:
        """The columns of at most `size` rows at a time, in order; a progress bar, if any, is told of each."""
        with _damage_as_fault(self.path):
            for batch in self.file.iter_batches(size, columns=columns):
                yield pa.Table.from_batches([batch])
                if bar is not None:
                    bar.update(batch.num_rows)


@contextmanager
def _damage_as_fault(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise damaged_error(path, error) from None


def damaged_error(path: Path, why: object) -> DataError:
    return DataError(f"{path} is damaged ({why}); an earlier stage writes it: dvc repro")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("wb") as file:
        file.writelines(map(json_line, rows))


def json_line(row: dict[str, Any]) -> bytes:
    """A line of JSON Lines; what JSON has no form for, such as a date, is written as text."""
    return orjson.dumps(row, default=str, option=orjson.OPT_APPEND_NEWLINE)


def read_jsonl(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The (first `limit`) rows of a JSON Lines file; errors as of `iter_jsonl`."""
    return list(itertools.islice(iter_jsonl(path), limit))


def iter_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines file, one at a time; DataError with the line's number where one is no JSON object."""
    # Lines end at \n alone: str.splitlines would also cut at U+2028 and others that JSON leaves as they are.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parsed(line) or parse_json_object(line, f"{path}, line {number}")


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object of a line, fast; None for any other, which `parse_json_object` then says in words."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def parse_json_object(line: bytes, where: str) -> dict[str, Any]:
    """The object that a line of JSON Lines holds; DataError that begins with `where` if it is none."""
    try:
        row = json_decoder.decode(decode_utf8(line, where))
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}, column {error.colno}); expected one object a line") from None
    except (ValueError, RecursionError) as error:  # a key twice, a number of thousands of digits, thousands of brackets
        raise DataError(f"{where}: not JSON that can be read ({error}); expected one object a line") from None
    if not isinstance(row, dict):
        raise DataError(f'{where}: a JSON {type(row).__name__}; expected an object, such as {{"question": …}}')
    return row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's keys with their values; json itself would keep the last of two with the same name, silently."""
    if len(found := dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!a} twice")
    return found


json_decoder = json.JSONDecoder(object_pairs_hook=_once)


def decode_utf8(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 text (byte {error.start + 1}: {error.reason}); save the file as UTF-8"
        ) from None


def sha256_of_path(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of its files' relative names and contents (hidden files left out)."""
    return sha256_of_source(str(path))


def sha256_of_source(path: str) -> str:
    """As `sha256_of_path`, of a local path from the parameters, which may be a glob: then of the files that it matches."""
    base, found = local_files(path)
    digest = hashlib.sha256()
    if local_path(path).is_file():
        _update(digest, found[0])
        return digest.hexdigest()
    for file in found:
        digest.update(f"{file.relative_to(base).as_posix()}\0{file.stat().st_size}\0".encode())
        _update(digest, file)
    return digest.hexdigest()


def local_files(path: str) -> tuple[Path, list[Path]]:
    """(where their names begin, the files, sorted) of a file, a folder with all below it, or a glob; hidden ones not."""
    local = local_path(path)
    if local.is_file():
        return local.parent, [local]
    base, found = local, list(local.rglob("*"))
    if not local.exists():
        parts = Path(path).parts
        fixed = next((at for at, part in enumerate(parts) if MAGIC.search(part)), len(parts))
        base = local_path(str(Path(*parts[:fixed])))
        try:
            found = list(base.glob(str(Path(*parts[fixed:])))) if fixed < len(parts) else []
        except ValueError:  # two stars beside something else match nothing
            found = []
    visible = (file for file in found if not any(part.startswith(".") for part in file.relative_to(base).parts))
    return base, sorted(file for file in visible if file.is_file())


def _update(digest: Any, file: Path) -> None:
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)


def local_path(path: str) -> Path:
    """A path from the parameters: a relative one counts from here, or from the main checkout in an experiment's copy.

    DVC runs queued experiments in a copy of the tracked files; DVC_ROOT names the checkout they came from.
    """
    here = Path(path).expanduser()
    in_checkout = Path(os.environ.get("DVC_ROOT", ".")) / here
    return here if here.exists() or not in_checkout.exists() else in_checkout
