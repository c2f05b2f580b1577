"""Causal attention on a processor, for training: in plain matrix products, a block of queries at a time.

PyTorch's fused attention spares memory, and on a processor its backward pass takes, in bfloat16, three times as long as
these products do at the lengths of questions and answers. A block of queries sees the keys up to its own end alone, so
about half of the products are spared in long rows, too. Packed rows are taken one by one: side by side, under a mask, they
would be as dear as one row of all their tokens.
"""

import itertools
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "blocks"
QUERIES = 256  # at a time
PROBABILITIES = 2**25  # of a layer at most, as they are kept for the backward pass; beyond, PyTorch's own attention


def install_block_attention(model: PreTrainedModel) -> None:
    """Have a model on a processor train with `attention`, if it has PyTorch's own now."""
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Where transformers asks for attention: (rows, queries, heads, head size), and no weights.

    query (rows, heads, queries, head size), key and value (rows, heads or fewer, keys, head size).
    """
    lengths = packed_lengths(module, query, attention_mask, **rest)
    if len(lengths) > 1:
        rows = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
        return torch.cat([attention(module, *row, None, dropout, scaling, **rest)[0] for row in rows], dim=1), None
    if dropout or not is_faster(module, query, key, attention_mask, **rest):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **rest)
    heads, size = query.shape[1], query.shape[3]
    groups = heads // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scaled = query * (size**-0.5 if scaling is None else scaling)
    found = BlockCausalAttention.apply(*(each.flatten(0, 1) for each in (scaled, key, value)))
    return found.unflatten(0, query.shape[:2]).transpose(1, 2).contiguous(), None


def packed_lengths(
    module: torch.nn.Module, query: Tensor, mask: Tensor | None, position_ids: Tensor | None = None, **rest: Any
) -> list[int]:
    """The lengths of rows that are packed into one, and see all of themselves: their positions begin anew. Else []."""
    sees_a_part = rest.get("sliding_window") or getattr(module, "sliding_window", None)
    sees_a_part = sees_a_part or getattr(getattr(module, "config", None), "attention_chunk_size", None)
    if (
        mask is None
        or position_ids is None
        or len(query) > 1
        or position_ids.shape[-1] != query.shape[2]
        or sees_a_part
    ):
        return []
    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    return [end - start for start, end in itertools.pairwise([*starts, query.shape[2]])]


def is_faster(module: torch.nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, **rest: Any) -> bool:
    """Whether it is plainly causal, in bfloat16 (in float32 nothing is gained), with a backward pass to come, and fits."""
    rows, heads, queries, _ = query.shape
    asked = rest.get("is_causal")
    is_causal = (getattr(module, "is_causal", True) if asked is None else asked) and queries == key.shape[2]
    is_plain = is_causal and mask is None and rest.get("position_bias") is None and rest.get("softcap") is None
    will_learn = torch.is_grad_enabled() and query.dtype == torch.bfloat16
    return is_plain and will_learn and rows * heads * queries**2 <= PROBABILITIES


class BlockCausalAttention(torch.autograd.Function):
    """The values that each query sees, weighed by the softmax of its products with the keys.

    query, which is scaled, key, value and the result: (rows × heads, tokens, head size).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        found, weights = torch.empty_like(value), []
        for block, seen in blocks(query.shape[1]):
            scores = query[:, block] @ key[:, seen].transpose(1, 2)  # (rows × heads, tokens of the block, tokens seen)
            own = scores[:, :, block]
            own.masked_fill_(torch.ones(own.shape[1:], dtype=torch.bool, device=own.device).triu_(1), -torch.inf)
            weights.append(torch.softmax(scores, -1, out=scores))
            found[:, block] = scores @ value[:, seen]
        ctx.save_for_backward(query, key, value, *weights)
        return found

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, *weights = ctx.saved_tensors
        for_query, for_key, for_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for (block, seen), weight in zip(blocks(query.shape[1]), weights, strict=True):
            for_value[:, seen].baddbmm_(weight.transpose(1, 2), slope[:, block])
            for_weight = slope[:, block] @ value[:, seen].transpose(1, 2)
            for_scores = torch._softmax_backward_data(for_weight, weight, -1, weight.dtype)
            for_query[:, block] = for_scores @ key[:, seen]
            for_key[:, seen].baddbmm_(for_scores.transpose(1, 2), query[:, block])
        return for_query, for_key, for_value


def blocks(tokens: int) -> list[tuple[slice, slice]]:
    """(a block of queries, the keys that it sees), for all tokens of a row."""
    starts = range(0, tokens, QUERIES)
    return [(slice(start, min(start + QUERIES, tokens)), slice(0, min(start + QUERIES, tokens))) for start in starts]
