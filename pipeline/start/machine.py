"""The device that training will use, and its free memory."""

import os
from typing import Any, NamedTuple


class Machine(NamedTuple):
    name: str
    is_gpu: bool
    free_bytes: int
    bf16: bool  # whether the device computes in bfloat16
    can_quantize: bool  # whether train/method=qlora runs here
    cores: int = 1


def inspect_machine(compute: dict[str, Any]) -> Machine:
    """The machine as the compute section uses it. Raises ConfigError if it asks for a device that is not there."""
    from pydantic import TypeAdapter  # torch, which the next imports load, takes seconds

    from pipeline.config.options import Compute
    from pipeline.modeling.devices import device_of, supports_bf16
    from pipeline.modeling.memory import free_memory
    from pipeline.train.methods import missing_for_qlora

    options: Any = TypeAdapter(Compute).validate_python(compute)
    device = device_of(options)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = "a CUDA GPU" if device.type == "cuda" else f"a CPU, {cores} core{'s' if cores > 1 else ''}"
    return Machine(
        name,
        is_gpu=device.type == "cuda",
        free_bytes=free_memory(device),
        bf16=supports_bf16(device),
        can_quantize=missing_for_qlora(options.device) is None,
        cores=cores,
    )
