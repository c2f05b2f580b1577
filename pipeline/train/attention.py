"""Causal attention for training on a CPU: plain matrix products, one block of queries at a time.

PyTorch's fused attention saves memory, but on a CPU its backward pass in bfloat16 takes three times as long as these
products at the usual lengths of prompts and completions. A block of queries attends only to the keys up to its own end,
which saves about half of the products in long rows. Packed rows are computed one by one: computed together under a
mask, they would cost as much as one row of all their tokens.
"""

import itertools
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "blocks"  # its name in transformers' registry of attention functions
QUERIES_PER_BLOCK = 256
MAX_PROBABILITIES = 2**25  # per layer, as they are kept for the backward pass; above, PyTorch's own attention is used


def install_block_attention(model: PreTrainedModel) -> None:
    """Make a model on a CPU use `block_attention` in place of PyTorch's attention; other models stay as they are."""
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(IMPLEMENTATION, block_attention)
        AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
        model.set_attn_implementation(IMPLEMENTATION)


def block_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function for transformers: (rows, queries, heads, head size), and no attention weights.

    query: (rows, heads, queries, head size); key and value: (rows, heads or fewer, keys, head size).
    """
    lengths = packed_lengths(module, query, attention_mask, **kwargs)
    if len(lengths) > 1:
        rows = zip(query.split(lengths, dim=2), key.split(lengths, dim=2), value.split(lengths, dim=2), strict=True)
        outputs = [block_attention(module, q, k, v, None, dropout, scaling, **kwargs)[0] for q, k, v in rows]
        return torch.cat(outputs, dim=1), None
    if dropout or not is_faster(module, query, key, attention_mask, **kwargs):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    heads, size = query.shape[1], query.shape[3]
    groups = heads // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scaled_query = query * (size**-0.5 if scaling is None else scaling)
    inputs = (tensor.flatten(0, 1) for tensor in (scaled_query, key, value))
    output: Tensor = BlockCausalAttention.apply(*inputs)  # type: ignore[no-untyped-call]  # torch's apply has no types
    return output.unflatten(0, query.shape[:2]).transpose(1, 2).contiguous(), None


def packed_lengths(
    module: torch.nn.Module, query: Tensor, mask: Tensor | None, position_ids: Tensor | None = None, **kwargs: Any
) -> list[int]:
    """The lengths of the rows packed into one, whose position ids start at 0 again with each row.

    [] if nothing is packed, or if rows attend to a part of themselves only (sliding windows, chunks).
    """
    is_partial = kwargs.get("sliding_window") or getattr(module, "sliding_window", None)
    is_partial = is_partial or getattr(getattr(module, "config", None), "attention_chunk_size", None)
    if mask is None or position_ids is None or len(query) > 1 or position_ids.shape[-1] != query.shape[2] or is_partial:
        return []
    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    return [end - start for start, end in itertools.pairwise([*starts, query.shape[2]])]


def is_faster(module: torch.nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, **kwargs: Any) -> bool:
    """Whether the blocks compute this call, and faster than PyTorch does.

    It must be plain causal attention in bfloat16 (in float32 nothing is gained), with a backward pass to come, whose
    probabilities fit.
    """
    rows, heads, queries, _ = query.shape
    causal_argument = kwargs.get("is_causal")
    is_causal = getattr(module, "is_causal", True) if causal_argument is None else causal_argument
    is_plain = (
        is_causal
        and queries == key.shape[2]
        and mask is None
        and kwargs.get("position_bias") is None
        and kwargs.get("softcap") is None
    )
    needs_backward = torch.is_grad_enabled() and query.dtype == torch.bfloat16
    return bool(is_plain and needs_backward and rows * heads * queries**2 <= MAX_PROBABILITIES)


class BlockCausalAttention(torch.autograd.Function):
    """softmax(query @ key.T) @ value, where each query attends to the keys up to its own position.

    query (already scaled), key, value and the output: (rows × heads, tokens, head size).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output, block_weights = torch.empty_like(value), []
        for block, visible in block_slices(query.shape[1]):
            scores = query[:, block] @ key[:, visible].transpose(1, 2)  # (rows × heads, block's tokens, visible tokens)
            diagonal = scores[:, :, block]
            future = torch.ones(diagonal.shape[1:], dtype=torch.bool, device=diagonal.device).triu_(1)
            diagonal.masked_fill_(future, -torch.inf)
            block_weights.append(torch.softmax(scores, -1, out=scores))
            output[:, block] = scores @ value[:, visible]
        ctx.save_for_backward(query, key, value, *block_weights)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, *block_weights = ctx.saved_tensors
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for (block, visible), weights in zip(block_slices(query.shape[1]), block_weights, strict=True):
            grad_value[:, visible].baddbmm_(weights.transpose(1, 2), grad_output[:, block])
            grad_weights = grad_output[:, block] @ value[:, visible].transpose(1, 2)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_query[:, block] = grad_scores @ key[:, visible]
            grad_key[:, visible].baddbmm_(grad_scores.transpose(1, 2), query[:, block])
        return grad_query, grad_key, grad_value


def block_slices(tokens: int) -> list[tuple[slice, slice]]:
    """(a block of queries, the keys visible to it), for all tokens of a row."""
    starts = range(0, tokens, QUERIES_PER_BLOCK)
    ends = [min(start + QUERIES_PER_BLOCK, tokens) for start in starts]
    return [(slice(start, end), slice(0, end)) for start, end in zip(starts, ends, strict=True)]
