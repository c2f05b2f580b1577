"""pipeline/modeling/collation.py: packed rows have the same logits as alone, or packing is not supported."""

from typing import Any

import pytest
import torch
from support.small_models import ROWS, SMALL_CONFIGS, TOKEN_CONFIG, small_model
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.modeling.collation import collate_packed, skip_packing_detection, supports_packing


def test_collate_packed_joins_the_rows() -> None:
    assert {name: tensor.tolist() for name, tensor in collate_packed(ROWS).items()} == {
        "input_ids": [[5, 6, 7, 8, 9, 3, 4, 2, 1, 9, 8, 7]],
        "position_ids": [[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]],
        "labels": [[-100, -100, 7, 8, 9, -100, 4, 2, -100, 9, 8, -100]],
    }


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", SMALL_CONFIGS)
def test_packed_rows_have_the_same_logits_as_alone(kind: str, attention: str) -> None:
    model = small_model(kind, attn_implementation=attention)
    batch = {name: tensor for name, tensor in collate_packed(ROWS).items() if name != "labels"}
    with torch.no_grad():
        with_detection = model(**batch, use_cache=False).logits[0]
        with skip_packing_detection(packed=True):
            without_detection = model(**batch, use_cache=False).logits[0]
        alone = torch.cat([model(input_ids=torch.tensor([row.input_ids])).logits[0] for row in ROWS])
        without_positions = model(input_ids=batch["input_ids"]).logits[0]
    torch.testing.assert_close(with_detection, alone, rtol=0, atol=1e-5)
    assert torch.equal(without_detection, with_detection)
    assert (without_positions - alone).abs().max() > 1e-2


@pytest.mark.parametrize("kind", SMALL_CONFIGS)
def test_models_that_mask_attention_by_positions_support_packing(kind: str) -> None:
    model = small_model(kind).train()
    assert supports_packing(model, ROWS)
    assert model.training


MIXING: dict[str, dict[str, Any]] = {
    "opt": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2},
    "falcon_h1": {**SMALL_CONFIGS["qwen2"], "head_dim": 16},  # separates the attention of packed rows, but not the state
}  # fmt: skip


@pytest.mark.parametrize("kind", MIXING)
def test_models_that_mix_packed_rows_do_not_support_packing(kind: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **TOKEN_CONFIG, **MIXING[kind]))
    assert not supports_packing(model, ROWS)
