"""The libraries and the hardware on which the last digits of weights, losses and answers depend."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pipeline.core.distributed import is_distributed

LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "peft", "numpy")
# These variables turn off instructions that the CPU has.
INSTRUCTION_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
CPU_INFO = Path("/proc/cpuinfo")


def environment_record(device: torch.device) -> dict[str, Any]:
    """What the metrics record, and two runs can be compared by. On a CPU, equal records give equal bytes."""
    record: dict[str, Any] = {
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "device": device.type,
        "processes": int(os.environ["WORLD_SIZE"]) if is_distributed() else 1,
    }
    if device.type == "cuda":
        return record | {"gpu": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
    return record | {"threads": torch.get_num_threads(), "cpu": cpu_vendor(), "instructions": cpu_instructions()}


def resumption_record(device: torch.device) -> dict[str, Any]:
    """The part of the record that must be the same for a killed run to resume.

    A GPU's name is not in it: GPUs do not promise the same bytes, and a job that moves to another one must go on.
    """
    return {name: value for name, value in environment_record(device).items() if name not in ("gpu", "python")}


def cpu_instructions() -> str:
    """The instruction sets that PyTorch's own kernels and oneDNN use, such as "AVX512, bf16, AMX", and what limits them."""
    names = [torch.backends.cpu.get_cpu_capability()]
    if torch.cpu._is_avx512_bf16_supported():
        names.append("bf16")
    if torch.cpu._is_amx_tile_supported():
        names.append("AMX")
    limits = [f"{name}={os.environ[name]}" for name in INSTRUCTION_VARIABLES if name in os.environ]
    return ", ".join([*names, *limits])


def cpu_vendor() -> str:
    """The CPU's maker, by which the math libraries choose their kernels, such as GenuineIntel, or else the machine's type."""
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "vendor_id":
                return value.strip()
    return platform.machine()
