"""What is wrong ends a real command with exit code 1 and one message that names it: no traceback, nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import python_in

QA = ["data=file", "model=scratch"]


def lines(path: Path, *rows: object) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def model_folder(folder: Path, *names: str) -> None:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")


# name → (what lies in the folder, overrides, what the message says)
COMPOSED: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "misspelt key": (lambda _: None, ["train.learning_rat=1"], "Could not override 'train.learning_rat'"),
    "unknown section": (lambda _: None, ["trian.seed=1"], "Could not override 'trian.seed'"),
    "added key": (lambda _: None, ["+train.warmup=3"], "train.warmup: unknown key; did you mean warmup_steps?"),
    "wrong type": (lambda _: None, ["train.epochs=many"], "train.epochs: 'many' is not right; expected a number"),
    "out of range": (
        lambda _: None,
        ["train.learning_rate=-1"],
        "train.learning_rate: -1 is not right; expected greater",
    ),
    "unknown option": (lambda _: None, ["model=gpt5"], "Could not find 'model/gpt5'"),
    "unknown group": (lambda _: None, ["modle=scratch"], "Could not override 'modle'"),
    "unknown preset": (lambda _: None, ["experiment=none"], "Could not find 'experiment/none'"),
    "no file": (lambda _: None, [*QA, "data.path=rows.csv"], "data.path: no such file: rows.csv"),
    "a folder": (lambda _: None, [*QA, "data.path=conf"], "data.path: conf is a folder; expected a file"),
    "unknown ending": (
        lambda at: (at / "rows.txt").write_text("a"),
        [*QA, "data.path=rows.txt"],
        "unknown ending .txt",
    ),
    "missing column": (
        lambda at: lines(at / "rows.jsonl", {"q": "1", "a": "2"}),
        [*QA, "data.path=rows.jsonl", "data.columns={question: q, answer: reply}"],
        "data.path: no column reply, which data.columns names; columns there: q, a",
    ),
    "columns of no task": (
        lambda at: lines(at / "rows.jsonl", {"q": "1", "a": "2"}),
        [*QA, "data.path=rows.jsonl"],
        "No known task has the columns q, a.",
    ),
    "CSV that is JSON": (
        lambda at: (at / "rows.parquet").write_text('{"question": 1}'),
        [*QA, "data.path=rows.parquet"],
        "rows.parquet: not a table that .parquet holds",
    ),
    "JSON Lines that is CSV": (
        lambda at: (at / "rows.jsonl").write_text("question,answer\n1,2\n"),
        [*QA, "data.path=rows.jsonl"],
        "rows.jsonl, line 1: not JSON",
    ),
    "no model folder": (lambda _: None, ["model=folder", "model.path=mine"], "model.path: mine is not there"),
    "no config.json": (
        lambda at: model_folder(at / "mine"),
        ["model=folder", "model.path=mine"],
        "model.path: mine has no config.json",
    ),
    "no weights": (
        lambda at: model_folder(at / "mine", "config.json", "tokenizer.json"),
        ["model=folder", "model.path=mine"],
        "model.path: mine has no weights in safetensors",
    ),
    "pickled weights": (
        lambda at: model_folder(at / "mine", "config.json", "tokenizer.json", "pytorch_model.bin"),
        ["model=folder", "model.path=mine"],
        "model.path: mine has pickled weights only (pytorch_model.bin)",
    ),
    "no tokenizer": (
        lambda at: model_folder(at / "mine", "config.json", "model.safetensors"),
        ["model=folder", "model.path=mine"],
        "model.path: mine has no tokenizer",
    ),
    "rows longer than the model": (
        lambda _: None,
        ["tokenize.max_length=4096"],
        "tokenize.max_length: 4096 is more than the model has room for; expected at most 512",
    ),
}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import copy_project

    return copy_project(tmp_path_factory.mktemp("errors") / "project")


@pytest.mark.parametrize(("prepare", "overrides", "message"), COMPOSED.values(), ids=COMPOSED)
def test_what_composition_can_know_is_said_before_anything_runs(
    fresh: Path, prepare: Callable[[Path], object], overrides: list[str], message: str
) -> None:
    shutil.rmtree(fresh / "mine", ignore_errors=True)
    prepare(fresh)
    before = (fresh / "params.yaml").read_bytes()
    done = python_in(fresh, "pipeline.compose", *overrides)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert (fresh / "params.yaml").read_bytes() == before


def fetched(project: Path, *overrides: str) -> None:
    for module, *arguments in (("compose", *overrides), ("fetch", "instance=data")):
        done = python_in(project, f"pipeline.{module}", *arguments)
        assert done.returncode == 0, done.stderr


def ends_with(project: Path, message: str, module: str, *arguments: str, **changes: str) -> None:
    done = python_in(project, f"pipeline.{module}", *arguments, **changes)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    left = [path for folder in ("data", "models", "metrics") for path in (project / folder).rglob(".*.[0-9]*")]
    assert not left


def test_a_file_that_changed_since_composition_is_not_fetched(project: Path) -> None:
    lines(project / "rows.jsonl", {"question": "Why?", "answer": "So."})
    python_in(project, "pipeline.compose", "data=file", "data.path=rows.jsonl")
    lines(project / "rows.jsonl", {"question": "Why?", "answer": "Because."})
    ends_with(project, "rows.jsonl has changed since params.yaml was composed", "fetch", "instance=data")
    assert not (project / "data/raw").exists()


def test_a_broken_line_deep_in_a_file_is_named(project: Path) -> None:
    (project / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n' * 200 + '{"question": "a", "ans\n')
    python_in(project, "pipeline.compose", "data=file", "data.path=rows.jsonl")
    ends_with(project, "rows.jsonl, line 201: not JSON", "fetch", "instance=data")


def test_no_row_left_after_cleaning(project: Path) -> None:
    lines(project / "rows.jsonl", *({"question": f"Why {i}?", "answer": "Hi. Take care."} for i in range(3)))
    fetched(project, "data=file", "data.path=rows.jsonl")
    ends_with(project, "clean stopped: no row left of 3: dropped 3 boilerplate", "clean")
    assert not (project / "data/clean").exists()
    assert not (project / "metrics/clean.json").exists()


def test_a_split_that_would_be_empty(project: Path) -> None:
    lines(project / "rows.jsonl", *({"question": f"Why {i}?", "answer": f"So {i}."} for i in range(3)))
    fetched(project, "data=file", "data.path=rows.jsonl")
    assert python_in(project, "pipeline.clean").returncode == 0
    ends_with(project, "would be empty (train ", "format")
    assert not (project / "data/formatted").exists()


def test_weights_that_do_not_fit_their_configuration(project: Path, built: Path) -> None:
    shutil.copytree(built / "models/base", project / "mine")
    config = json.loads((project / "mine/config.json").read_text())
    (project / "mine/config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    overrides = ("model=folder", "model.path=mine", "tokenize.max_length=96", "evaluate.max_new_tokens=12")
    assert python_in(project, "pipeline.compose", *overrides).returncode == 0
    ends_with(project, "the weights do not fit config.json; missing", "fetch", "instance=model")
    assert not (project / "models/base").exists()


def test_a_stage_says_how_to_have_its_outputs_back_when_dvc_has_removed_them(project: Path) -> None:
    ends_with(project, "git restore metrics", "clean", "clean.boilerplate=['(']", DVC_STAGE="clean")


def test_params_that_are_not_yaml(project: Path) -> None:
    (project / "params.yaml").write_text("train: {seed: 0")
    ends_with(project, "params.yaml is not YAML; compose it from conf/: make params", "clean")


def test_no_params(project: Path) -> None:
    (project / "params.yaml").unlink()
    ends_with(project, "params.yaml is missing; compose it from conf/: make params", "clean")


def test_an_instance_that_is_none(project: Path) -> None:
    ends_with(
        project, "python -m pipeline.fetch needs instance=data or instance=model, not both", "fetch", "instance=both"
    )


def test_a_missing_input_names_the_file(project: Path) -> None:
    ends_with(project, "data/raw/rows.parquet is not there; an earlier stage writes it: dvc repro", "clean")


def test_cuda_where_there_is_none(in_built: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a card")
    ends_with(in_built, "compute.device: cuda, but PyTorch sees no CUDA card here", "train", "compute.device=cuda")
