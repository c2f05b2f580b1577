"""Data-loader workers: processes that prepare batches. They end with their training, and only with it.

They draw no random numbers and their batches arrive in order, so they do not change the result.
"""

import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import ModelError

LOST_WORKER = re.compile(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)")
INTERVAL = 0.2  # seconds between two looks at the training process


def follow_training(worker: int) -> None:
    """Prepare a worker: it ends when its training process tells it to, or has ended.

    Ctrl-C, batch systems and systemd signal all processes of a job. A worker that ended first would be an error for the
    training process, which still has a checkpoint to write. And a killed training's workers would keep its checkpoints
    locked, so that the next one could not resume.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):  # not on macOS, where SIGTERM to all processes ends the workers
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_watch_training, args=(os.getppid(),), daemon=True).start()


def _watch_training(training: int) -> None:
    while os.getppid() == training and not _is_terminated_by(training):
        pass
    os._exit(0)


def _is_terminated_by(training: int) -> bool:
    """Wait a moment; return whether the training process has sent SIGTERM meanwhile."""
    if not hasattr(signal, "sigtimedwait"):
        time.sleep(INTERVAL)
        return False
    received = signal.sigtimedwait({signal.SIGTERM}, INTERVAL)
    return received is not None and received.si_pid == training


@contextmanager
def explain_worker_errors() -> Iterator[None]:
    """Replace PyTorch's error about a worker that was killed with a ModelError.

    PyTorch's warning about more workers than cores, which it repeats for each loader, is silenced: see too_many_workers.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            yield
    except RuntimeError as error:
        if not LOST_WORKER.search(str(error)):
            raise
        raise ModelError(
            "a data-loader worker was killed. Unless someone killed it, memory or shared memory (/dev/shm) ran out: lower "
            "train.dataloader_workers; 0 needs no shared memory. Run it again to resume from the last checkpoint"
        ) from None


def too_many_workers(workers: int) -> str | None:
    """A warning if a training process has more workers than this machine has cores."""
    cores = os.cpu_count() or 1
    if workers <= cores:
        return None
    return f"train.dataloader_workers={workers} is more than this machine's {cores} cores, which slows training"
