"""The leaderboard on real git and DVC: predictions in the cache and in a remote, what cannot be had, what is written."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.board import PREDICTIONS, commit, commit_predictions, dvc, git, make_board, predictions
from support.project import ROOT, python_in

from pipeline.errors import ConfigError, DataError
from pipeline.leaderboard.cli import FILES
from pipeline.leaderboard.runs import Run, find_runs, parse_predictions


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board of tests/board.py, pushed to a git remote and a DVC remote that is younger than its experiments."""
    folder = tmp_path_factory.mktemp("leaderboard")
    board = make_board(folder / "board")
    git(folder, "init", "-q", "--bare", "-b", "main", "origin.git")
    git(board, "remote", "add", "origin", str(folder / "origin.git"))
    git(board, "push", "-q", "--tags", "origin", "main")
    dvc(board, "exp", "push", "-q", "--no-cache", "origin", "more")
    dvc(board, "remote", "add", "-q", "-d", "store", str(folder / "store"))
    dvc(board, "push", "-q")
    dvc(board, "remote", "remove", "-q", "store")
    return folder


@pytest.fixture
def board(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the board, in which the test runs."""
    folder = Path(shutil.copytree(shared / "board", tmp_path / "board", symlinks=True))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def clone(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone, in which the test runs: no cache, and no remote is configured yet."""
    git(tmp_path, "clone", "-q", str(shared / "origin.git"), "clone")
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path / "clone"


def refusal(*names: str) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        find_runs([*names], "finetuned")
    return str(caught.value)


def right(run: Run) -> int:
    return sum(row["prediction"] != "no idea" for row in run.rows)


def test_branches_tags_ancestors_commits_experiments_and_the_workspace_are_found(board: Path) -> None:
    commits = {"main": git(board, "rev-parse", "main"), "HEAD~1": git(board, "rev-parse", "first"), "workspace": ""}
    short = commits["main"][:8]
    found = {run.name: run for run in find_runs([*commits, "first", short, "more", "seed-1"], "finetuned")}
    assert {name: found[name].commit for name in commits} == commits
    assert found["first"].commit == commits["HEAD~1"]
    assert found[short].commit == commits["main"]
    assert [right(run) for run in found.values()] == [12, 12, 12, 12, 12, 18, 12]
    assert {len(run.rows) for run in found.values()} == {20}


def test_a_run_knows_what_it_was_made_of(board: Path) -> None:
    run = find_runs(["seed-1"], "finetuned")[0]
    assert run.params == {"train.seed": 1, "train.right": 12, "evaluate.first": 0, "evaluate.rows": 20}
    assert list(run.inputs) == ["work.py"]  # models/finetuned is written by train
    assert run.metrics["loss"] == 0.5


def test_a_fresh_clone_reads_from_the_dvc_remote_that_is_configured_here(shared: Path, clone: Path) -> None:
    assert "main: data/predictions/finetuned.jsonl is not in the cache here, and no DVC remote" in refusal("main")
    dvc(clone, "remote", "add", "-q", "-d", "store", str(shared / "store"))
    # The commits themselves are older than the remote and do not name it.
    assert [right(run) for run in find_runs(["main", "first"], "finetuned")] == [12, 12]


def test_an_experiment_comes_by_exp_pull_and_its_predictions_from_the_remote(shared: Path, clone: Path) -> None:
    assert "more: no revision of git and no experiment here" in refusal("more")
    assert "comes by: dvc exp pull origin more" in refusal("more")
    dvc(clone, "exp", "pull", "-q", "--no-cache", "origin", "more")
    store = clone / "store-of-more"
    dvc(clone, "remote", "add", "-q", "-d", "store", str(store))
    told = refusal("more")
    assert f"neither in the cache here nor to be had from the DVC remote store ({store})" in told
    assert "dvc exp push origin more" in told
    assert "dvc exp apply more" in told
    shutil.copytree(shared / "board/.dvc/cache/files", store / "files")
    assert right(find_runs(["more"], "finetuned")[0]) == 18


def test_unknown_names_are_told_together_with_what_may_be_meant(board: Path) -> None:
    told = refusal("moer", "main", "HEAD~7", "zzz", "")
    assert told.startswith(
        "4 revisions cannot be compared:\n  moer: no revision of git and no experiment here; did you mean"
    )
    assert "more?" in told
    assert "HEAD~7: the history here does not go back so far" in told
    assert "zzz: no revision of git and no experiment here. There are: git branch -a, git tag, dvc exp list -A." in told
    assert "an empty name is no revision" in told


def test_two_experiments_of_one_name_are_told_apart_by_commit(board: Path) -> None:
    base = git(board, "rev-parse", "first")
    refs = {name: git(board, "rev-parse", f"refs/exps/{base[:2]}/{base[2:]}/{name}") for name in ("more", "seed-1")}
    other = git(board, "rev-parse", refs["seed-1"])
    git(board, "update-ref", f"refs/exps/{other[:2]}/{other[2:]}/more", refs["seed-1"])
    assert refusal("more") == "more: more than one experiment has that name; give its commit (dvc exp list -A)"
    assert right(find_runs([refs["more"]], "finetuned")[0]) == 18


def test_a_workspace_that_is_not_what_the_lock_records_is_refused(board: Path) -> None:
    (board / PREDICTIONS).write_text('{"id": 1, "reference": "a", "prediction": "b"}\n')
    assert refusal("workspace").startswith("workspace: data/predictions/finetuned.jsonl is not what dvc.lock records")


def test_a_revision_that_was_never_run_says_so(board: Path) -> None:
    git(board, "rm", "-q", "dvc.lock")
    commit(board, "not run")
    assert refusal("main").startswith(
        "main has no dvc.lock: its pipeline was never run there; run it again: git checkout main"
    )
    with pytest.raises(
        DataError, match=r"^first: its dvc.lock knows no data/predictions/base\.jsonl: evaluate did not run"
    ):
        find_runs(["first"], "base")


SOUND = {"id": 1, "prompt": "p", "reference": "r", "prediction": "a", "f1": 0.5}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "main: it holds no rows; evaluate there again: dvc repro"),
        ([SOUND, SOUND], "row 2: id 1 again, as in row 1; each test row is answered once"),
        ([{**SOUND, "id": None}], "row 1: id is None; expected a number or a text"),
        ([SOUND, {"id": 2, "prompt": "p", "prediction": "a"}], "row 2: no reference; expected the text"),
        ([SOUND, {"id": 2, "prompt": "p", "reference": "r"}], "row 2: no prediction, unlike the rows before it"),
        ([{**SOUND, "f1": float("nan")}], "row 1: f1 is nan, no number to compare by"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_predictions("".join(json.dumps(row) + "\n" for row in rows).encode(), "main: it")
    assert message in str(caught.value)


def test_a_line_that_is_no_json_is_told_by_its_number() -> None:
    with pytest.raises(DataError, match=r"^main: it, line 2: not JSON"):
        parse_predictions(json.dumps(SOUND).encode() + b"\n{oops\n", "main: it")


def test_faulty_rows_are_told_by_revision_file_and_row(board: Path) -> None:
    commit_predictions(board, "doubled", [SOUND, SOUND])
    assert refusal("doubled").startswith("doubled: data/predictions/finetuned.jsonl, row 2: id 1 again, as in row 1;")
    assert len(predictions(board)) == 20


def test_outside_git_and_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal("main") == "no DVC project here: run the leaderboard in the project's root"
    dvc(tmp_path, "init", "-q", "--no-scm")
    assert refusal("main").startswith("revisions need the project in git, with a commit: ")


def test_a_git_repository_without_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    dvc(tmp_path, "init", "-q")
    monkeypatch.chdir(tmp_path)
    assert refusal("main").startswith("revisions need the project in git, with a commit: ")


def leaderboard(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python_in(folder, "pipeline.leaderboard", *arguments, PYTHONPATH=str(ROOT))


PRINTED = """\
2 configurations on the same 20 test rows, the best Token F1 first
main = HEAD~1 are one and the same run.

                                     Token F1    Exact match           BLEU  Held-out loss    Rating
 1 more                                   0.9            0.9          92.17            0.5      1051
   train.right=18                      0.75–1         0.75–1       79.6–100                1017–1095
   seed 0

 2 main = HEAD~1, seed-1                  0.6            0.6          66.14            0.5       949
   train.right=12                 0.425–0.775    0.425–0.775      49.3–81.8            ± 0   905–983
   seeds 0, 1                             ± 0            ± 0            ± 0

Below each figure its 95% interval over the test rows; ±: standard deviation over seeds.
Rating: Bradley-Terry by each row's Token F1, mean 1000; 400 points are odds of ten to one.

Token F1, row by row: the difference, its 95% interval, and p corrected for 1 pair (Holm)

1 against 2   better        +0.3     0.1 to 0.525      p 0.025    9 won, 9 tied, 2 lost

With all metrics and answers: metrics/leaderboard/leaderboard.html (in a browser)
"""


def test_the_command_prints_the_table_and_writes_the_folder(board: Path) -> None:
    done = leaderboard(board, "main", "more", "seed-1", "HEAD~1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == PRINTED
    out = board / "metrics/leaderboard"
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert leaderboard(board, "main", "more", "seed-1", "HEAD~1").returncode == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_what_is_wrong_is_said_without_a_traceback_and_nothing_is_written(board: Path) -> None:
    done = leaderboard(board, "main", "moer")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(
        "\nleaderboard stopped: moer: no revision of git and no experiment here; did you mean"
    )
    assert not (board / "metrics/leaderboard").exists()


def test_plain_text_and_questions_are_of_different_test_rows_not_of_different_metrics(board: Path) -> None:
    texts = [{"id": 0, "reference": "A text.", "loss": 1.0, "tokens": 3, "bytes": 7}]
    commit_predictions(board, "texts", texts, signature=None)
    done = leaderboard(board, "main", "texts")
    assert done.returncode == 1
    assert "all runs answered: main shares none with texts. Test rows: main 20, texts 1." in done.stderr
