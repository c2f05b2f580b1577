"""A key-value cache with preallocated tensors: a decoding step writes one position and copies nothing.

transformers' DynamicCache allocates tensors one position longer in every step, so a step of a large batch copies more than
it computes. Here each layer is allocated for the whole answer at the start.
"""

import inspect
from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """The keys and values of one layer, each (rows, heads, tokens so far, head size), as views of longer tensors."""

    def __init__(self, max_tokens: int) -> None:
        """max_tokens: of prompt and answer together."""
        super().__init__()  # type: ignore[no-untyped-call]  # transformers annotates the other methods only
        self.max_tokens = max_tokens

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.all_keys, self.all_values = (
            states.new_empty((*states.shape[:2], self.max_tokens, states.shape[3]))
            for states in (key_states, value_states)
        )
        self.is_initialized = True
        self._set_length(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the keys and values of new tokens; return those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        self.all_keys[:, :, start:end] = key_states
        self.all_values[:, :, start:end] = value_states
        return self._set_length(end)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only these rows, in this order."""
        self.all_keys, self.all_values = self.all_keys[indices], self.all_values[indices]
        self._set_length(self.get_seq_length())

    def _set_length(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Make keys and values show the first `tokens` positions; return both."""
        self.keys = keys = self.all_keys[:, :, :tokens]
        self.values = values = self.all_values[:, :, :tokens]
        return keys, values


def preallocated_cache(model: PreTrainedModel, max_tokens: int) -> Cache | None:
    """A cache for at most `max_tokens` tokens, or None if a layer of the model needs another one, such as a window or a state."""
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        return None
    cache = DynamicCache(config=model.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    cache.layers = [PreallocatedLayer(max_tokens) for _ in cache.layers]
    return cache


def bytes_per_prompt(model: PreTrainedModel, tokens: int) -> int:
    """An estimate of the memory for one prompt and its answer, `tokens` tokens together, in bytes.

    It counts the keys and values of every layer, the widest activations of the prompt (4 times the hidden size in the MLP,
    and as much again around it), and three times the logits of the next token in float32.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 1  # models with a state instead of attention have none
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_values = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * head_size
    return int(tokens * (key_values + 8 * config.hidden_size) * model.dtype.itemsize + 12 * config.vocab_size)
