"""Prove --against: in a repository whose outputs equal those of a commit, or differ from them in one chosen place."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.board import dvc
from support.commands import run_main
from support.project import commit_all, python_in

from pipeline.prove import cli
from pipeline.prove.against import compare_with
from pipeline.prove.differences import (
    RecordedStep,
    differing_answers,
    first_differing_order,
    first_differing_row,
    first_differing_step,
    first_differing_tensor,
)


def writable(path: Path) -> Path:
    """An output of a stage as a file of its own, no longer a link into DVC's cache."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    return path


def change_tensor(folder: Path) -> None:
    path = writable(folder / "models/finetuned/model.safetensors")
    tensors = load_file(path)
    tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.bias"][3] += 0.5
    save_file(tensors, path, {"format": "pt"})


def change_environment(folder: Path) -> None:
    path = writable(folder / "metrics/details/train.json")
    metrics = json.loads(path.read_text())
    metrics["environment"]["threads"] = 64
    metrics["environment"]["libraries"]["torch"] = "2.99.0"
    path.write_text(json.dumps(metrics, indent=2))


def change_row(folder: Path) -> None:
    path = writable(folder / "data/formatted/train.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[2])
    lines[2] = json.dumps({**row, "completion": "Changed."})
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


# name → (change, the stage that wrote the file, lines of the answer)
CHANGES: dict[str, tuple[Callable[[Path], None], str, list[str]]] = {
    "tensor": (
        change_tensor,
        "train",
        [
            "differ first in what train wrote: models/finetuned.",
            "  nothing that is recorded",
            "  order of rows: equal",
            "  training step: equal",
            "  models/finetuned: gpt_neox.layers.1.mlp.dense_h_to_4h.bias (128,), by at most 0.5; 1 of 28 tensors differ",
        ],
    ),
    "environment": (
        change_environment,
        "train",
        [
            "differ first in what train wrote: metrics/details/train.json.",
            "  versions of train: libraries.torch 2.99.0 / ",
            "threads 64 / ",
        ],
    ),
    "row": (
        change_row,
        "format",
        ["differ first in what format wrote: data/formatted.", "row 3 (id ", '), completion: "Changed." / "'],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_first_difference_is_found(clone: Path, name: str) -> None:
    change, stage, expected = CHANGES[name]
    change(clone)
    dvc(clone, "commit", "-f", "-q", stage)
    parting = compare_with("HEAD")
    text = "\n".join(parting.lines)
    assert not parting.is_equal
    assert [part for part in expected if part not in text] == [], text


def test_equal_runs_are_equal(clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_main(cli.main, ["prove", "--against", "HEAD"], monkeypatch, capsys)
    assert code == 0
    assert out.startswith("All 33 outputs are equal to those of HEAD")


def test_another_seed_is_found_in_order_steps_weights_and_answers(clone: Path) -> None:
    assert python_in(clone, "pipeline.compose", "train.seed=1").returncode == 0
    dvc(clone, "repro", "-q")
    lines = compare_with("HEAD").lines
    assert lines[0].startswith("The workspace and HEAD")
    assert "  parameters: train.seed 1 / 0" in lines
    assert "  order of rows: the rows differ from step 1 on" in lines
    places = [line.split(":")[0] for line in lines if line.startswith("  ")]
    assert places[1:4] == ["  order of rows", "  training step", "  models/finetuned"]
    assert lines[-1].endswith("fetch@data, fetch@model, clean, format, tokenize, evaluate@base.")


def test_changed_code_is_named_by_its_files(clone: Path) -> None:
    path = clone / "pipeline/train/sample_order.py"
    path.write_text(path.read_text() + "\n# edited\n")
    change_tensor(clone)
    dvc(clone, "commit", "-f", "-q", "train")
    assert "  code: pipeline/train/sample_order.py" in compare_with("HEAD").lines


def forget_lock(folder: Path) -> None:
    (folder / "dvc.lock").unlink()
    commit_all(folder)


def forget_cache(folder: Path) -> None:
    change_tensor(folder)
    dvc(folder, "commit", "-f", "-q", "train")
    shutil.rmtree(folder / ".dvc/cache")


@pytest.mark.parametrize(
    ("prepare", "revision", "code", "message"),
    [
        (lambda folder: None, "nowhere", 1, "nowhere"),
        (forget_lock, "HEAD", 1, "dvc.lock"),
        (forget_cache, "HEAD", 1, "cache"),
    ],
)
def test_what_is_missing_is_one_message(
    clone: Path,
    prepare: Callable[[Path], None],
    revision: str,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare(clone)
    found, out, error = run_main(cli.main, ["prove", "--against", revision], monkeypatch, capsys)
    assert found == code
    assert message in out + error
    assert "Traceback" not in out + error


def step(number: int, rows: str = "1 2", loss: str = "0.5") -> RecordedStep:
    return RecordedStep(str(number), rows, loss, "1.0", "0.001")


def test_steps_differ_first_by_rows_or_by_numbers() -> None:
    ours = [step(1), step(2), step(3)]
    assert first_differing_order(ours, [step(1), step(2, rows="2 1"), step(3)]) == "the rows differ from step 2 on"
    assert first_differing_order(ours, ours) == first_differing_step(ours, ours) == ""
    assert first_differing_step(ours, [step(1), step(2), step(3, loss="0.25")]) == "step 3: loss 0.5 / 0.25"
    assert first_differing_step(ours, ours[:2]) == "3 / 2 steps, the first 2 of them equal"


def test_tensors_differ_by_value_shape_or_presence(tmp_path: Path) -> None:
    base = {"a": torch.zeros(2), "b": torch.ones(3), "c": torch.zeros(1)}
    variants = {
        "equal": base,
        "value": {**base, "b": torch.tensor([1.0, 0.75, 1.5])},
        "shape": {**base, "a": torch.zeros(4)},
        "presence": {"b": torch.ones(3), "c": torch.zeros(1)},
        "nan": {**base, "c": torch.full((1,), torch.nan)},
    }
    for name, tensors in variants.items():
        save_file(tensors, tmp_path / name)
    found = {name: first_differing_tensor([tmp_path / "equal"], [tmp_path / name]) for name in variants}
    assert found == {
        "equal": "",
        "value": "b (3,), by at most 0.5; 1 of 3 tensors differ",
        "shape": "a (shapes (2,) / (4,)); 1 of 3 tensors differ",
        "presence": "a (only in the first); 1 of 3 tensors differ",
        "nan": "c (1,), by at most nan; 1 of 3 tensors differ",
    }


def write_rows(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_and_answers_differ_first_by_their_ids(tmp_path: Path) -> None:
    rows = [{"id": id, "prediction": f"answer {id}"} for id in (4, 5)]
    ours = write_rows(tmp_path / "ours.jsonl", *rows)
    theirs = write_rows(tmp_path / "theirs.jsonl", rows[0], {**rows[1], "prediction": "other"})
    shorter = write_rows(tmp_path / "shorter.jsonl", rows[0])
    assert first_differing_row(ours, theirs) == 'row 2 (id 5), prediction: "answer 5" / "other"'
    assert first_differing_row(ours, shorter) == "row 2 is only in the first"
    assert first_differing_row(ours, ours) == differing_answers(ours, ours) == ""
    assert differing_answers(ours, theirs) == '1 of 2 differ, first of row 5: "answer 5" / "other"'
    assert differing_answers(ours, shorter) == "other test rows (2 / 1)"
