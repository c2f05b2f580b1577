"""Whether the data that a stage reads is what dvc.lock records for the stage that wrote it.

DVC trusts its cache: it hashes neither a read-only object in it nor a file that it has checked out. So without this check, a
damaged object would be read as if it were the result of the pipeline.
"""

import configparser
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.errors import DataError

LOCK, GRAPH = Path("dvc.lock"), Path("dvc.yaml")
CODE = "pipeline/"  # dependencies here are written by people
INTERPOLATION = re.compile(r"\$\{[^}]*\}")
CONFLICT_MARKERS = re.compile(r"^(<{7}|={7}|>{7})( |$)", re.MULTILINE)
LISTED = 5  # files in a message


class Recorded(NamedTuple):
    """An output in dvc.lock."""

    path: str
    md5: str  # of a file, or of a folder's list of files, then with .dir at its end
    stage: str  # that wrote it

    @property
    def is_folder(self) -> bool:
        return self.md5.endswith(".dir")


class Damaged(NamedTuple):
    """A file that differs from its record, or is missing."""

    path: Path
    recorded: str  # MD5; empty if there is no record of this single file
    found: str  # MD5; empty if there is no file


def require_recorded_inputs() -> None:
    """Raise DataError unless the stage that DVC runs reads what dvc.lock records. Without DVC, any input is allowed."""
    name = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    if not name or not LOCK.exists() or not GRAPH.exists():
        return
    outs = recorded_outs(parse_lock(LOCK.read_text(encoding="utf-8"), str(LOCK)))
    for dependency in data_dependencies(name):
        for out in outs:
            if not is_within(dependency, out.path):
                continue
            if damaged := changed_files(out, dependency):
                raise DataError(damage_message(out, damaged))


def parse_lock(text: str, source: str) -> dict[str, Any]:
    """The stages of a dvc.lock. Raises DataError, with `source` in the message, if it is damaged or has merge conflicts."""
    if CONFLICT_MARKERS.search(text):
        raise DataError(
            f"{source} has merge conflicts (lines with <<<<<<< and >>>>>>>). Take one side, then run what differs:\n"
            "  git checkout --ours dvc.lock\n"
            "  dvc repro"
        )
    try:
        stages: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
    except (yaml.YAMLError, KeyError, TypeError):
        raise DataError(
            f"{source} is damaged. Restore it: git restore dvc.lock. Or write it again: rm dvc.lock; dvc repro"
        ) from None
    return stages


def recorded_outs(stages: dict[str, Any]) -> list[Recorded]:
    """The outputs with an MD5 of their bytes; DVC 2 recorded that of the text with other line breaks."""
    return [
        Recorded(out["path"], out["md5"], name)
        for name, stage in stages.items()
        for out in stage.get("outs", [])
        if out.get("hash") == "md5" and out.get("md5")
    ]


def data_dependencies(name: str) -> list[str]:
    """The dependencies of a stage in dvc.yaml that other stages may have written. `name` has the instance: evaluate@base."""
    stage, _, instance = name.partition("@")
    entry = yaml.safe_load(GRAPH.read_text(encoding="utf-8"))["stages"].get(stage, {})
    deps = entry.get("deps") or entry.get("do", {}).get("deps") or []
    return [INTERPOLATION.sub(instance, dep) for dep in deps if isinstance(dep, str) and not dep.startswith(CODE)]


def is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def changed_files(out: Recorded, dependency: str) -> list[Damaged]:
    """The files of a dependency, an output or a file in it, that differ from the record."""
    path = Path(dependency)
    if not path.exists():
        return []  # the stage itself reports it
    if not out.is_folder:
        found = md5_of(path)
        return [Damaged(path, out.md5, found)] if found != out.md5 else []
    records = read_folder_records(out.md5)
    folder = Path(out.path)
    if records is None:  # nothing but the folder's own hash to compare with
        hashes = {file.relative_to(folder).as_posix(): md5_of(file) for file in files_below(folder)}
        return [] if hash_of_folder(hashes) == out.md5 else [Damaged(folder, out.md5, hash_of_folder(hashes))]
    names = {*records, *(file.relative_to(folder).as_posix() for file in files_below(folder))}
    damaged = []
    for name in sorted(name for name in names if is_within(f"{out.path}/{name}", dependency)):
        file = folder / name
        found = md5_of(file) if file.is_file() else ""
        if found != records.get(name, ""):
            damaged.append(Damaged(file, records.get(name, ""), found))
    return damaged


def files_below(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file())


def md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def hash_of_folder(hashes: dict[str, str]) -> str:
    """DVC's hash of a folder, from the MD5 of each file by its relative path."""
    records = [{"md5": hashes[name], "relpath": name} for name in sorted(hashes)]
    return hashlib.md5(json.dumps(records, sort_keys=True).encode()).hexdigest() + ".dir"


def read_folder_records(md5: str) -> dict[str, str] | None:
    """Relative path → MD5 of a folder's files, from DVC's cache. None if the list is not there, or is damaged itself."""
    path = cached_object(md5)
    if not path.is_file() or f"{md5_of(path)}.dir" != md5:
        return None
    return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_bytes())}


def cached_object(md5: str) -> Path:
    """The path of an object in DVC's cache."""
    return cache_folder() / "files" / "md5" / md5[:2] / md5[2:]


def cache_folder() -> Path:
    """DVC's cache: .dvc/cache, unless the project's configuration names another one."""
    folder = "cache"
    for path in (Path(".dvc/config"), Path(".dvc/config.local")):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string("\n".join(line.strip() for line in path.read_text(encoding="utf-8").splitlines()))
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue  # DVC reports it
        folder = parser.get("cache", "dir", fallback=folder).strip("\"'")
    return Path(os.path.relpath(Path(".dvc", folder)))


def damage_message(out: Recorded, damaged: list[Damaged]) -> str:
    """What differs, and the commands that restore it."""
    lines = [f"{out.path} is not what {out.stage} wrote (by the hashes in dvc.lock): damaged, or edited by hand"]
    for file in damaged[:LISTED]:
        if not file.recorded:
            lines.append(f"  {file.path}: not recorded")
        else:
            lines.append(f"  {file.path}: {f'MD5 {file.found}' if file.found else 'missing'}, recorded {file.recorded}")
    if len(damaged) > LISTED:
        lines.append(f"  and {len(damaged) - LISTED} more")
    hashes = {file.recorded for file in damaged if file.recorded} | {out.md5}
    broken = sorted(str(cached_object(md5)) for md5 in hashes if is_damaged_object(md5))
    lines.append("To restore it:")
    lines.append(f"  rm -rf {' '.join([out.path, *broken])}")
    if broken:
        lines.append(f"  dvc pull {out.path}      # if it was pushed to a remote; else go on with:")
    lines.append(f"  dvc repro {out.stage}")
    lines.append(f"If you edited it on purpose, record that: dvc commit -f {out.stage}")
    return "\n".join(lines)


def is_damaged_object(md5: str) -> bool:
    """Whether an object in DVC's cache differs from its name."""
    path = cached_object(md5)
    return path.is_file() and md5_of(path) != md5.removesuffix(".dir")
