"""The whole pipeline under DVC, on a tiny configuration: which stages run, and which files change."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.project import changed_files, run_in, stages_run

from pipeline.compose.leaves import flatten

ALL = [
    "fetch@data",
    "fetch@model",
    "clean",
    "format",
    "tokenize",
    "train",
    "evaluate@base",
    "evaluate@finetuned",
    "compare",
]

# Columns of `dvc metrics show` and `dvc exp show`, at most 25.
HEADLINE = [
    *("rows.source", "parameters", "rows.kept"),
    *("rows.train", "rows.validation", "rows.test", "leakage.exact", "leakage.near", "tokens.train"),
    *("training_loss", "validation_loss_before", "validation_loss", "steps", "seconds.train", "peak_memory_gb.train"),
    *("exact_match.base", "f1.base", "bleu.base", "loss.base"),
    *("exact_match", "f1", "bleu", "loss"),
    *("verdicts.better", "verdicts.worse"),
]


@pytest.fixture(scope="module")
def repository(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository for this module."""
    return Path(shutil.copytree(repository, tmp_path_factory.mktemp("own") / "project", symlinks=True))


def test_the_first_run_ran_every_stage(repository: Path) -> None:
    lock = yaml.safe_load((repository / "dvc.lock").read_text())
    assert sorted(lock["stages"]) == sorted(ALL)


def test_a_second_run_runs_nothing(repository: Path) -> None:
    done = run_in(repository, "dvc", "repro")
    assert done.returncode == 0
    assert stages_run(done.stdout) == []
    assert changed_files(repository) == []


def test_timings_are_only_in_runtime(repository: Path) -> None:
    for path in (repository / "metrics").rglob("*.json"):
        assert ("seconds" in path.read_text()) == ("runtime" in path.parts), path


def test_dvc_shows_25_numbers_whose_names_need_no_file(repository: Path) -> None:
    done = run_in(repository, "dvc", "exp", "show", "--json")
    assert done.returncode == 0, done.stderr
    (workspace, _) = json.loads(done.stdout)
    files = [flatten(file["data"]) for file in workspace["data"]["metrics"].values()]
    assert [name for values in files for name in values] == HEADLINE
    assert {type(value) for values in files for value in values.values()} == {int, float}
    sections = workspace["data"]["params"]["params.yaml"]["data"].keys()
    assert not {name.split(".")[0] for name in HEADLINE} & sections  # a pattern can select parameters only


def test_no_test_row_is_in_training(repository: Path) -> None:
    def prompts(split: str) -> set[str]:
        rows = (repository / f"data/formatted/{split}.jsonl").read_text().splitlines()
        return {json.loads(row)["prompt"] for row in rows}

    assert not prompts("test") & (prompts("train") | prompts("validation"))
    assert json.loads((repository / "metrics/format.json").read_text())["leakage"] == {"exact": 0.0, "near": 0.0}


def test_a_new_learning_rate_reruns_training_and_the_old_one_nothing(repository: Path) -> None:
    done = run_in(repository, "dvc", "exp", "run", "-n", "warmer", "-S", "train.learning_rate=2e-3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert stages_run(done.stdout) == ["train", "evaluate@finetuned", "compare"]
    back = run_in(repository, "dvc", "exp", "run", "-S", "train.learning_rate=4e-4")
    assert stages_run(back.stdout) == []
    assert changed_files(repository) == []
    difference = run_in(repository, "dvc", "metrics", "diff", "--json", "warmer")
    assert "metrics/evaluate/finetuned.json" in json.loads(difference.stdout)
    plots = json.loads(run_in(repository, "dvc", "plots", "diff", "warmer", "--json").stdout)
    assert "Training and validation loss" in "".join(plots.get("data", plots))


def test_a_forced_run_changes_only_timings(repository: Path) -> None:
    done = run_in(repository, "dvc", "repro", "--force", fresh=True)  # other hash seeds than in the first run
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(stages_run(done.stdout)) == sorted(ALL)
    others = [path for path in changed_files(repository) if not path.startswith("metrics/runtime/")]
    assert others in ([], ["dvc.lock"])
    diff = subprocess.run(
        ["git", "diff", "-U0", "dvc.lock"], cwd=repository, check=True, capture_output=True, text=True
    )
    lines = [line for line in diff.stdout.splitlines() if re.match(r"[-+] ", line)]
    assert all(re.match(r"[-+] +(md5|size): ", line) for line in lines)
    context = subprocess.run(
        ["git", "diff", "-U2", "dvc.lock"], cwd=repository, check=True, capture_output=True, text=True
    )
    paths = set(re.findall(r"path: (\S+)\n(?: +hash: \S+\n)?[-]", context.stdout))
    assert all(path.startswith("metrics/runtime/") for path in paths)


def test_plain_text_is_compared_by_held_out_loss(repository: Path) -> None:
    texts = [" ".join(f"word{i * k % 14}" for k in range(1, 6 + i % 7)) + f" {i}" for i in range(120)]
    (repository / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    done = run_in(repository, "dvc", "exp", "run", "-S", "data=file", "-S", "data.path=texts.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test texts with models/finetuned on cpu" in done.stdout
    assert re.search(r"model (is \w+ than|and) the base model .*on held-out loss\.", done.stdout)
    assert list(json.loads((repository / "metrics/evaluate/finetuned.json").read_text())) == ["loss"]
    metrics = json.loads((repository / "metrics/details/evaluate/finetuned.json").read_text())
    assert list(metrics) == [
        "rows",
        "version",
        "loss",
        "perplexity",
        "loss_per_byte",
        "perplexity_per_byte",
        "environment",
    ]
