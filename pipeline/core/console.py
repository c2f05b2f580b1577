"""Text for the console. Control characters in it are shown, so that data cannot act on the terminal.

Cells, column names, file names and answers are text that others wrote. An escape sequence in it could clear the screen, retitle
the window, write to the clipboard or overwrite a line. So whatever a command prints goes through `printable`: log lines by
`PrintableFormatter` (conf/hydra/job_logging), errors by `core.entrypoint.report_errors`, and anything else by
`print(printable(text))`.
"""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# The control characters of C0 (except tab and line feed), DEL and C1; what reorders text; what breaks lines beside \n; lone
# surrogates, which no console can encode.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")
PREVIEW_WIDTH = 110


def printable(text: str) -> str:
    r"""The text with its control characters as Python writes them. Tabs, line feeds and all other characters stay.

    >>> print(printable("red: \x1b[31m, back: \b, CSI: \x9b, right to left: \u202e, Fièvre 流感"))
    red: \x1b[31m, back: \x08, CSI: \x9b, right to left: \u202e, Fièvre 流感
    """
    return UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def preview(text: str, width: int = PREVIEW_WIDTH) -> str:
    r"""The beginning of a text of any length, printable, on one line of at most `width` characters.

    >>> preview("Is it\n\n  flu?"), preview("Rest and drink water.", 16), preview("流感是病" * 9, 10)
    ('Is it flu?', 'Rest and drink …', '流感是病流感是病 …')
    """
    beginning = text[: 10 * width]  # whatever follows a long run of spaces is not worth reading megabytes for
    line = printable(" ".join(beginning.split()))
    if len(line) <= width and len(beginning) == len(text):
        return line
    cut = line[: width - 1]
    at_word, space, _ = cut.rpartition(" ")
    return (at_word if space and len(at_word) > width // 2 else cut[: width - 2]) + " …"


@contextmanager
def ignore_closed_pipe() -> Iterator[None]:
    """Let a command go on, and write its files, when the program that reads its output has ended: `… | head`."""
    streams = (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = (_Pipe(stream) for stream in streams)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams


class _Pipe:
    """A standard stream whose file becomes the null device once nobody reads it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            return self._give_up(len(text))

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._give_up(0)

    def _give_up(self, written: int) -> int:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        return written


class PrintableFormatter(logging.Formatter):
    """Formats log records, tracebacks included, as `printable` text."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
