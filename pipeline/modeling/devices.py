"""Which device a model runs on, and what it supports."""

import torch

from pipeline.config.options import ComputeSection, Distributed, Fsdp
from pipeline.errors import ConfigError


def device_of(compute: ComputeSection, index: int | None = None) -> torch.device:
    """The device that compute.device selects. index: which GPU, if there are several processes.

    Raises ConfigError if this machine lacks the device.
    """
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device: cuda, but PyTorch sees no CUDA GPU; use auto or cpu")
    if compute.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda") if index is None else torch.device("cuda", index)


def set_threads(compute: ComputeSection) -> None:
    """Let PyTorch compute on the CPU with compute.threads threads, or with as many as it chooses."""
    if compute.threads is not None:
        torch.set_num_threads(compute.threads)


def gpu_errors(compute: Distributed) -> list[str]:
    """Error messages about GPUs that the configured processes need and this machine lacks."""
    gpus = torch.cuda.device_count() if compute.device != "cpu" else 0
    if compute.device == "cuda" and not gpus:
        return ["compute.device: cuda, but PyTorch sees no CUDA GPU; use auto or cpu"]
    if isinstance(compute, Fsdp) and not gpus:
        return ["compute: fsdp needs CUDA GPUs (compute.device: auto or cuda), and PyTorch sees none; use compute=ddp"]
    if gpus and compute.processes > gpus:
        return [f"compute.processes: {compute.processes} is more than this machine's {gpus} CUDA GPUs"]
    return []


def supports_bf16(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions. Without them bfloat16 is emulated and slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether train.precision selects bfloat16 on a device; auto selects it where the device supports it."""
    return precision == "bf16" or (precision == "auto" and supports_bf16(device))
