"""Reads and writes files. Outputs are atomic: a file or folder appears complete under its name, or not at all."""

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

from pipeline.core.orphans import exit_if_orphaned
from pipeline.errors import DataError, PipelineError

# How libraries in Rust (safetensors, tokenizers) and C++ (torch.save) report that the system refused to write a file.
FAILED_WRITE = re.compile(r"\(os error (?P<number>\d+)\)|PytorchStreamWriter|inline_container")
DISK_ERRORS = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}  # full, over a limit, over a quota
GLOB_CHARACTERS = re.compile(r"[*?[]")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write a file or folder to; rename it to `path` if the body succeeds.

    If the body raises, `path` stays as it was. Processes may write the same output at once: each has its own temporary
    path, and the last rename wins. Raises OSError, with a path, if nothing can be or was written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_orphans(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    _remove(temporary)  # left by a killed process with the same id: in containers ids recur
    try:
        with name_file_in_errors(path, temporary):
            yield temporary
        exit_if_orphaned()
        _replace(temporary, path)
    finally:
        _remove(temporary)


@contextmanager
def name_file_in_errors(path: Path, written: Path | None = None) -> Iterator[None]:
    """Turn any library's failure to write into an OSError that names the file.

    `path` is the file or folder as the user knows it, `written` where it is written first. An error without a path is about
    the file in it that was written last.
    """
    written = written or path
    try:
        yield
    except OSError as error:
        named = error.filename2 or error.filename  # of a copy, the target
        if error.errno is not None and isinstance(named, str | None):
            error.filename, error.filename2 = str(_known_path(path, written, named)), None
        if error.errno in DISK_ERRORS:
            error.strerror = os.strerror(error.errno)  # without a library's own words
        raise
    except PipelineError:
        raise
    except Exception as error:
        if (match := FAILED_WRITE.search(str(error))) is None:
            raise
        number = int(match["number"] or 0)
        reason = os.strerror(number) if number else "it could not be written completely"
        file = _known_path(path, written, None)
        if type(error).__name__ == "SafetensorError":  # it has removed the file
            file = file.with_name("*.safetensors") if file != path else path
        raise OSError(number or errno.EIO, reason, str(file)) from None


def _known_path(path: Path, written: Path, named: str | None) -> Path:
    """The path of a file that failed, below `path`. `named`: the path in the error, if it has one."""
    if named is None:
        files = [file for file in written.rglob("*") if file.is_file()] if written.is_dir() else []
        file = max(files, key=lambda file: file.stat().st_mtime_ns, default=written)
    else:
        file = Path(named)
    return path / file.relative_to(written) if file.is_relative_to(written) else file


def _replace(temporary: Path, path: Path) -> None:
    if not temporary.exists():
        raise FileNotFoundError(errno.ENOENT, "nothing was written to", str(temporary))
    if path.is_dir():  # a folder cannot be renamed over a folder that is not empty
        old = path.parent / f".{path.name}.{os.getpid()}-old"
        path.rename(old)
        temporary.rename(path)
        _remove(old)
    else:
        os.replace(temporary, path)


def _remove_orphans(path: Path) -> None:
    """Remove the temporary files and folders of processes that were killed."""
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
    except OverflowError:  # not a process id: the file is not one of ours
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write metrics, unsorted and unrounded. Raises ValueError on NaN: DVC would report it as changed on every run."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that an earlier stage wrote. Raises DataError if the file is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged_error(path, error) from None
    if not isinstance(values, dict):
        raise damaged_error(path, "not a JSON object")
    return values


def read_parquet(path: Path) -> pa.Table:
    """The table in a Parquet file that an earlier stage wrote. Raises DataError if the file is damaged."""
    reader = ParquetReader(path)
    with _raise_damaged(path):
        return reader.file.read()


class ParquetReader:
    """Reads a Parquet file that an earlier stage wrote, in batches. Raises DataError if the file is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb"):  # raises FileNotFoundError with the path; Arrow's own error would count as damage
            pass
        with _raise_damaged(path):
            self.file = pq.ParquetFile(path)
        self.num_rows: int = self.file.metadata.num_rows
        self.column_names: list[str] = self.file.schema_arrow.names

    def iter_tables(self, columns: list[str], size: int, progress: Any = None) -> Iterator[pa.Table]:
        """Yield `columns` of at most `size` rows at a time, in order; advance `progress`, a tqdm bar, after each."""
        with _raise_damaged(self.path):
            for batch in self.file.iter_batches(size, columns=columns):
                yield pa.Table.from_batches([batch])
                if progress is not None:
                    progress.update(batch.num_rows)


@contextmanager
def _raise_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise damaged_error(path, error) from None


def damaged_error(path: Path, reason: object) -> DataError:
    return DataError(f"{path} is damaged ({reason}); an earlier stage writes it: dvc repro")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("wb") as file:
        file.writelines(map(json_line, rows))


def json_line(row: dict[str, Any]) -> bytes:
    """The row as one line of JSON Lines. Values that JSON cannot express, such as dates, become text."""
    return orjson.dumps(row, default=str, option=orjson.OPT_APPEND_NEWLINE)


def read_jsonl(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file, or its first `limit`. Raises like `iter_jsonl`."""
    return list(itertools.islice(iter_jsonl(path), limit))


def iter_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON Lines file. Raises DataError with the line's number if a line is not a JSON object."""
    # Lines end at \n only: str.splitlines would also split at U+2028 and others, which JSON leaves unescaped.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parse_fast(line) or parse_json_object(line, f"{path}, line {number}")


def _parse_fast(line: bytes) -> dict[str, Any] | None:
    """The object in a line by orjson, or None: `parse_json_object` then finds the reason, or accepts the line."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def parse_json_object(line: bytes, location: str) -> dict[str, Any]:
    """The object in a line of JSON Lines. Raises DataError, which begins with `location`, if the line is not one."""
    try:
        row = json_decoder.decode(decode_utf8(line, location))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{location}: not JSON ({error.msg}, column {error.colno}); expected one object a line"
        ) from None
    except (ValueError, RecursionError) as error:  # a key twice, a number of thousands of digits, thousands of brackets
        raise DataError(f"{location}: not readable as JSON ({error}); expected one object a line") from None
    if not isinstance(row, dict):
        raise DataError(f'{location}: a JSON {type(row).__name__}; expected an object, such as {{"question": …}}')
    return row


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of the pairs. Raises ValueError if a key occurs twice: json itself would silently keep the last value."""
    if len(values := dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!a} occurs twice")
    return values


json_decoder = json.JSONDecoder(object_pairs_hook=_reject_duplicate_keys)


def decode_utf8(line: bytes, location: str) -> str:
    """The text of a line, without a byte order mark. Raises DataError, which begins with `location`."""
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{location}: not UTF-8 text (byte {error.start + 1}: {error.reason}); save the file as UTF-8"
        ) from None


def sha256_of_path(path: Path) -> str:
    """SHA-256 of a file's contents, or of the relative names and contents of a folder's files, except hidden ones."""
    return sha256_of_source(str(path))


def sha256_of_source(path: str) -> str:
    """Like `sha256_of_path`, of a local path in the parameters; a glob counts as a folder of the files that it matches."""
    base, files = local_files(path)
    digest = hashlib.sha256()
    if local_path(path).is_file():
        _update_digest(digest, files[0])
        return digest.hexdigest()
    for file in files:
        digest.update(f"{file.relative_to(base).as_posix()}\0{file.stat().st_size}\0".encode())
        _update_digest(digest, file)
    return digest.hexdigest()


def local_files(path: str) -> tuple[Path, list[Path]]:
    """The visible files that a path in the parameters names, sorted, and the folder that their names are relative to.

    `path` is a file, a folder (every file below it) or a glob. The list is empty if nothing matches.
    """
    local = local_path(path)
    if local.is_file():
        return local.parent, [local]
    base, paths = local, list(local.rglob("*"))
    if not local.exists():
        parts = Path(path).parts
        fixed = next((index for index, part in enumerate(parts) if GLOB_CHARACTERS.search(part)), len(parts))
        base = local_path(str(Path(*parts[:fixed])))
        try:
            paths = list(base.glob(str(Path(*parts[fixed:])))) if fixed < len(parts) else []
        except ValueError:  # ** as a part of a name, such as a**, matches nothing
            paths = []
    visible = (file for file in paths if not any(part.startswith(".") for part in file.relative_to(base).parts))
    return base, sorted(file for file in visible if file.is_file())


def _update_digest(digest: Any, file: Path) -> None:
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)


def local_path(path: str) -> Path:
    """A path in the parameters, relative to the working directory, or else to the checkout that an experiment came from.

    DVC runs queued experiments in a copy of the tracked files; DVC_ROOT names the original checkout.
    """
    local = Path(path).expanduser()
    in_checkout = Path(os.environ.get("DVC_ROOT", ".")) / local
    return local if local.exists() or not in_checkout.exists() else in_checkout
