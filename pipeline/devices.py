"""Where the tensors live."""

import torch

from pipeline.errors import ConfigError
from pipeline.params import Compute


def device_of(compute: Compute) -> torch.device:
    """The device that the parameters ask for; ConfigError if this machine lacks it."""
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device: cuda, but PyTorch sees no CUDA card here; use auto or cpu")
    return torch.device("cuda" if compute.device != "cpu" and torch.cuda.is_available() else "cpu")
