"""Output of the commands: lines for each step and its result, and a progress bar only in a terminal."""

import csv
import fcntl
import itertools
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
import yaml
from support.project import TINY, forking_environment, python_in

ATTACKS = (
    "\x1b[2J\x1b[H",  # clears the screen
    "\x1b]52;c;cm0=\x07",  # writes to the clipboard
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",  # a link
    "\x9b31m",  # the 8-bit form of escape and [
    "1 error\r0 errors",
    "no\x08\x08yes",
    "\u202egnp.exe",
)
HOSTILE = ("data=hostile", *(override for override in TINY if not override.startswith("data.")))
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\u2066-\u2069]")


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
        "  83 with collapsed whitespace, such as row 0: '…that you can\\tbarely talk.' → '…that you can barely talk.'\n"
        "  238 without a prefix of the question, such as row 0: 'Q. When is hay …' → 'When is hay …'\n"
        "  9 with text stripped from the end, such as row 33: "
        "'Hello. For further doubts consult a neurologist online -->' → 'Hello.'\n"
        "147 of 240 rows kept; dropped: 4 empty, 9 boilerplate, 80 duplicate; changed: 83 with collapsed whitespace, "
        "238 without a prefix of the question, 9 with text stripped from the end → data/clean/\n",
        "",
    )


def test_a_terminal_shows_a_progress_bar_with_its_rate(in_built: Path) -> None:
    output = run_in_terminal(in_built, "pipeline.clean")
    assert "clean:   0%|" in output
    assert "row/s]" in output


def write_hostile_data(folder: Path, question: str = "Q\x1b[2J") -> None:
    """Make rows whose file name, column names and cells have control characters the data of params.yaml."""
    words = [
        "printer",
        "screen",
        "mouse",
        "keyboard",
        "window",
        "login",
        "password",
        "mail",
        "disk",
        "cable",
        "phone",
        "router",
    ]
    with (folder / "rows\x1b[31m.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Q\x1b[2J", "A\x9b1m", "other\u202e"])
        for number, pair in enumerate(itertools.permutations(words, 2)):
            attack = ATTACKS[number % len(ATTACKS)]
            rows.writerow([f"Why does {attack} the {' '.join(pair)} fail?", f"{attack} Restart it. {attack}", attack])
    option = yaml.safe_load((folder / "conf/data/file.yaml").read_text(encoding="utf-8"))
    option |= {"path": "rows\x1b[31m.csv", "sha256": None, "columns": {"question": question, "answer": "A\x9b1m"}}
    (folder / "conf/data/hostile.yaml").write_text(yaml.safe_dump(option, sort_keys=False), encoding="utf-8")


@pytest.mark.parametrize("verbose", ["false", "true"])
def test_control_characters_of_the_data_never_reach_the_console(in_built: Path, verbose: str) -> None:
    write_hostile_data(in_built)
    stages = [("compose", *HOSTILE), ("fetch", "instance=data"), ("clean",), ("format",), ("tokenize",)]
    for stage, *arguments in stages:
        verbosity = [] if stage == "compose" else [f"hydra.verbose={verbose}"]
        done = python_in(in_built, f"pipeline.{stage}", *arguments, *verbosity)
        assert done.returncode == 0, done.stderr
        assert not CONTROLS.search(done.stdout + done.stderr)
        assert stage != "clean" or r"Cleaning 132 rows: question ← Q\x1b[2J, answer ← A\x9b1m" in done.stdout


def test_control_characters_in_an_error_are_shown(in_built: Path) -> None:
    write_hostile_data(in_built, question="P\x1b[2J")
    done = python_in(in_built, "pipeline.compose", *HOSTILE)
    assert done.returncode == 1
    assert not CONTROLS.search(done.stdout + done.stderr)
    assert r"P\x1b[2J" in done.stderr
    assert r"Q\x1b[2J" in done.stderr


def test_training_prints_each_evaluation_and_more_in_verbose_mode(in_built: Path) -> None:
    quiet = python_in(in_built, "pipeline.train", "train.max_steps=4", "train.eval_steps=2", "train.warmup_steps=0")
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
