"""What a person sees: lines that say what is done and what came of it, a bar only where there is a terminal."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

from support.project import environment, python_in


def in_terminal(folder: Path, *command: str) -> str:
    """What a command shows in a terminal of 100 columns and 40 lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0, shown.decode()
    return shown.decode()


def test_a_stage_says_what_it_does_and_what_came_of_it(in_built: Path) -> None:
    done = python_in(in_built, "pipeline.clean")
    assert (done.stdout, done.stderr) == (
        "Cleaning 240 rows: question ← Description, answer ← Doctor\n"
        "147 of 240 rows kept; dropped: 4 empty, 9 boilerplate, 80 duplicate; changed: 9 stripped → data/clean/\n",
        "",
    )


def test_a_terminal_shows_a_bar_with_rate_and_time_left(in_built: Path) -> None:
    shown = in_terminal(in_built, "pipeline.clean")
    assert "clean:   0%|" in shown
    assert "row/s]" in shown


def test_training_tells_each_evaluation_and_more_when_asked(in_built: Path) -> None:
    quiet = python_in(in_built, "pipeline.train", "train.max_steps=4", "train.eval_steps=2")
    assert quiet.stderr == ""
    lines = quiet.stdout.splitlines()
    assert lines[0].startswith("Training GPTNeoXForCausalLM with 51,072 parameters on ")
    assert lines[0].endswith(" rows: 4 steps of 8 rows, fp32 on cpu")
    assert [line.split("  ")[0] for line in lines[1:-1]] == ["step 0/4", "step 2/4", "step 4/4"]
    assert all("validation_loss" in line for line in lines[1:-1])
    assert lines[-1].endswith("of 4 → models/finetuned/")

    verbose = python_in(in_built, "pipeline.train", "train.max_steps=4", "hydra.verbose=true").stdout
    assert "checkpoints in " in verbose
    assert "step 2/4  loss " in verbose
    assert "GB of memory" in verbose
