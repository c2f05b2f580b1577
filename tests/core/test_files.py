"""pipeline/core/files.py: atomic outputs, JSON and JSON Lines, checksums, paths in the parameters."""

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.core.files import atomic_write, local_path, read_json, read_jsonl, sha256_of_path, write_json, write_jsonl
from pipeline.errors import DataError


def fill(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_new_file_appears_once_the_body_has_ended(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "deep" / "er" / "out.txt") as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert not (tmp_path / "deep/er/out.txt").exists()
    assert contents(tmp_path / "deep/er") == {"out.txt": "new"}


def test_existing_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old", encoding="utf-8")
    with atomic_write(tmp_path / "out") as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert contents(tmp_path) == {"out": "new"}


def test_folder_that_is_not_empty_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "out", kept="old", gone="old")
    with atomic_write(tmp_path / "out") as temporary:
        fill(temporary, kept="new")
    assert names(tmp_path) == ["out"]
    assert contents(tmp_path / "out") == {"kept": "new"}


def write_half_and_raise(path: Path, error: BaseException) -> None:
    with atomic_write(path) as temporary:
        fill(temporary, kept="half")
        raise error


def test_old_file_stays_if_the_body_raises(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError, match="half way"):
        write_half_and_raise(tmp_path / "out", RuntimeError("half way"))
    assert contents(tmp_path) == {"out": "old"}


def test_old_folder_stays_if_the_body_raises(tmp_path: Path) -> None:
    fill(tmp_path / "out", kept="old")
    with pytest.raises(RuntimeError, match="half way"):
        write_half_and_raise(tmp_path / "out", RuntimeError("half way"))
    assert names(tmp_path) == ["out"]
    assert contents(tmp_path / "out") == {"kept": "old"}


def test_interrupted_body_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_half_and_raise(tmp_path / "out", KeyboardInterrupt())
    assert names(tmp_path) == []


def test_old_folder_stays_if_the_body_writes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "out", kept="old")
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]
    assert contents(tmp_path / "out") == {"kept": "old"}


@pytest.mark.parametrize("ending", ["", "-old"], ids=["temporary", "replaced"])
def test_temporary_outputs_of_a_dead_process_are_removed(tmp_path: Path, dead_process: int, ending: str) -> None:
    fill(tmp_path / f".out.{dead_process}{ending}", part="half")
    with atomic_write(tmp_path / "out") as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert names(tmp_path) == ["out"]


def test_temporary_output_of_a_live_process_stays(tmp_path: Path) -> None:
    fill(tmp_path / f".out.{os.getppid()}", part="half")
    with atomic_write(tmp_path / "out") as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert names(tmp_path) == [f".out.{os.getppid()}", "out"]


def test_files_of_other_outputs_stay(tmp_path: Path, dead_process: int) -> None:
    for name in (f".other.{dead_process}", f"out.{dead_process}", ".out.txt"):
        (tmp_path / name).write_text("", encoding="utf-8")
    with atomic_write(tmp_path / "out") as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert names(tmp_path) == sorted([f".other.{dead_process}", ".out.txt", "out", f"out.{dead_process}"])


def test_temporary_output_of_a_killed_process_with_the_same_id_is_replaced(tmp_path: Path) -> None:
    """In a container, process ids recur from run to run."""
    fill(tmp_path / f".out.{os.getpid()}", part="half")
    with atomic_write(tmp_path / "out") as temporary:
        fill(temporary, kept="new")
    assert contents(tmp_path / "out") == {"kept": "new"}


def test_hidden_file_that_ends_in_a_date_stays(tmp_path: Path) -> None:
    (tmp_path / ".out.20260101120000").write_text("", encoding="utf-8")
    with atomic_write(tmp_path / "out") as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert names(tmp_path) == [".out.20260101120000", "out"]


def test_json_keeps_key_order_and_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"z": 0.1, "a": "fièvre"})
    assert (tmp_path / "m.json").read_text(encoding="utf-8") == '{\n  "z": 0.1,\n  "a": "fièvre"\n}\n'
    assert read_json(tmp_path / "m.json") == {"z": 0.1, "a": "fièvre"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["NaN", "infinity"])
def test_json_rejects_nan_and_infinity_and_leaves_no_file(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "new.json", {"loss": value})
    assert names(tmp_path) == []


def test_rejected_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"loss": 1})
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "m.json", {"loss": float("nan")})
    assert names(tmp_path) == ["m.json"]
    assert read_json(tmp_path / "m.json") == {"loss": 1}


def test_json_lines_round_trip(tmp_path: Path) -> None:
    rows = [{"text": "two\nlines\u2028three"}, {"text": "流感"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert (tmp_path / "rows.jsonl").read_bytes() == ('{"text":"two\\nlines\u2028three"}\n{"text":"流感"}\n'.encode())
    assert read_jsonl(tmp_path / "rows.jsonl") == rows
    assert read_jsonl(tmp_path / "rows.jsonl", limit=1) == rows[:1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\n\n{"a" 2}\n', "rows.jsonl, line 3: not JSON (Expecting ':' delimiter, column 6)"),
        ('"a"\n', "rows.jsonl, line 1: a JSON str; expected an object"),
        ('{"a": 1}\nnull\n', "rows.jsonl, line 2: a JSON NoneType; expected an object"),
        ('{"a": 1} {"a": 2}\n', "rows.jsonl, line 1: not JSON (Extra data, column 10)"),
    ],
    ids=["broken", "text", "null", "two on a line"],
)
def test_error_names_the_line_that_is_not_an_object(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_jsonl(tmp_path / "rows.jsonl")
    assert message in str(error.value)


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of_path(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    "files",
    [{"a": "1", "b": "3"}, {"a": "1", "c": "2"}, {"a": "1"}, {"a": "2", "b": "1"}, {"a": "1b2"}, {"a": "12", "b": ""}],
    ids=["content", "name", "a file less", "swapped", "concatenated", "boundary moved"],
)
def test_sha256_of_a_folder_depends_on_contents_and_names(tmp_path: Path, files: dict[str, str]) -> None:
    assert sha256_of_path(fill(tmp_path / "one", a="1", b="2")) != sha256_of_path(fill(tmp_path / "other", **files))


def test_sha256_of_a_folder_ignores_hidden_files_and_its_own_name(tmp_path: Path) -> None:
    plain, hidden = fill(tmp_path / "plain", a="1"), fill(tmp_path / ".hidden", a="1")
    fill(hidden / ".cache", b="2")
    (hidden / ".gitignore").write_text("x", encoding="utf-8")
    assert sha256_of_path(plain) == sha256_of_path(hidden)


def test_path_is_relative_to_the_working_directory_then_to_the_original_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, checkout = fill(tmp_path / "folder", both="1"), fill(tmp_path / "checkout", both="2", own="3")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_ROOT", str(checkout))
    assert local_path("both") == Path("both")
    assert local_path("own") == checkout / "own"
    assert local_path("nowhere") == Path("nowhere")
    assert local_path(str(folder / "both")) == folder / "both"


def test_path_without_an_original_checkout_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert local_path("nowhere") == Path("nowhere")


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/rows.csv") == tmp_path / "rows.csv"
