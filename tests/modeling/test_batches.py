"""pipeline/modeling/batches.py: packed rows are what they are alone, or the model is refused."""

from typing import Any

import pytest
import torch
from support.small_models import PLAIN, ROWS, SMALL, small
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.modeling.batches import collate_packed, skip_packing_detection, supports_packing


def test_packed_rows_stand_one_after_the_other() -> None:
    assert {name: each.tolist() for name, each in collate_packed(ROWS).items()} == {
        "input_ids": [[5, 6, 7, 8, 9, 3, 4, 2, 1, 9, 8, 7]],
        "position_ids": [[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]],
        "labels": [[-100, -100, 7, 8, 9, -100, 4, 2, -100, 9, 8, -100]],
    }


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", SMALL)
def test_packed_rows_have_the_logits_that_they_have_alone(kind: str, attention: str) -> None:
    model = small(kind, attn_implementation=attention)
    packed = {name: each for name, each in collate_packed(ROWS).items() if name != "labels"}
    with torch.no_grad():
        together = model(**packed, use_cache=False).logits[0]
        with skip_packing_detection(packed=True):
            known = model(**packed, use_cache=False).logits[0]
        alone = torch.cat([model(input_ids=torch.tensor([row.input_ids])).logits[0] for row in ROWS])
        unkept = model(input_ids=packed["input_ids"]).logits[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert torch.equal(known, together)
    assert (unkept - alone).abs().max() > 1e-2


@pytest.mark.parametrize("kind", SMALL)
def test_models_by_whose_positions_rows_are_told_apart_may_be_packed(kind: str) -> None:
    model = small(kind).train()
    assert supports_packing(model, ROWS)
    assert model.training


MIXING: dict[str, dict[str, Any]] = {
    "opt": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2},
    "falcon_h1": {**SMALL["qwen2"], "head_dim": 16},  # keeps the attention apart, not the state
}  # fmt: skip


@pytest.mark.parametrize("kind", MIXING)
def test_models_that_mix_packed_rows_are_told(kind: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **PLAIN, **MIXING[kind]))
    assert not supports_packing(model, ROWS)
