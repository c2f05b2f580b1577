"""Block attention against PyTorch's own attention, and the cases that are left to PyTorch."""

from typing import Any

import pytest
import torch
from support.small_models import SMALL_CONFIGS, small_model
from torch.nn.functional import scaled_dot_product_attention

from pipeline.modeling.collation import collate_packed
from pipeline.modeling.encoding import Example
from pipeline.train import attention
from pipeline.train.attention import BlockCausalAttention, block_slices, packed_lengths
from pipeline.train.build_trainer import cast_embeddings_to_autocast_dtype

IDS = torch.tensor([[5, 6, 7, 8, 9, 3, 4], [3, 4, 9, 8, 7, 6, 5]])


def test_block_of_queries_attends_to_the_keys_up_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "QUERIES_PER_BLOCK", 3)
    assert block_slices(7) == [(slice(0, 3), slice(0, 3)), (slice(3, 6), slice(0, 6)), (slice(6, 7), slice(0, 7))]


@pytest.mark.parametrize("queries", [1, 3, 7, 128])
def test_outputs_and_gradients_match_pytorchs_attention(queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "QUERIES_PER_BLOCK", queries)
    torch.manual_seed(0)
    inputs = [torch.randn(2, 7, 4, dtype=torch.float64).requires_grad_() for _ in range(3)]
    grad_output = torch.randn(2, 7, 4, dtype=torch.float64)
    output = BlockCausalAttention.apply(*inputs)
    expected = scaled_dot_product_attention(*inputs, is_causal=True, scale=1.0)
    torch.testing.assert_close(output, expected)
    grads, expected_grads = (torch.autograd.grad(tensor, inputs, grad_output) for tensor in (output, expected))
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad)


@pytest.fixture
def block_calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of the queries in calls of BlockCausalAttention."""
    shapes: list[torch.Size] = []
    forward = BlockCausalAttention.forward

    def spy(ctx: Any, query: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        shapes.append(query.shape)
        return forward(ctx, query, *rest)

    monkeypatch.setattr(BlockCausalAttention, "forward", staticmethod(spy))
    return shapes


@pytest.mark.parametrize("kind", [*SMALL_CONFIGS, "grouped"])
def test_models_train_in_bf16_like_with_pytorchs_attention(kind: str, block_calls: list[torch.Size]) -> None:
    grouped = {"num_attention_heads": 4, "num_key_value_heads": 2} if kind == "grouped" else {}
    model, reference = (small_model("qwen2" if grouped else kind, use_cache=False, **grouped) for _ in range(2))
    attention.install_block_attention(model)
    losses = []
    for network in (model, reference):
        network.get_input_embeddings().register_forward_hook(cast_embeddings_to_autocast_dtype)
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(network(input_ids=IDS, labels=IDS).loss)
        losses[-1].backward()
    assert len(block_calls) == 2  # the layers of one model
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-3)
    for parameter, expected in zip(model.parameters(), reference.parameters(), strict=True):
        assert (parameter.grad - expected.grad).norm() <= 0.03 * expected.grad.norm() + 1e-4


@pytest.mark.parametrize("reason", ["float32", "no gradient", "mask", "too long"])
def test_calls_that_would_not_be_faster_are_left_to_pytorch(
    reason: str, block_calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "too long":
        monkeypatch.setattr(attention, "MAX_PROBABILITIES", 2 * 2 * 7 * 7 - 1)
    model, reference = (small_model("gpt_neox", use_cache=False) for _ in range(2))
    attention.install_block_attention(model)
    for network in (model, reference):
        network.get_input_embeddings().register_forward_hook(cast_embeddings_to_autocast_dtype)
    mask = {"attention_mask": torch.tensor([[1] * 7, [0, 0, *[1] * 5]])} if reason == "mask" else {}
    with (
        torch.set_grad_enabled(reason != "no gradient"),
        torch.autocast("cpu", torch.bfloat16, enabled=reason != "float32"),
    ):
        logits = [network(input_ids=IDS, **mask).logits for network in (model, reference)]
    assert torch.equal(*logits)
    assert not block_calls


PACKED = [Example([5, 6, 7, 8, 9, 3], [5, 6, 7, 8, 9, 3], 0), Example([4, 3, 9], [4, 3, 9], 0), Example([8], [8], 0)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["gpt_neox", "llama", "qwen2"])
def test_packed_rows_are_computed_one_by_one(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reference = (small_model(kind, use_cache=False).to(dtype) for _ in range(2))
    attention.install_block_attention(model)
    lengths = []
    sdpa = attention.sdpa_attention_forward

    def spy(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, *rest: Any, **more: Any
    ) -> Any:
        assert mask is None
        lengths.append(query.shape[2])
        return sdpa(module, query, key, value, mask, *rest, **more)

    monkeypatch.setattr(attention, "sdpa_attention_forward", spy)
    batch = collate_packed(PACKED)
    losses = [network(**batch).loss for network in (model, reference)]
    for loss in losses:
        loss.backward()
    assert lengths == ([6, 3, 1] * 2 if dtype == torch.float32 else [])  # two layers
    torch.testing.assert_close(*losses, rtol=1e-3 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)
    for parameter, expected in zip(model.parameters(), reference.parameters(), strict=True):
        assert (parameter.grad - expected.grad).norm() <= (
            1e-4 if dtype == torch.float32 else 0.03
        ) * expected.grad.norm() + 1e-4


def test_position_ids_do_not_separate_rows_in_sliding_window_attention() -> None:
    query, mask = torch.zeros(1, 2, 5, 4), torch.ones(1, 1, 5, 5, dtype=torch.bool)
    module, positions = torch.nn.Module(), torch.tensor([[0, 1, 2, 0, 1]])
    assert packed_lengths(module, query, mask, position_ids=positions) == [3, 2]
    assert packed_lengths(module, query, mask, position_ids=positions, sliding_window=4) == []
    assert packed_lengths(module, query, None, position_ids=positions) == []
    assert packed_lengths(module, query, mask) == []


def test_saved_configuration_does_not_name_block_attention(tmp_path: Any) -> None:
    model = small_model("gpt_neox")
    attention.install_block_attention(model)
    model.save_pretrained(tmp_path)
    assert attention.IMPLEMENTATION not in (tmp_path / "config.json").read_text()
