"""Finds the data files that a path in the parameters names: a file, a folder, a glob or an address."""

import difflib
import logging
import os
import re
import unicodedata
from pathlib import Path

from pipeline.config.addresses import WEB, display_address, is_remote
from pipeline.core.files import local_files, local_path
from pipeline.errors import DataError
from pipeline.fetch.folder_layout import select_files
from pipeline.fetch.signatures import ADVICE, describe_content
from pipeline.fetch.streams import COMPRESSIONS, FORMATS, DataFile, open_data_file, open_file_system, unreadable_error
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)


def find_data_files(path: str, key: str = "data.path") -> list[DataFile]:
    """The data files of a path, in one format. `key` is the parameter that holds it.

    Raises DataError if there are none, if they are in different formats, or if they are of different splits.
    """
    return remote_data_files(path, key) if is_remote(path) else local_data_files(path, key)


def local_data_files(path: str, key: str = "data.path") -> list[DataFile]:
    """The data files of a local path: a file, those in a folder and below it, or the matches of a glob. Raises DataError."""
    base, matches = local_files(path)
    local = local_path(path)
    if local.is_file():
        require_format(file := DataFile(path, str(local)))
        return [file]
    if not matches and not local.is_dir():
        is_glob = base != local
        raise DataError(f"no file matches {path}" if is_glob else missing_file_message(path))
    prefix = path.rstrip("/") if local.is_dir() else str(base)
    files = {name: DataFile(f"{prefix}/{name}", str(base / name)) for name in _relative_names(matches, base)}
    return _select_data_files(files, path, prefix, key, choose_split=local.is_dir())


def remote_data_files(path: str, key: str = "data.path") -> list[DataFile]:
    """The data files of an address: a file, those in a folder and below it, or the matches of a glob. Raises DataError."""
    name = display_address(path)
    if path.startswith(WEB):  # no folders and no globs: ? begins a query
        require_format(file := DataFile(name, path))
        return [file]
    try:
        system, inside = open_file_system(path)
        is_folder = False
        if any(character in inside for character in "*?["):
            matches = sorted(system.glob(inside))
        elif is_folder := system.isdir(inside):
            matches = sorted(system.find(inside))
        else:
            require_format(file := DataFile(name, path))
            return [file]
    except DataError:
        raise
    except Exception as error:  # each of fsspec's file systems raises its own types
        raise unreadable_error(name, error) from None
    if not matches:
        raise DataError(f"no file matches {name}")
    # The folder of a glob is the part before its first special character, up to a slash.
    fixed = inside.rstrip("/") if is_folder else re.split(r"[*?[]", inside)[0].rpartition("/")[0]
    names = {match.removeprefix(f"{fixed}/"): system.unstrip_protocol(match) for match in matches}
    files = {
        relative: DataFile(display_address(address), address)
        for relative, address in names.items()
        if not any(part.startswith(".") for part in relative.split("/"))
    }
    return _select_data_files(files, name, display_address(system.unstrip_protocol(fixed)), key, is_folder)


def _relative_names(files: list[Path], base: Path) -> list[str]:
    return [file.relative_to(base).as_posix() for file in files]


def _select_data_files(
    files: dict[str, DataFile], path: str, folder: str, key: str, choose_split: bool
) -> list[DataFile]:
    selected = list(select_files(files, folder, key, choose_split).values())
    if not selected:
        found = f"; it has {format_names(files)}" if files else "; it is empty"
        raise DataError(f"{path} has no data files; expected some that end in {_extensions()}{found}")
    if len(formats := {require_format(file) for file in selected}) > 1:
        raise DataError(
            f"{path} has files in {len(formats)} formats ({', '.join(sorted(formats))}); expected one: select it, as in "
            f"{key}={path.rstrip('/')}/*{min(formats)}"
        )
    return selected


def require_file(path: str) -> Path:
    """The local file of a path. Raises DataError if there is none."""
    local = local_path(path)
    if local.is_dir():
        raise DataError(f"{path} is a folder; expected a file")
    if not local.exists():
        raise DataError(missing_file_message(path))
    return local


def missing_file_message(path: str) -> str:
    """The message for a missing file, with the names that it may be a misspelling of."""
    local = Path(path).expanduser()
    if local.exists():
        return f"{path} is a device or a pipe; expected a file"
    parent = next(folder for folder in local.parents if folder.is_dir() or folder in (folder.parent, Path(".")))
    missing = local.relative_to(parent).parts[0]
    try:
        siblings = sorted(os.listdir(parent))
    except OSError:
        siblings = []
    normalized = {_normalize(name): name for name in siblings}
    close = difflib.get_close_matches(_normalize(missing), normalized, n=3, cutoff=0.6)
    rest = Path(*local.relative_to(parent).parts[1:])
    suggestions = [str(parent / normalized[name] / rest) for name in close]
    suggestions.sort(key=lambda suggestion: not Path(suggestion).exists())
    message = f"no such file: {path}"
    if missing != local.name:
        message += f" ({parent / missing} does not exist)"
    return message + (f"; did you mean {format_names(suggestions)}?" if suggestions else "")


def _normalize(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def require_format(file: DataFile) -> str:
    """The file's format. Raises DataError, with what to do, if its extension is of no known one."""
    if file.format is not None:
        return file.format
    extension = Path(file.name).suffix
    message = f"{file.name}: unknown extension {extension or '(none)'}; expected one of {_extensions()}"
    if advice := ADVICE.get(extension.lower()):
        raise DataError(f"{message}. {advice}")
    if is_remote(file.address):
        raise DataError(f"{message}. Download the file, name it after its format, and give the local path")
    raise DataError(f"{message}{_content_advice(file)}")


def _content_advice(file: DataFile) -> str:
    with open_data_file(file, read_all=False) as (stream, _):
        description, extension = describe_content(stream.read(1 << 16))
    if extension is None:
        return f". Its content is {description}"
    renamed = Path(file.name).with_suffix(extension) if Path(file.name).suffix else f"{file.name}{extension}"
    return f". Its content looks like {description}: name it {renamed}"


def _extensions() -> str:
    return f"{', '.join(FORMATS)} (also compressed: {', '.join(COMPRESSIONS)})"
