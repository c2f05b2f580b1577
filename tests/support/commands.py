"""Runs a command's `main` in the process of the test."""

from collections.abc import Callable

import pytest


def run_main(
    main: Callable[[], None], words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of `main` with these words as the command line, the command first."""
    monkeypatch.setattr("sys.argv", words)
    try:
        main()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    return code, *capsys.readouterr()
