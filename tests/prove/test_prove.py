"""Prove kills real processes; on stages of the project, and on small scripts that recover, differ or fail on purpose."""

import shutil
from pathlib import Path

import pytest
from support.commands import run_main
from support.project import forking_environment

from pipeline.errors import PipelineError
from pipeline.prove import cli, kills
from pipeline.prove.faults import FAULTS, Fault
from pipeline.prove.stages import load_stages, select_stages

# A stage that waits for its fault when its folder has no mark yet; the next run finds the mark and finishes.
SCRIPT = """
import os, signal
from pathlib import Path

mark = Path(os.environ["CHECKPOINT_ROOT"], "mark")
resumed = mark.exists()
mark.touch()
print("begins", flush=True)
if Path.cwd().name.startswith("killed") and not resumed:
    while True:
        {wait}
{finish}
mark.unlink()
"""
WAITING = {"SIGKILL": "signal.pause()", "SIGTERM": "signal.pause()", "SIGINT": "signal.pause()"}
WAITING["full disk"] = "Path('growing').open('ab', 0).write(b'x')"
EQUAL = "Path('growing').unlink(missing_ok=True); Path('result.txt').write_text(Path('input.txt').read_text())"
GRAPH = "stages:\n  only:\n    cmd: python stage.py\n    deps: [stage.py, input.txt]\n    outs: [result.txt, folder/more.txt]\n"


@pytest.fixture
def fake_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project with one stage, `only`, that runs stage.py."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "input.txt").write_text("an input\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_script(folder: Path, kind: str, finish: str) -> None:
    (folder / "stage.py").write_text(SCRIPT.format(wait=WAITING[kind], finish=finish))


@pytest.fixture(params=FAULTS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A kind of fault, which hits as soon as the stage has printed its first line."""
    faults = [Fault(request.param, 0.0, after_first_line=True)]
    monkeypatch.setattr(kills, "draw_faults", lambda *_: faults)
    return str(request.param)


def test_each_fault_ends_a_stage_that_recovers_with_equal_files(fake_project: Path, kind: str) -> None:
    write_script(fake_project, kind, EQUAL)
    (proof,) = cli.prove(["only"], 1, 0, [])
    assert (proof.is_equal, proof.files, [fault.kind for fault in proof.faults]) == (True, 1, [kind])
    assert list(fake_project.joinpath(".checkpoints").iterdir()) == []
    assert not (fake_project / "result.txt").exists()


@pytest.mark.parametrize(
    ("finish", "differing"),
    [
        (EQUAL.replace("'input.txt').read_text()", "'input.txt').read_text() + str(resumed)"), "result.txt"),
        (EQUAL + "\nif resumed: Path('left_over.tmp').touch()", "left_over.tmp"),
        ("if not resumed: " + EQUAL, "result.txt"),
    ],
)
def test_files_that_differ_are_named_and_kept(
    fake_project: Path, finish: str, differing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [Fault("SIGKILL", 0.0, after_first_line=True)]
    monkeypatch.setattr(kills, "draw_faults", lambda *_: faults)
    write_script(fake_project, "SIGKILL", finish)
    (proof,) = cli.prove(["only"], 1, 0, [])
    assert proof.differing == [differing]
    assert cli.format_proofs([proof])[-2:] == [
        "only, after these kills: SIGKILL after 0.0 s of work",
        f"  {differing} differs from the undisturbed run's",
    ]
    (kept,) = (fake_project / ".checkpoints").iterdir()
    assert sorted(path.name for path in (kept / "only").iterdir()) == ["killed-1", "undisturbed"]


def test_stage_that_does_not_recover_is_reported_with_its_output(
    fake_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [Fault("SIGKILL", 0.0, after_first_line=True)]
    monkeypatch.setattr(kills, "draw_faults", lambda *_: faults)
    write_script(fake_project, "SIGKILL", "if resumed: raise SystemExit('the checkpoint is unreadable')\n" + EQUAL)
    (proof,) = cli.prove(["only"], 1, 0, [])
    assert not proof.is_equal
    assert proof.failure == "begins\nthe checkpoint is unreadable"
    assert cli.format_proofs([proof])[1].split() == ["only", "1", "1", "failed"]


def test_stage_that_fails_undisturbed_is_an_error(fake_project: Path) -> None:
    write_script(fake_project, "SIGKILL", "raise SystemExit('no such column')")
    with pytest.raises(PipelineError, match="only fails without any kill:\nbegins\nno such column"):
        cli.prove(["only"], 1, 0, [])
    assert list(fake_project.joinpath(".checkpoints").iterdir()) == []


def test_folders_of_a_killed_prove_are_removed(fake_project: Path) -> None:
    (fake_project / ".checkpoints/prove-4194305/only").mkdir(parents=True)  # above the greatest process id of Linux
    with cli.temporary_root() as root:
        assert list(root.parent.iterdir()) == [root]


@pytest.fixture
def tiny_project(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project after `dvc repro`, in which commands are forked with imports done."""
    for name, value in forking_environment().items():
        monkeypatch.setenv(name, value)
    return clone


def files_of(folder: Path) -> dict[str, bytes]:
    roots = [folder / name for name in ("data", "models", "metrics", "dvc.lock")]
    files = [file for root in roots for file in [root, *root.rglob("*")] if file.is_file()]
    return {str(file): file.read_bytes() for file in files}


def test_twenty_kills_over_all_stages_end_with_equal_files(tiny_project: Path) -> None:
    before = files_of(tiny_project)
    overrides = ["train.epochs=2", "train.eval_steps=5", "train.dropout=0.1"]
    proofs = [*cli.prove(["all"], 2, 0, []), *cli.prove(["train"], 2, 1, overrides)]
    assert [proof.stage for proof in proofs if not proof.is_equal] == []
    assert sum(len(proof.faults) for proof in proofs) == 20
    assert files_of(tiny_project) == before
    assert list(Path(".checkpoints").iterdir()) == []


def test_stages_are_selected_by_name_in_the_order_of_the_graph(tiny_project: Path) -> None:
    stages = load_stages()
    names = [stage.name for stage in select_stages(stages, ["compare", "evaluate", "fetch@model"])]
    assert names == ["fetch@model", "evaluate@base", "evaluate@finetuned", "compare"]


def test_a_time_limit_is_known_from_parameters_and_overrides(tiny_project: Path) -> None:
    assert cli.time_limit([]) == ""
    assert cli.time_limit(["train.max_minutes=3", "train.seed=1"]) == "3"
    path = tiny_project / "params.yaml"
    path.write_text(path.read_text().replace("max_minutes: null", "max_minutes: 30"))
    assert cli.time_limit(["train.seed=1"]) == "30"
    assert cli.time_limit(["train.max_minutes=null"]) == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stages", "trian"], "--stages: unknown: trian; the stages are all, clean, compare,"),
        (["--kills", "0"], "--kills: 0; expected a positive number"),
        (["--stages", "clean", "clean.typo=1"], "clean fails without any kill:"),
    ],
)
def test_wrong_arguments_are_one_message(
    clone: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, error = run_main(cli.main, ["prove", *words], monkeypatch, capsys)
    assert (code, error.count("prove stopped")) == (1, 1)
    assert message in error


def test_missing_inputs_and_a_folder_without_project_are_one_message(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("data/tokenized")
    code, _, error = run_main(cli.main, ["prove", "--stages", "train"], monkeypatch, capsys)
    assert (code, error) == (
        1,
        "\nprove stopped: train reads data/tokenized, which does not exist; run the pipeline first: dvc repro\n",
    )
    monkeypatch.chdir(tmp_path)
    code, _, error = run_main(cli.main, ["prove"], monkeypatch, capsys)
    assert (code, error.count("\n")) == (1, 2)
