"""Signals that end a command: one message and no traceback, also while the command still imports its libraries.

Each command imports this module first. It needs the standard library alone, so from the first moments on Ctrl-C and SIGTERM
raise SignalReceived, which removes temporary files on its way (see core.files) and becomes the command's message.
"""

import os
import signal
import sys
from itertools import pairwise
from types import FrameType, TracebackType

STARTED_BY = os.getppid()  # see core.orphans


class SignalReceived(KeyboardInterrupt):
    """A signal that ends this process. It is a KeyboardInterrupt, so that libraries treat it like Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return "interrupted" if self.number == signal.SIGINT else f"terminated by {signal.Signals(self.number).name}"


def raise_signal_received(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
    raise SignalReceived(number)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print errors as Python does, except for a signal during imports."""
    if not isinstance(error, SignalReceived):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stdout.flush()
    sys.stderr.write(f"\n{_command()} stopped: {error}\n")
    sys.stderr.flush()
    os._exit(128 + error.number)  # Python itself would end every one of them as if by Ctrl-C


def _command() -> str:
    """The command's name, from `-m pipeline.NAME`."""
    return sys.orig_argv[sys.orig_argv.index("-m") + 1].removeprefix("pipeline.")


def _is_command() -> bool:
    """Whether this process runs `python -m pipeline.NAME`. Other programs that import the package keep their signals."""
    words = sys.orig_argv
    return any(flag == "-m" and name.startswith("pipeline.") for flag, name in pairwise(words))


if _is_command():
    sys.excepthook = _report
    # torchrun stops its workers by SIGTERM and reports the first cause itself.
    for number in (signal.SIGINT,) if "LOCAL_RANK" in os.environ else (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background job
            signal.signal(number, raise_signal_received)
