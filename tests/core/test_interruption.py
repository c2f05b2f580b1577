"""Commands that are ended by real signals, while they import and while they work."""

import signal
import subprocess
from pathlib import Path

import pytest
from support.interruptions import start_stage, wait_for_line
from support.project import environment

# A library whose import never ends.
BLOCKING = "import signal\nprint('importing', flush=True)\nwhile True:\n    signal.pause()\n"
COMMANDS = ["fetch", "clean", "train", "evaluate", "compare", "compose", "leaderboard", "prove", "start"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", COMMANDS)
def test_signal_during_imports_is_one_line(tmp_path: Path, command: str, number: signal.Signals) -> None:
    (tmp_path / "yaml.py").write_text(BLOCKING)
    (tmp_path / "hydra.py").write_text(BLOCKING)
    (tmp_path / "psutil.py").write_text(BLOCKING)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        ["python", "-m", f"pipeline.{command}"],
        cwd=root,
        env=environment(PYTHONPATH=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_line(process, "importing")
    process.send_signal(number)
    _, error = process.communicate()
    reason = "interrupted" if number == signal.SIGINT else "terminated by SIGTERM"
    assert (process.returncode, error) == (128 + number, f"\n{command} stopped: {reason}\n")


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated by SIGTERM")]
)
def test_signal_to_a_working_stage_is_one_line_and_leaves_no_files(
    in_built: Path, number: signal.Signals, reason: str
) -> None:
    process = start_stage(in_built, "pipeline.evaluate", "instance=base", "evaluate.max_new_tokens=48")
    wait_for_line(process, "Generating answers")
    process.send_signal(number)
    _, error = process.communicate()
    assert (process.returncode, error) == (1, f"\nevaluate stopped: {reason}\n")
    assert not (in_built / "data/predictions").exists()


def test_ignored_signals_stay_ignored(in_built: Path) -> None:
    """nohup and a shell's background jobs ignore signals for the commands that they start."""
    command = "trap '' TERM; exec python -m pipeline.clean"
    process = subprocess.Popen(
        ["bash", "-c", command],
        cwd=in_built,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_line(process, "Cleaning")
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate()
    assert (process.returncode, error) == (0, "")


def test_an_import_by_other_code_leaves_its_signals_alone() -> None:
    import pipeline.core.interruption  # noqa: F401

    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
