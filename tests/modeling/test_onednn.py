"""pipeline/modeling/onednn.py: linear layers by laid out weights give what PyTorch's give, for as long as they are asked to."""

import pytest
import torch
from support.small_models import SMALL, small
from torch import nn

from pipeline.modeling.onednn import prepacked_linears

IDS = torch.tensor([[5, 6, 7, 8, 9, 3, 4], [3, 4, 9, 8, 7, 6, 5]])

has_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


def changed(model: nn.Module) -> int:
    """How many layers have a forward of their own."""
    return sum("forward" in vars(module) for module in model.modules())


def linear(model: nn.Module) -> int:
    return sum(type(module) is nn.Linear for module in model.modules())


@has_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", SMALL)
@torch.inference_mode()
def test_logits_are_those_of_the_model_as_it_was(kind: str, dtype: torch.dtype) -> None:
    model = small(kind).eval().to(dtype)
    expected = model(input_ids=IDS).logits
    with prepacked_linears(model):
        assert changed(model) == linear(model) > 0
        torch.testing.assert_close(model(input_ids=IDS).logits, expected)
    assert changed(model) == 0
    torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=0, atol=0)


@has_onednn
def test_the_model_is_as_it_was_after_an_error() -> None:
    model = small("gpt_neox")
    with pytest.raises(RuntimeError, match="in the midst"), prepacked_linears(model):
        raise RuntimeError("in the midst")
    assert changed(model) == 0


@has_onednn
@torch.inference_mode()
def test_two_layers_with_one_weight_keep_each_its_bias() -> None:
    layer, other = nn.Linear(6, 4), nn.Linear(6, 4)
    other.weight = layer.weight
    inputs = torch.randn(3, 2, 6)
    with prepacked_linears(nn.ModuleList([layer, other])):
        torch.testing.assert_close(other(inputs) - other.bias, layer(inputs) - layer.bias)
        torch.testing.assert_close(layer(inputs), inputs @ layer.weight.T + layer.bias)


def test_left_to_pytorch_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(8, 4)  # 128 bytes
    monkeypatch.setattr("pipeline.modeling.onednn.free_memory", lambda device: 255)
    with prepacked_linears(layer):
        assert changed(layer) == 0
    monkeypatch.setattr("pipeline.modeling.onednn.free_memory", lambda device: 256)
    with prepacked_linears(layer):
        assert changed(layer) == torch.backends.mkldnn.is_available()


def test_left_to_pytorch_in_float64_without_onednn_and_where_another_has_its_own_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, wrapped = nn.Linear(8, 4), nn.Linear(8, 4)
    wrapped.forward = own = lambda inputs: inputs
    with prepacked_linears(nn.ModuleList([layer.double(), wrapped])):
        assert "forward" not in vars(layer)
        assert wrapped.forward is own
    assert wrapped.forward is own
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    with prepacked_linears(layer.float()):
        assert changed(layer) == 0


@torch.inference_mode()
def test_a_forward_that_turns_autocast_on_by_itself_computes_in_bf16() -> None:
    """As Accelerate's does, in training."""
    model = small("gpt_neox")
    own = model.forward
    model.forward = torch.autocast("cpu", torch.bfloat16)(own)
    expected = model(input_ids=IDS).logits
    with prepacked_linears(model):
        found = model(input_ids=IDS).logits
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
