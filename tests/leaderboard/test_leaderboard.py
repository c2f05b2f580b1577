"""The leaderboard on real git and DVC repositories: loading runs from cache and remote, error messages, output files."""

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.board import PREDICTIONS, commit, commit_details, commit_predictions, dvc, git, make_board, predictions
from support.project import ROOT, python_in, run_in

from pipeline.core.recorded_outputs import cached_object
from pipeline.errors import ConfigError, DataError
from pipeline.leaderboard.output import OUTPUT_FILES
from pipeline.leaderboard.runs import Run, load_runs, parse_predictions


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board of tests/support/board.py, pushed to a git remote and to a DVC remote that is newer than its experiments."""
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
    """A copy of the board and the current folder of the test."""
    folder = Path(shutil.copytree(shared / "board", tmp_path / "board", symlinks=True))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def clone(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone and the current folder of the test, without a cache or a configured DVC remote."""
    git(tmp_path, "clone", "-q", str(shared / "origin.git"), "clone")
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path / "clone"


def error_for(*names: str) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        load_runs([*names], "finetuned")
    return str(caught.value)


def correct_answers(run: Run) -> int:
    return sum(row["prediction"] != "no idea" for row in run.rows)


def test_branches_tags_ancestors_commits_experiments_and_workspace_are_loaded(board: Path) -> None:
    commits = {"main": git(board, "rev-parse", "main"), "HEAD~1": git(board, "rev-parse", "first"), "workspace": ""}
    short = commits["main"][:8]
    runs = {run.name: run for run in load_runs([*commits, "first", short, "more", "seed-1"], "finetuned")}
    assert {name: runs[name].commit for name in commits} == commits
    assert runs["first"].commit == commits["HEAD~1"]
    assert runs[short].commit == commits["main"]
    assert [correct_answers(run) for run in runs.values()] == [12, 12, 12, 12, 12, 18, 12]
    assert {len(run.rows) for run in runs.values()} == {20}


def test_run_has_its_parameters_inputs_and_metrics(board: Path) -> None:
    run = load_runs(["seed-1"], "finetuned")[0]
    assert run.params == {"train.seed": 1, "train.right": 12, "evaluate.first": 0, "evaluate.rows": 20}
    assert list(run.inputs) == ["work.py"]  # models/finetuned is written by train
    assert run.metrics["loss"] == 0.5


def test_metrics_come_from_the_cache_and_for_older_revisions_from_git(board: Path) -> None:
    details = commit_details(board, "new", loss=0.25)
    runs = load_runs(["main", "new", "workspace"], "finetuned")
    assert [run.metrics["loss"] for run in runs] == [0.5, 0.25, 0.25]
    assert all(run.metrics["signature"] == {"bleu": "v1"} for run in runs)
    digest = hashlib.md5(details.read_bytes()).hexdigest()
    (board / ".dvc/cache/files/md5" / digest[:2] / digest[2:]).unlink()
    assert error_for("new").startswith(
        "new: metrics/details/evaluate/finetuned.json is not in the local cache, and no DVC remote is configured"
    )


def test_fresh_clone_reads_from_the_currently_configured_dvc_remote(shared: Path, clone: Path) -> None:
    assert (
        "main: data/predictions/finetuned.jsonl is not in the local cache, and no DVC remote is configured"
        in error_for("main")
    )
    dvc(clone, "remote", "add", "-q", "-d", "store", str(shared / "store"))
    # The commits are older than the remote, so their DVC config does not contain it.
    assert [correct_answers(run) for run in load_runs(["main", "first"], "finetuned")] == [12, 12]


def test_pulled_experiment_gets_its_predictions_from_the_remote(shared: Path, clone: Path) -> None:
    assert "more: no git revision or experiment has this name" in error_for("more")
    assert "To get an experiment from the git remote: dvc exp pull origin more" in error_for("more")
    dvc(clone, "exp", "pull", "-q", "--no-cache", "origin", "more")
    store = clone / "store-of-more"
    dvc(clone, "remote", "add", "-q", "-d", "store", str(store))
    message = error_for("more")
    assert f"neither in the local cache nor on the DVC remote store ({store})" in message
    assert "dvc exp push origin more" in message
    assert "dvc exp apply more" in message
    shutil.copytree(shared / "board/.dvc/cache/files", store / "files")
    assert correct_answers(load_runs(["more"], "finetuned")[0]) == 18


def test_unknown_names_are_reported_together_with_suggestions(board: Path) -> None:
    message = error_for("moer", "main", "HEAD~7", "zzz", "")
    assert message.startswith(
        "4 revisions cannot be compared:\n  moer: no git revision or experiment has this name; did you mean"
    )
    assert "more?" in message
    assert "HEAD~7: the git history here does not go back that far" in message
    assert (
        "zzz: no git revision or experiment has this name. To list them: git branch -a, git tag, dvc exp list -A."
        in message
    )
    assert "a revision has an empty name; the current commit is HEAD" in message


def test_experiments_with_the_same_name_need_their_commit(board: Path) -> None:
    base = git(board, "rev-parse", "first")
    refs = {name: git(board, "rev-parse", f"refs/exps/{base[:2]}/{base[2:]}/{name}") for name in ("more", "seed-1")}
    other = git(board, "rev-parse", refs["seed-1"])
    git(board, "update-ref", f"refs/exps/{other[:2]}/{other[2:]}/more", refs["seed-1"])
    assert error_for("more") == "more: several experiments have this name; give the commit instead (dvc exp list -A)"
    assert correct_answers(load_runs([refs["more"]], "finetuned")[0]) == 18


def test_workspace_that_does_not_match_the_lock_is_rejected(board: Path) -> None:
    (board / PREDICTIONS).write_text('{"id": 1, "reference": "a", "prediction": "b"}\n')
    message = error_for("workspace")
    assert message.startswith("workspace: data/predictions/finetuned.jsonl does not match dvc.lock (its MD5 is ")
    assert message.endswith("Restore it: dvc checkout data/predictions/finetuned.jsonl. Or run it again: dvc repro")


def object_of(board: Path) -> Path:
    """The predictions of the present commit in DVC's cache."""
    return cached_object(hashlib.md5((board / PREDICTIONS).read_bytes()).hexdigest())


def forge(path: Path) -> None:
    path.write_text(path.read_text().replace('"no idea"', '"it is"'))


def cut(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:12]))


@pytest.mark.parametrize("damage", [forge, cut])
@pytest.mark.parametrize("name", ["HEAD", "workspace"])
def test_damaged_object_is_noticed_and_the_message_heals_it(
    board: Path, name: str, damage: Callable[[Path], None]
) -> None:
    path = object_of(board)
    path.chmod(0o644)
    damage(path)
    shutil.copy(path, board / PREDICTIONS)
    path.chmod(0o444)
    message = error_for(name)
    assert message.startswith(f"{name}: data/predictions/finetuned.jsonl does not match dvc.lock (its MD5 is ")
    assert f"DVC's cached copy is damaged. Remove it: rm -f {path}. Then get it from the remote: dvc pull" in message
    path.unlink()
    (board / PREDICTIONS).unlink()
    dvc(board, "repro", "-q")
    assert len(load_runs(["HEAD", "workspace"], "finetuned")) == 2


def test_damaged_copy_on_the_remote_is_noticed(shared: Path, clone: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(shared / "store", tmp_path / "store"))
    for path in store.rglob("*"):
        if path.is_file() and b"no idea" in path.read_bytes():
            path.chmod(0o644)
            forge(path)
    dvc(clone, "remote", "add", "-q", "-d", "store", str(store))
    assert "the copy on the DVC remote is damaged. Push it again from where it was run" in error_for("HEAD")


def test_rows_that_evaluate_did_not_measure_are_rejected(board: Path) -> None:
    path = board / "metrics/evaluate/finetuned.json"
    path.write_text(path.read_text().replace('"rows": 20', '"rows": 25'))
    commit(board, "other metrics")
    assert error_for("HEAD").startswith("HEAD: data/predictions/finetuned.jsonl has 20 rows, but evaluate measured 25:")


def test_lock_with_merge_conflicts_is_one_message(board: Path) -> None:
    (board / "dvc.lock").write_text("<<<<<<< HEAD\n" + (board / "dvc.lock").read_text() + "=======\n>>>>>>> other\n")
    assert error_for("workspace").startswith("workspace: dvc.lock has merge conflicts")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/path", "DVC cannot read the remote: s3 is supported, but requires 'dvc-s3' to be installed."),
        ("/gone/store", "neither in the local cache nor on the DVC remote store (/gone/store)"),
        (
            "http://127.0.0.1:9/store",
            "neither in the local cache nor on the DVC remote store (http://127.0.0.1:9/store)",
        ),
    ],
)
def test_remote_that_cannot_be_read_is_one_message(clone: Path, url: str, message: str) -> None:
    dvc(clone, "remote", "add", "-q", "-d", "store", url)
    assert message in error_for("HEAD")


def test_revision_that_was_never_run_is_rejected(board: Path) -> None:
    git(board, "rm", "-q", "dvc.lock")
    commit(board, "not run")
    assert error_for("main").startswith(
        "main: no dvc.lock, so the pipeline was never run there; run it: git checkout main (for an experiment: "
    )
    with pytest.raises(
        DataError, match=r"^first: dvc.lock does not list data/predictions/base\.jsonl, so it was never written there"
    ):
        load_runs(["first"], "base")


VALID = {"id": 1, "prompt": "p", "reference": "r", "prediction": "a", "f1": 0.5}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "main: file has no rows; run evaluate there again: dvc repro"),
        ([VALID, VALID], "row 2: id 1 is already in row 1; expected one row per test row"),
        ([{**VALID, "id": None}], "row 1: id is None; expected a number or string"),
        ([VALID, {"id": 2, "prompt": "p", "prediction": "a"}], "row 2: no reference; expected the text"),
        ([VALID, {"id": 2, "prompt": "p", "reference": "r"}], "row 2: no prediction, unlike the rows before it"),
        ([{**VALID, "f1": float("nan")}], "row 1: f1 is nan; expected a finite number"),
    ],
)
def test_invalid_rows_are_rejected(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_predictions("".join(json.dumps(row) + "\n" for row in rows).encode(), "main: file")
    assert message in str(caught.value)


def test_error_for_invalid_json_names_the_line() -> None:
    with pytest.raises(DataError, match=r"^main: file, line 2: not JSON"):
        parse_predictions(json.dumps(VALID).encode() + b"\n{oops\n", "main: file")


def test_error_for_invalid_rows_names_revision_file_and_row(board: Path) -> None:
    commit_predictions(board, "doubled", [VALID, VALID])
    assert error_for("doubled").startswith(
        "doubled: data/predictions/finetuned.jsonl, row 2: id 1 is already in row 1;"
    )
    assert len(predictions(board)) == 20


def test_error_outside_a_git_or_dvc_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_for("main") == "no DVC project here; run this command in the project's root"
    dvc(tmp_path, "init", "-q", "--no-scm")
    assert error_for("main").startswith("this command needs a git repository with at least one commit: ")


def test_error_in_a_git_repository_without_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    dvc(tmp_path, "init", "-q")
    monkeypatch.chdir(tmp_path)
    assert error_for("main").startswith("this command needs a git repository with at least one commit: ")


def leaderboard(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python_in(folder, "pipeline.leaderboard", *arguments, PYTHONPATH=str(ROOT))


PRINTED = """\
2 configurations on the same 20 test rows, ranked by Token F1
main = HEAD~1: names of the same run.

                                     Token F1    Exact match           BLEU  Held-out loss    Rating
 1 more                                   0.9            0.9          92.17            0.5      1051
   train.right=18                      0.75–1         0.75–1       79.6–100                1017–1095
   seed 0

 2 main = HEAD~1, seed-1                  0.6            0.6          66.14            0.5       949
   train.right=12                 0.425–0.775    0.425–0.775      49.3–81.8            ± 0   905–983
   seeds 0, 1                             ± 0            ± 0            ± 0

Below each value: its 95% interval over the test rows; ±: standard deviation over seeds.
Rating: Bradley-Terry on Token F1 per row; mean 1000, 400 points are odds of ten to one.

Difference in Token F1, its 95% interval, p (Holm-corrected over 1 pair), rows won, tied and lost

1 better than 2         +0.3     0.1 to 0.525      p 0.025    1 won 9, tied 9, lost 2

All metrics: metrics/leaderboard/leaderboard.html (open it in a browser)
All answers: metrics/leaderboard/answers.csv
"""


def test_the_command_prints_the_table_and_writes_the_folder(board: Path) -> None:
    done = leaderboard(board, "main", "more", "seed-1", "HEAD~1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == PRINTED
    out = board / "metrics/leaderboard"
    assert sorted(path.name for path in out.iterdir()) == sorted(OUTPUT_FILES)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert leaderboard(board, "main", "more", "seed-1", "HEAD~1").returncode == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_closed_pipe_does_not_lose_the_files(board: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m pipeline.leaderboard main more | true; echo ${{PIPESTATUS[0]}}"
    done = run_in(board, "bash", "-c", command, PYTHONPATH=str(ROOT))
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert sorted(path.name for path in (board / "metrics/leaderboard").iterdir()) == sorted(OUTPUT_FILES)


def test_error_has_no_traceback_and_writes_nothing(board: Path) -> None:
    done = leaderboard(board, "main", "moer")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(
        "\nleaderboard stopped: moer: no git revision or experiment has this name; did you mean"
    )
    assert not (board / "metrics/leaderboard").exists()


def test_plain_text_shares_no_test_rows_with_questions(board: Path) -> None:
    texts = [{"id": 0, "reference": "A text.", "loss": 1.0, "tokens": 3, "bytes": 7}]
    commit_predictions(board, "texts", texts, signature=None)
    done = leaderboard(board, "main", "texts")
    assert done.returncode == 1
    assert "is in all runs: main shares none with texts. Test rows: 20 in main, 1 in texts." in done.stderr
