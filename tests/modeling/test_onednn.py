"""pipeline/modeling/onednn.py: prepacked layers compute what PyTorch's compute, and are restored after the block."""

import pytest
import torch
from support.small_models import SMALL_CONFIGS, small_model
from torch import nn

from pipeline.modeling.onednn import prepacked_linears

IDS = torch.tensor([[5, 6, 7, 8, 9, 3, 4], [3, 4, 9, 8, 7, 6, 5]])

has_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


def num_prepacked(model: nn.Module) -> int:
    """The number of layers whose forward is replaced."""
    return sum("forward" in vars(module) for module in model.modules())


def num_linear(model: nn.Module) -> int:
    return sum(type(module) is nn.Linear for module in model.modules())


@has_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", SMALL_CONFIGS)
@torch.inference_mode()
def test_logits_are_those_of_the_unchanged_model(kind: str, dtype: torch.dtype) -> None:
    model = small_model(kind).eval().to(dtype)
    expected = model(input_ids=IDS).logits
    with prepacked_linears(model):
        assert num_prepacked(model) == num_linear(model) > 0
        torch.testing.assert_close(model(input_ids=IDS).logits, expected)
    assert num_prepacked(model) == 0
    torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=0, atol=0)


@has_onednn
def test_the_model_is_restored_after_an_error() -> None:
    model = small_model("gpt_neox")
    with pytest.raises(RuntimeError, match="inside the block"), prepacked_linears(model):
        raise RuntimeError("inside the block")
    assert num_prepacked(model) == 0


@has_onednn
@torch.inference_mode()
def test_layers_that_share_a_weight_keep_their_own_bias() -> None:
    layer, other = nn.Linear(6, 4), nn.Linear(6, 4)
    other.weight = layer.weight
    inputs = torch.randn(3, 2, 6)
    with prepacked_linears(nn.ModuleList([layer, other])):
        torch.testing.assert_close(other(inputs) - other.bias, layer(inputs) - layer.bias)
        torch.testing.assert_close(layer(inputs), inputs @ layer.weight.T + layer.bias)


def test_layers_are_unchanged_if_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(8, 4)  # 128 bytes
    monkeypatch.setattr("pipeline.modeling.onednn.free_memory", lambda device: 255)
    with prepacked_linears(layer):
        assert num_prepacked(layer) == 0
    monkeypatch.setattr("pipeline.modeling.onednn.free_memory", lambda device: 256)
    with prepacked_linears(layer):
        assert num_prepacked(layer) == torch.backends.mkldnn.is_available()


def test_float64_and_wrapped_layers_are_unchanged_and_all_without_onednn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, wrapped = nn.Linear(8, 4), nn.Linear(8, 4)
    wrapped.forward = wrapper = lambda inputs: inputs
    with prepacked_linears(nn.ModuleList([layer.double(), wrapped])):
        assert "forward" not in vars(layer)
        assert wrapped.forward is wrapper
    assert wrapped.forward is wrapper
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    with prepacked_linears(layer.float()):
        assert num_prepacked(layer) == 0


@torch.inference_mode()
def test_a_forward_that_enters_autocast_computes_in_bf16() -> None:
    """Accelerate wraps forward like this in training."""
    model = small_model("gpt_neox")
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    expected = model(input_ids=IDS).logits
    with prepacked_linears(model):
        logits = model(input_ids=IDS).logits
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
