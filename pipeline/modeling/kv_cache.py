"""The attention's keys and values of all tokens so far, kept where they are: a step writes one place and copies nothing.

transformers' DynamicCache makes new tensors with one place more at every step, so that a step of a large batch copies more
than it computes. Here each layer has room for the whole answer from the start.
"""

import inspect
from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """One layer's keys and values, each (rows, heads, tokens so far, head size): the front of a tensor with more room."""

    def __init__(self, room: int) -> None:
        """room: tokens, those of the prompt and of the answer together."""
        super().__init__()
        self.room = room

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.all_keys, self.all_values = (
            states.new_empty((*states.shape[:2], self.room, states.shape[3])) for states in (key_states, value_states)
        )
        self.is_initialized = True
        self._show(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the keys and values of the newest tokens; give those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[2]
        self.all_keys[:, :, before:after] = key_states
        self.all_values[:, :, before:after] = value_states
        self._show(after)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, in this order."""
        self.all_keys, self.all_values = self.all_keys[indices], self.all_values[indices]
        self._show(self.get_seq_length())

    def _show(self, tokens: int) -> None:
        self.keys, self.values = self.all_keys[:, :, :tokens], self.all_values[:, :, :tokens]


def preallocated_cache(model: PreTrainedModel, room: int) -> Cache | None:
    """A cache with room for so many tokens; None if some layer of the model keeps another thing, as a window or a state."""
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        return None
    cache = DynamicCache(config=model.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    cache.layers = [PreallocatedLayer(room) for _ in cache.layers]
    return cache


def bytes_per_prompt(model: PreTrainedModel, tokens: int) -> int:
    """About what answering one prompt takes in memory, prompt and answer being so many tokens together.

    Keys and values of every layer, the widest activations of the prompt (4 of the hidden size in the MLP, and as much
    again around it), and three times the next token's scores in float32.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 1  # a model with a state has none
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * head_size
    return tokens * (kept + 8 * config.hidden_size) * model.dtype.itemsize + 12 * config.vocab_size
