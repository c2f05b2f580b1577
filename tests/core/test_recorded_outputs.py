"""Damaged inputs of a stage are noticed, named and healed by the commands in the message, in a real DVC repository."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.project import run_in, stages_run

from pipeline.core import recorded_outputs
from pipeline.core.recorded_outputs import (
    LOCK,
    cached_object,
    parse_lock,
    read_folder_records,
    recorded_outs,
    require_recorded_inputs,
)
from pipeline.errors import DataError

WEIGHTS = Path("models/finetuned/model.safetensors")
Damage = Callable[[Path], object]


@pytest.fixture
def copied(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project after `dvc repro`, as the working directory."""
    folder = shutil.copytree(repository, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def zero_a_block(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    file.write_bytes(content)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def add_a_file(file: Path) -> None:
    file.with_name("more.safetensors").write_bytes(b"more")


def swap(file: Path) -> None:
    file.write_bytes(Path("models/base/model.safetensors").read_bytes())


def error_of(stage: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DVC_STAGE", stage)
    with pytest.raises(DataError) as caught:
        require_recorded_inputs()
    return str(caught.value)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (zero_a_block, f"  {WEIGHTS}: MD5 [0-9a-f]{{32}}, recorded [0-9a-f]{{32}}"),
        (cut_short, f"  {WEIGHTS}: MD5 [0-9a-f]{{32}}, recorded [0-9a-f]{{32}}"),
        (swap, f"  {WEIGHTS}: MD5 [0-9a-f]{{32}}, recorded [0-9a-f]{{32}}"),
        (Path.unlink, f"  {WEIGHTS}: missing, recorded [0-9a-f]{{32}}"),
        (add_a_file, "  models/finetuned/more.safetensors: not recorded"),
    ],
)
@pytest.mark.parametrize("has_list", [True, False])
def test_damage_in_a_folder_is_named(
    copied: Path, damage: Damage, line: str, has_list: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_list:
        monkeypatch.setattr(recorded_outputs, "read_folder_records", lambda md5: None)
        line = r"  models/finetuned: MD5 [0-9a-f]{32}\.dir, recorded [0-9a-f]{32}\.dir"
    damage(WEIGHTS)
    first, second, *rest = error_of("evaluate@finetuned", monkeypatch).splitlines()
    assert first.startswith("models/finetuned is not what train wrote (by the hashes in dvc.lock)")
    assert re.fullmatch(line, second)
    assert rest[0] == "To restore it:"


@pytest.mark.parametrize(
    ("file", "stage", "names"),
    [
        ("data/formatted/train.jsonl", "tokenize", "data/formatted is not what format wrote"),
        ("data/predictions/base.jsonl", "compare", "data/predictions/base.jsonl is not what evaluate@base wrote"),
        ("data/raw/rows.parquet", "clean", "data/raw is not what fetch@data wrote"),
        ("models/base/tokenizer.json", "clean", "models/base is not what fetch@model wrote"),
        ("metrics/details/train.json", "compare", "metrics/details/train.json is not what train wrote"),
    ],
)
def test_each_stage_checks_the_data_that_it_reads(
    copied: Path, file: str, stage: str, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(Path(file))
    assert error_of(stage, monkeypatch).startswith(names)


@pytest.mark.parametrize(
    "stage", ["clean", "format", "tokenize", "train", "evaluate@base", "evaluate@finetuned", "compare"]
)
def test_undamaged_inputs_pass(copied: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", stage)
    require_recorded_inputs()


def test_a_stage_run_by_hand_may_read_other_data(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    cut_short(WEIGHTS)
    require_recorded_inputs()


def test_code_that_was_edited_is_no_damage(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "clean")
    Path("pipeline/clean/filters.py").write_text("# edited")
    require_recorded_inputs()


def hash_in_cache(out: str, file: str) -> str:
    (recorded,) = (each for each in recorded_outs(parse_lock(LOCK.read_text(), "")) if each.path == out)
    records = read_folder_records(recorded.md5)
    assert records is not None
    return records[file]


def damage_object(md5: str, damage: Damage) -> None:
    path = cached_object(md5)
    path.chmod(0o644)
    damage(path)
    path.chmod(0o444)


@pytest.mark.parametrize("has_remote", [True, False])
def test_damaged_object_is_healed_by_the_commands_in_the_message(
    copied: Path, tmp_path: Path, has_remote: bool
) -> None:
    if has_remote:
        for command in (("remote", "add", "-q", "-d", "store", str(tmp_path / "store")), ("push", "-q")):
            assert run_in(copied, "dvc", *command).returncode == 0
    weights = WEIGHTS.read_bytes()
    damage_object(hash_in_cache("models/finetuned", "model.safetensors"), zero_a_block)
    shutil.rmtree("models/finetuned")
    assert run_in(copied, "dvc", "checkout").returncode == 0
    assert "up to date" in run_in(copied, "dvc", "status").stdout  # DVC does not notice
    Path("data/predictions/finetuned.jsonl").unlink()

    done = run_in(copied, "dvc", "repro", "--force", "--single-item", "evaluate@finetuned")
    assert done.returncode != 0
    message = done.stderr[done.stderr.index("evaluate stopped") :]
    assert f"{WEIGHTS}: MD5" in message
    commands = re.findall(r"^  (?:rm|dvc pull|dvc repro) .*", message, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["rm", "dvc", "dvc"]
    subprocess.run(["sh", "-c", commands[0]], check=True)
    pulled = run_in(copied, *commands[1].partition("#")[0].split())
    assert (pulled.returncode == 0) == has_remote
    done = run_in(copied, *commands[2].split())
    assert done.returncode == 0
    assert stages_run(done.stdout) == ([] if has_remote else ["train"])
    assert WEIGHTS.read_bytes() == weights
    assert run_in(copied, "dvc", "repro").returncode == 0


def test_an_edit_on_purpose_is_recorded_by_the_command_in_the_message(copied: Path) -> None:
    rows = Path("data/formatted/train.jsonl")
    rows.write_bytes(b"".join(rows.read_bytes().splitlines(keepends=True)[:-5]))
    done = run_in(copied, "dvc", "repro", "--single-item", "tokenize")
    assert done.returncode != 0
    (command,) = re.findall(r"record that: (.*)", done.stderr)
    assert run_in(copied, *command.split()).returncode == 0
    done = run_in(copied, "dvc", "repro", "--single-item", "tokenize")
    assert stages_run(done.stdout) == ["tokenize"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<<<<<<< HEAD\nstages: {}\n=======\n>>>>>>> other\n", "dvc.lock has merge conflicts"),
        ("stages:\n  clean:\n    outs: [\n", "dvc.lock is damaged. Restore it: git restore dvc.lock"),
        ("", "dvc.lock is damaged"),
        ("[]", "dvc.lock is damaged"),
    ],
)
def test_unreadable_lock_is_one_message(text: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        parse_lock(text, "dvc.lock")


@pytest.mark.parametrize(
    ("shared", "local", "expected"),
    [
        ("[cache]\n    type = copy\n", None, ".dvc/cache"),
        ('[cache]\n    dir = "../store"\n', None, "store"),
        ("[cache]\n    dir = ../store\n", "[cache]\n    dir = /elsewhere\n", "/elsewhere"),
        ("no section\n", None, ".dvc/cache"),
        (None, None, ".dvc/cache"),
    ],
)
def test_cache_folder_is_the_configured_one(
    tmp_path: Path, shared: str | None, local: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    for name, text in (("config", shared), ("config.local", local)):
        if text is not None:
            (tmp_path / ".dvc" / name).write_text(text)
    assert recorded_outputs.cache_folder() == Path(os.path.relpath(expected))
