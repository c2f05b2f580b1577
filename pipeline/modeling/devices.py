"""Where the tensors live."""

import torch

from pipeline.config.options import Distributed, Fsdp, Machine
from pipeline.errors import ConfigError


def device_of(compute: Machine, index: int | None = None) -> torch.device:
    """The device that the parameters ask for, the card of that number; ConfigError if this machine lacks it."""
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device: cuda, but PyTorch sees no CUDA card here; use auto or cpu")
    if compute.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda") if index is None else torch.device("cuda", index)


def gpu_errors(compute: Distributed) -> list[str]:
    """What this machine lacks for so many processes, one line each."""
    cards = torch.cuda.device_count() if compute.device != "cpu" else 0
    if compute.device == "cuda" and not cards:
        return ["compute.device: cuda, but PyTorch sees no CUDA card here"]
    if isinstance(compute, Fsdp) and not cards:
        return ["compute: fsdp needs CUDA cards (compute.device: auto or cuda), and PyTorch sees none; use compute=ddp"]
    if cards and compute.processes > cards:
        return [f"compute.processes: {compute.processes} is more than this machine's {cards} CUDA cards"]
    return []


def supports_bf16(device: torch.device) -> bool:
    """Whether it computes in bfloat16 by instructions of its own; elsewhere bfloat16 is emulated, and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def uses_bf16(precision: str, device: torch.device) -> bool:
    """What train.precision comes to on a device."""
    return precision == "bf16" or (precision == "auto" and supports_bf16(device))
