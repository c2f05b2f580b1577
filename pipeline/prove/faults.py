"""Faults that end a running stage: the signals that users, schedulers and systems send, and a full disk."""

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

FULL_DISK = "full disk"
ALL_KILLED = "SIGKILL of all"  # of a process and its children, as in a power cut
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
# Only Linux can take away a running process's right to write files.
FAULTS = (*SIGNALS, FULL_DISK) if hasattr(resource, "prlimit") else SIGNALS


class Fault(NamedTuple):
    kind: str  # one of FAULTS, or ALL_KILLED
    seconds: float
    after_first_line: bool = False  # the seconds count from the first line of output, else from the start


class Ending(NamedTuple):
    """How a process ended."""

    code: int  # as subprocess has it: negative for a signal
    seconds: float
    work: float  # seconds after the first line of output, which stages print when their imports are done
    output: str  # standard output and errors together
    was_hit: bool  # False if it ended before its fault


def run_process(command: str, folder: Path, environment: dict[str, str], fault: Fault | None = None) -> Ending:
    """Run a shell command as DVC does, in a folder, and let a fault hit it."""
    started = time.monotonic()
    process = subprocess.Popen(
        f"exec {command}",  # the shell must not be between us and the process that gets the signals
        shell=True,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C ends this command, not the process
    )
    output = Output(process)
    try:
        was_hit = fault is not None and _hit(process, folder, fault, output)
        code = process.wait()
    except BaseException:
        process.kill()
        raise
    ended = time.monotonic()
    output.reader.join(timeout=5)  # orphans may keep the pipe open
    return Ending(code, ended - started, ended - output.begun_at, "".join(output.lines), was_hit)


class Output:
    """Reads the output of a process while it runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process, self.lines = process, list[str]()
        self.has_begun, self.begun_at = threading.Event(), time.monotonic()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self.lines.append(line)
                if not self.has_begun.is_set():
                    self.begun_at = time.monotonic()
                    self.has_begun.set()
        self.has_begun.set()  # it has ended without a line


def _hit(process: "subprocess.Popen[str]", folder: Path, fault: Fault, output: Output) -> bool:
    """Whether the process still ran after the fault's seconds; then the fault has hit it."""
    if fault.after_first_line:
        output.has_begun.wait()
    try:
        process.wait(fault.seconds)
    except subprocess.TimeoutExpired:
        apply_fault(fault.kind, process.pid, folder)
        return True
    return False


def apply_fault(kind: str, process: int, folder: Path) -> None:
    """Let a fault hit a process; Ctrl-C and a full disk hit its children, too, which work in the same folder."""
    if kind == FULL_DISK:
        for child in processes_in(folder):
            _forbid_growth(child.pid)
    elif kind == ALL_KILLED:
        kill_all_in(folder)
    elif kind == "SIGINT":
        os.killpg(process, signal.SIGINT)
    else:
        os.kill(process, getattr(signal, kind))


def _forbid_growth(process: int) -> None:
    """Have every write to a file fail from now on, as on a full disk."""
    try:
        hard = resource.prlimit(process, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(process, resource.RLIMIT_FSIZE, (0, hard))
    except ProcessLookupError:  # it has just ended
        pass


def processes_in(folder: Path) -> Iterator[psutil.Process]:
    """The living processes that work in a folder, or below it."""
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder.resolve()):
                yield process
        except psutil.Error:  # it has ended, or is another user's
            continue


def kill_all_in(folder: Path) -> None:
    """End what still works in a folder."""
    for process in processes_in(folder):
        try:
            process.kill()
        except psutil.Error:
            continue
