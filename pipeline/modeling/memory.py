"""Memory: how much is free, keeping what is freed, and running out of it, told as what to lower."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from pipeline.errors import ModelError


@contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
    """Turn the libraries' errors into a ModelError that ends with what was tried and what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        where = "the CUDA card's memory" if isinstance(error, torch.OutOfMemoryError) else "this machine's memory"
        raise ModelError(f"{where} is too small: {advice}") from None


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device. What a container may use at most is not looked at."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def retain_freed_memory() -> None:
    """Have the C library keep what is freed, for the next tensor of that size, where it is glibc.

    By itself it gives back every tensor over 32 MiB at once, and takes new pages for the next one, all to be filled with
    zeros first: a vocabulary's logits and gradients are such tensors, at every step.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt, trim_threshold, mmap_threshold = ctypes.CDLL(None).mallopt, -1, -3
    if mallopt(mmap_threshold, 2**30):  # bytes
        mallopt(trim_threshold, 2**31 - 1)
