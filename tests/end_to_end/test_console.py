"""Output of the commands: lines for each step and its result, and a progress bar only in a terminal."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path

from support.project import forking_environment, python_in


def run_in_terminal(folder: Path, *command: str) -> str:
    """The output of `python -m …` in a terminal of 100 columns and 40 lines."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(
        ["python", "-m", *command],
        cwd=folder,
        env=forking_environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    output = b""
    try:
        while part := os.read(controller, 65536):
            output += part
    except OSError:  # the process has closed the terminal
        pass
    os.close(controller)
    assert process.wait() == 0, output.decode()
    return output.decode()


def test_a_stage_prints_what_it_does_and_the_result(in_built: Path) -> None:
    done = python_in(in_built, "pipeline.clean")
    assert (done.stdout, done.stderr) == (
        "Cleaning 240 rows: question ← Description, answer ← Doctor\n"
        "147 of 240 rows kept; dropped: 4 empty, 9 boilerplate, 80 duplicate; changed: 9 with text stripped from the end "
        "→ data/clean/\n",
        "",
    )


def test_a_terminal_shows_a_progress_bar_with_its_rate(in_built: Path) -> None:
    output = run_in_terminal(in_built, "pipeline.clean")
    assert "clean:   0%|" in output
    assert "row/s]" in output


def test_training_prints_each_evaluation_and_more_in_verbose_mode(in_built: Path) -> None:
    quiet = python_in(in_built, "pipeline.train", "train.max_steps=4", "train.eval_steps=2")
    assert quiet.stderr == ""
    lines = quiet.stdout.splitlines()
    assert lines[0].startswith("Training GPTNeoXForCausalLM with 51,072 parameters on ")
    assert lines[0].endswith(" rows: 4 steps of 8 rows, fp32 on cpu")
    assert [line.split("  ")[0] for line in lines[1:-1]] == ["step 0/4", "step 2/4", "step 4/4"]
    assert all("validation_loss" in line for line in lines[1:-1])
    assert lines[-1].startswith("Validation loss: ")
    assert lines[-1].endswith("of 4, whose weights were saved to models/finetuned/")

    verbose = python_in(in_built, "pipeline.train", "train.max_steps=4", "hydra.verbose=true").stdout
    assert "checkpoints in " in verbose
    assert "step 2/4  loss " in verbose
    assert "GB of memory" in verbose
