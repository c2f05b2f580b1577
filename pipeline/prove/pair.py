"""Two runs that are compared: what dvc.lock records of both, and their files."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline.core.paths import RUNTIME
from pipeline.core.recorded_outputs import cached_object, read_folder_records
from pipeline.errors import DataError
from pipeline.leaderboard.revisions import Revision
from pipeline.prove.stages import load_stages

T = TypeVar("T")


class Pair:
    """Two runs; what they recorded, and their files."""

    def __init__(self, ours: Revision, theirs: Revision, scratch: Path) -> None:
        self.ours, self.theirs, self.scratch = ours, theirs, scratch
        ran = {*ours.stages, *theirs.stages}
        in_order = [stage.name for stage in load_stages() if stage.name in ran]
        self.stages = [*in_order, *sorted(ran.difference(in_order))]  # in the graph's order

    @property
    def outputs(self) -> int:
        return sum(len(self.hashes(self.ours, stage, "outs")) for stage in self.stages)

    def hashes(self, revision: Revision, stage: str, kind: str) -> dict[str, str]:
        """Path → hash of a stage's `outs` or `deps`, timings apart."""
        entries = revision.stages.get(stage, {}).get(kind, [])
        return {
            entry["path"]: entry.get("md5", "") for entry in entries if not Path(entry["path"]).is_relative_to(RUNTIME)
        }

    def differing(self, stage: str, kind: str) -> list[str]:
        mine, other = (self.hashes(revision, stage, kind) for revision in (self.ours, self.theirs))
        return [path for path in dict.fromkeys([*mine, *other]) if mine.get(path) != other.get(path)]

    def differing_outs(self, stage: str) -> list[str]:
        return self.differing(stage, "outs")

    def both(self, read: Callable[[Revision], T]) -> tuple[T, T]:
        return read(self.ours), read(self.theirs)

    def local_files(self, revision: Revision, out: str) -> dict[str, Path]:
        """Relative name → local path of the files of an output: in the workspace, in DVC's cache, or fetched from the remote."""
        if revision is self.ours:
            path = Path(out)
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            return {file.relative_to(path).as_posix(): file for file in files if file.is_file()}
        md5 = str(revision.recorded_output(out).get("md5", ""))
        records = read_folder_records(md5) if md5.endswith(".dir") else {".": md5}
        if records and all(cached_object(each).is_file() for each in records.values()):
            return {name: self._named(cached_object(each), f"{out}/{name}") for name, each in records.items()}
        target = self.scratch / "fetched" / out
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                revision.files.get(out, str(target), recursive=True)
            except Exception as error:  # DVC's own, the remote's, or the system's
                raise DataError(
                    f"{revision.label}: {out} is neither in DVC's cache nor can it be fetched: {error}"
                ) from None
        files = sorted(target.rglob("*")) if target.is_dir() else [target]
        return {file.relative_to(target).as_posix(): file for file in files if file.is_file()}

    def _named(self, cached: Path, name: str) -> Path:
        """A link to a cached object that has the file's suffix."""
        link = self.scratch / "links" / name.removesuffix("/.")
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(cached.absolute())
        return link
