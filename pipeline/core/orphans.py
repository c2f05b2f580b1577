"""A stage ends when the process that started it has been killed, so that it never meets its successor's files.

Killing dvc by SIGKILL leaves its stage running, and killing torchrun leaves its workers. The next run would write the same
outputs at the same time, perhaps from other parameters.
"""

import atexit
import os
import sys
import threading

import psutil

from pipeline.core.distributed import is_distributed
from pipeline.core.interruption import STARTED_BY

SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish"}  # between dvc and a stage, unless they have replaced themselves
INTERVAL = 0.2  # seconds between two looks at the parents
_parents: list[int] = []  # that this process must not outlive; empty: it may
_ending = threading.Event()  # set when the interpreter starts to end


def watch_parents() -> None:
    """End this process soon after its parent has ended. A stage that was started by hand may outlive its shell."""
    if _parents or not ("DVC_STAGE" in os.environ or is_distributed()):
        return
    _parents.extend(_living_parents())
    exit_if_orphaned()
    thread = threading.Thread(target=_watch, daemon=True)
    thread.start()
    atexit.register(_end_watch, thread)


def _living_parents() -> list[int]:
    """The process's parent and, if that is a shell, the shell's parent."""
    parent = os.getppid()
    try:
        shell = psutil.Process(parent)
        return [parent, shell.ppid()] if shell.name() in SHELLS else [parent]
    except psutil.Error:
        return [parent]


def _watch() -> None:
    while not _ending.wait(INTERVAL):
        exit_if_orphaned()


def _end_watch(thread: threading.Thread) -> None:
    """Wait for a look that is under way: it would fail once the interpreter has removed its modules."""
    _ending.set()
    thread.join()


def exit_if_orphaned() -> None:
    """End this process at once, without any clean-up, if a parent that it must not outlive has ended."""
    if _parents and (os.getppid() != STARTED_BY or _living_parents() != _parents):
        sys.stderr.write("\nstopped: the process that started this one has ended\n")
        sys.stderr.flush()
        os._exit(1)
