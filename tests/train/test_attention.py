"""pipeline/train/attention.py against PyTorch's own attention, and where it is left to that."""

from typing import Any

import pytest
import torch
from support.small_models import SMALL, small
from torch.nn.functional import scaled_dot_product_attention

from pipeline.modeling.batches import collate_packed
from pipeline.modeling.encoding import Example
from pipeline.train import attention
from pipeline.train.attention import BlockCausalAttention, blocks, packed_lengths
from pipeline.train.build import cast_embeddings_to_autocast_dtype

IDS = torch.tensor([[5, 6, 7, 8, 9, 3, 4], [3, 4, 9, 8, 7, 6, 5]])


def test_a_block_of_queries_sees_the_keys_up_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "QUERIES", 3)
    assert blocks(7) == [(slice(0, 3), slice(0, 3)), (slice(3, 6), slice(0, 6)), (slice(6, 7), slice(0, 7))]


@pytest.mark.parametrize("queries", [1, 3, 7, 128])
def test_values_and_gradients_are_those_of_pytorchs_attention(queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "QUERIES", queries)
    torch.manual_seed(0)
    given = [torch.randn(2, 7, 4, dtype=torch.float64).requires_grad_() for _ in range(3)]
    slope = torch.randn(2, 7, 4, dtype=torch.float64)
    mine = BlockCausalAttention.apply(*given)
    own = scaled_dot_product_attention(*given, is_causal=True, scale=1.0)
    torch.testing.assert_close(mine, own)
    for each in zip(torch.autograd.grad(mine, given, slope), torch.autograd.grad(own, given, slope), strict=True):
        torch.testing.assert_close(*each)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of the queries that come to the blocks."""
    found: list[torch.Size] = []
    forward = BlockCausalAttention.forward

    def noting(ctx: Any, query: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        found.append(query.shape)
        return forward(ctx, query, *rest)

    monkeypatch.setattr(BlockCausalAttention, "forward", staticmethod(noting))
    return found


@pytest.mark.parametrize("kind", [*SMALL, "grouped"])
def test_a_model_trains_in_bf16_as_with_pytorchs_attention(kind: str, asked: list[torch.Size]) -> None:
    grouped = {"num_attention_heads": 4, "num_key_value_heads": 2} if kind == "grouped" else {}
    model, own = (small("qwen2" if grouped else kind, use_cache=False, **grouped) for _ in range(2))
    attention.install_block_attention(model)
    losses = []
    for each in (model, own):
        each.get_input_embeddings().register_forward_hook(cast_embeddings_to_autocast_dtype)
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(each(input_ids=IDS, labels=IDS).loss)
        losses[-1].backward()
    assert len(asked) == 2  # the layers of one model
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-3)
    for mine, its in zip(model.parameters(), own.parameters(), strict=True):
        assert (mine.grad - its.grad).norm() <= 0.03 * its.grad.norm() + 1e-4


@pytest.mark.parametrize("why", ["float32", "no gradient", "mask", "too long"])
def test_what_is_not_faster_is_left_to_pytorch(
    why: str, asked: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "too long":
        monkeypatch.setattr(attention, "PROBABILITIES", 2 * 2 * 7 * 7 - 1)
    model, own = (small("gpt_neox", use_cache=False) for _ in range(2))
    attention.install_block_attention(model)
    for each in (model, own):
        each.get_input_embeddings().register_forward_hook(cast_embeddings_to_autocast_dtype)
    mask = {"attention_mask": torch.tensor([[1] * 7, [0, 0, *[1] * 5]])} if why == "mask" else {}
    with torch.set_grad_enabled(why != "no gradient"), torch.autocast("cpu", torch.bfloat16, enabled=why != "float32"):
        logits = [each(input_ids=IDS, **mask).logits for each in (model, own)]
    assert torch.equal(*logits)
    assert not asked


PACKED = [Example([5, 6, 7, 8, 9, 3], [5, 6, 7, 8, 9, 3], 0), Example([4, 3, 9], [4, 3, 9], 0), Example([8], [8], 0)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["gpt_neox", "llama", "qwen2"])
def test_packed_rows_are_attended_to_one_by_one(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model, own = (small(kind, use_cache=False).to(dtype) for _ in range(2))
    attention.install_block_attention(model)
    lengths = []
    left = attention.sdpa_attention_forward

    def noting(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, *rest: Any, **more: Any
    ) -> Any:
        assert mask is None
        lengths.append(query.shape[2])
        return left(module, query, key, value, mask, *rest, **more)

    monkeypatch.setattr(attention, "sdpa_attention_forward", noting)
    batch = collate_packed(PACKED)
    losses = [each(**batch).loss for each in (model, own)]
    for loss in losses:
        loss.backward()
    assert lengths == ([6, 3, 1] * 2 if dtype == torch.float32 else [])  # two layers
    torch.testing.assert_close(*losses, rtol=1e-3 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)
    for mine, its in zip(model.parameters(), own.parameters(), strict=True):
        assert (mine.grad - its.grad).norm() <= (1e-4 if dtype == torch.float32 else 0.03) * its.grad.norm() + 1e-4


def test_a_row_is_not_told_from_the_next_by_positions_where_attention_has_a_window() -> None:
    query, mask = torch.zeros(1, 2, 5, 4), torch.ones(1, 1, 5, 5, dtype=torch.bool)
    module, positions = torch.nn.Module(), torch.tensor([[0, 1, 2, 0, 1]])
    assert packed_lengths(module, query, mask, position_ids=positions) == [3, 2]
    assert packed_lengths(module, query, mask, position_ids=positions, sliding_window=4) == []
    assert packed_lengths(module, query, None, position_ids=positions) == []
    assert packed_lengths(module, query, mask) == []


def test_the_choice_is_not_written_with_the_model(tmp_path: Any) -> None:
    model = small("gpt_neox")
    attention.install_block_attention(model)
    model.save_pretrained(tmp_path)
    assert attention.NAME not in (tmp_path / "config.json").read_text()
