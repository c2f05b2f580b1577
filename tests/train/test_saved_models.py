"""What is saved is what was trained: reloaded, merged and compared with the base, over the families."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from support.equal_trainings import LORA, Train, training_function
from support.small_models import FAMILIES, VOCABULARY

from pipeline.core.paths import BASE, FINETUNED
from pipeline.modeling.loading import load_model, load_tokenizer

IDS = torch.arange(3, 27).view(2, 12)
Options = Callable[..., Any]


@pytest.fixture(scope="module")
def train(train_options: Options, tmp_path_factory: pytest.TempPathFactory) -> Train:
    return training_function(train_options, tmp_path_factory)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("kind", FAMILIES)
def test_saved_model_is_the_trained_one_bit_for_bit(kind: str, train: Train) -> None:
    trained = train(kind)
    saved = load_model(trained.folder / FINETUNED)
    assert torch.equal(logits(saved), logits(trained.model))
    assert all(tensor.isfinite().all() for tensor in saved.state_dict().values())
    base, tuned = (load_tokenizer(trained.folder / name) for name in (BASE, FINETUNED))
    assert base.get_vocab() == tuned.get_vocab()
    assert saved.generation_config.eos_token_id == base.eos_token_id
    assert saved.get_input_embeddings().num_embeddings == VOCABULARY


@pytest.mark.parametrize("kind", FAMILIES)
def test_full_training_changes_every_tensor(kind: str, train: Train) -> None:
    trained = train(kind)
    base = load_model(trained.folder / BASE).state_dict()
    unchanged = [name for name, tensor in trained.weights.items() if torch.equal(tensor, base[name])]
    # A bias of the keys shifts all scores of a query alike, which softmax ignores: its gradient is rounding error.
    assert [name for name in unchanged if not name.endswith("k_proj.bias")] == []


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("kind", FAMILIES)
def test_adapter_on_the_base_is_the_merged_model(kind: str, train: Train) -> None:
    trained = train(kind, method=LORA)
    merged = load_model(trained.folder / FINETUNED)
    adapted = AutoPeftModelForCausalLM.from_pretrained(trained.folder / FINETUNED / "adapter")
    torch.testing.assert_close(logits(adapted), logits(merged), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(load_model(trained.folder / BASE)), logits(merged), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", FAMILIES)
def test_adapter_changes_the_linear_modules_and_nothing_else(kind: str, train: Train) -> None:
    trained = train(kind, method=LORA)
    base = load_model(trained.folder / BASE).state_dict()
    adapter = load_file(trained.folder / FINETUNED / "adapter/adapter_model.safetensors")
    targets = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] + ".weight" for name in adapter}
    changed = {name for name, tensor in trained.weights.items() if not torch.equal(tensor, base[name])}
    assert changed == targets
    assert all(tensor.isfinite().all() and tensor.any() for tensor in adapter.values())
