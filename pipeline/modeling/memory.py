"""Free memory, out-of-memory errors, and keeping freed memory in the process."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from pipeline.errors import ModelError


@contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
    """Replace out-of-memory errors with a ModelError. advice: what did not fit, and which parameters to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        memory = "the GPU's memory" if isinstance(error, torch.OutOfMemoryError) else "this machine's memory"
        raise ModelError(f"{memory} is too small: {advice}") from None


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def free_memory(device: torch.device) -> int:
    """The free memory of a device in bytes. It ignores the memory limit of a container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def retain_freed_memory() -> None:
    """Make glibc's malloc keep freed memory for the next tensor of the same size. Without glibc it does nothing.

    By default malloc returns every freed block over 32 MiB to the system and requests new pages for the next one, which the
    system must fill with zeros first. The logits of a large vocabulary and their gradients are such blocks, in every step.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt, trim_threshold, mmap_threshold = ctypes.CDLL(None).mallopt, -1, -3
    if mallopt(mmap_threshold, 2**30):  # bytes
        mallopt(trim_threshold, 2**31 - 1)
