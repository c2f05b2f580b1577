"""Faster linear layers on a CPU for generation and losses: oneDNN with prepacked weights.

PyTorch computes float32 products with MKL. On an AMD EPYC, oneDNN takes half as long for a vocabulary of 50,304 and 96
answers, and a fifth less for the other layers. Weights that are packed once need not be packed in every step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeGuard

import torch
from torch import nn

from pipeline.modeling.memory import free_memory

TYPICAL_ROWS = 128  # of the inputs; oneDNN chooses the layout of the weights for about this many
CPU = torch.device("cpu")


@contextmanager
def prepacked_linears(model: nn.Module) -> Iterator[None]:
    """Inside the block, the model's linear layers on a CPU run on oneDNN. It must neither compute gradients nor change weights.

    The model stays as it is if PyTorch has no oneDNN, or if memory cannot hold the weights twice.
    """
    layers = [layer for layer in model.modules() if is_prepackable(layer)]
    weights = {layer.weight.data_ptr(): layer.weight.detach() for layer in layers}
    fits = 2 * sum(weight.nbytes for weight in weights.values()) <= free_memory(CPU)
    if not (fits and torch.backends.mkldnn.is_available()):
        layers, weights = [], {}
    prepacked = {
        pointer: torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS) for pointer, weight in weights.items()
    }
    for layer in layers:
        # An attribute of the instance, which hides the method of the class.
        layer.forward = partial(prepacked_linear, layer, prepacked[layer.weight.data_ptr()])  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def is_prepackable(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether oneDNN can run it: a linear layer on the CPU that is not quantized, sharded or wrapped by another library."""
    if type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter or "forward" in vars(layer):
        return False
    return layer.weight.device == CPU and layer.weight.dtype in (torch.float32, torch.bfloat16)


def prepacked_linear(layer: nn.Linear, prepacked_weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """The output of a linear layer, (…, in) → (…, out), computed from its prepacked weight.

    During training a model may enter autocast only in its own forward. Then the layer's own forward runs.
    """
    if torch.is_autocast_enabled("cpu") or inputs.dtype != layer.weight.dtype:
        return nn.Linear.forward(layer, inputs)
    outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, prepacked_weight, layer.bias, "none", [], "")
    return outputs
