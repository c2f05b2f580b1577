"""Small models of several architectures with random weights, and rows for them."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.modeling.encoding import Example

VOCABULARY = 101
SMALL_CONFIGS: dict[str, dict[str, Any]] = {
    "gpt_neox": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "llama": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},  # output layer tied to the embedding
    "qwen2": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
              "num_key_value_heads": 2},
}  # fmt: skip
TOKEN_CONFIG = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}

ROWS = [
    Example([5, 6, 7, 8, 9], [-100, -100, 7, 8, 9], 0),
    Example([3, 4, 2], [3, 4, 2], 0),
    Example([1, 9, 8, 7], [-100, 9, 8, -100], 0),
]


def small_model(kind: str, **changes: Any) -> Any:
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **{**SMALL_CONFIGS[kind], **TOKEN_CONFIG, **changes})
    ).eval()
