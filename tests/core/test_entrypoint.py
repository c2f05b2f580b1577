"""pipeline/core/entrypoint.py: errors that a user can fix become one message, defects keep their traceback."""

import errno
import os

import pytest

from pipeline.core.entrypoint import report_errors
from pipeline.errors import ConfigError

REPORTED = {
    "pipeline error": (ConfigError("train.seed: missing"), "train.seed: missing"),
    "missing file": (
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "data/raw/rows.parquet"),
        "data/raw/rows.parquet does not exist; an earlier stage writes it: dvc repro",
    ),
    "full disk": (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "models/finetuned"),
        "models/finetuned: No space left on device. Check disk space and permissions, then run it again",
    ),
    "interrupt": (KeyboardInterrupt(), "interrupted"),
    "control characters": (
        OSError(errno.EACCES, os.strerror(errno.EACCES), "rows\x1b[2J.csv"),
        r"rows\x1b[2J.csv: Permission denied. Check disk space and permissions, then run it again",
    ),
}


@pytest.mark.parametrize(("error", "message"), REPORTED.values(), ids=REPORTED)
def test_error_becomes_one_message_and_exit_code_1(
    error: BaseException, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    with pytest.raises(SystemExit) as stopped, report_errors("train"):
        raise error
    assert stopped.value.code == 1
    assert capsys.readouterr().err == f"\ntrain stopped: {message}\n"


def test_under_dvc_the_message_shows_how_to_restore_outputs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "train")
    with pytest.raises(SystemExit), report_errors("train"):
        raise ConfigError("train.seed: missing")
    assert capsys.readouterr().err.endswith("  dvc checkout\n  git restore metrics\n")


@pytest.mark.parametrize("defect", [ZeroDivisionError("a defect"), OSError("no errno")], ids=["defect", "no errno"])
def test_defect_keeps_its_traceback(defect: Exception) -> None:
    with pytest.raises(type(defect), match=str(defect)), report_errors("train"):
        raise defect


def test_traceback_of_a_defect_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, report_errors("train"):
        raise ValueError("cell \x1b[2J")
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("\ntrain stopped: a defect of this project\nTraceback (most recent call last):\n")
    assert error.endswith("ValueError: cell \\x1b[2J\n")
