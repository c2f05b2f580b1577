"""pipeline/fetch/model_folder.py: models/base computes what plain transformers computes, and loads in it."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.small_models import WORDS, small_model, word_tokenizer
from support.sources import folder_model
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import ModelError
from pipeline.fetch.model_folder import fetch_model
from pipeline.modeling.encoding import load_encoder

IDS = torch.arange(3, 27).view(2, 12)
BASE = Path("models/base")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `mine` with a model and a tokenizer, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    small_model("llama").save_pretrained("mine")
    word_tokenizer().save_pretrained("mine")
    return Path("mine")


def fetch(folder: Path) -> dict[str, Any]:
    return fetch_model(folder_model(folder))


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.filterwarnings("ignore")  # peft's own, when it adds the adapter
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_adapter_beside_whole_weights_is_not_applied(mine: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    from peft import LoraConfig, get_peft_model

    module = {"llama": "q_proj", "gpt2": "c_attn"}[kind]
    model = small_model(kind)
    model.save_pretrained(mine)
    expected = logits(plain(mine))
    config = LoraConfig(r=2, target_modules=[module], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(mine)
    metrics = fetch(mine)
    assert torch.equal(logits(plain(BASE)), expected)
    assert not torch.equal(logits(plain(mine)), expected)  # what transformers makes of the folder
    assert metrics["files_left"] == ["adapter_config.json", "adapter_model.safetensors"]
    assert (
        "Warning: model.path=mine holds complete weights and an adapter. The weights are used as they are"
        in caplog.text
    )


def test_models_base_has_the_needed_files_and_its_source(mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name in ("optimizer.pt", "pytorch_model.bin", "trainer_state.json", "README.md"):
        (mine / name).write_text("{}")
    (mine / "checkpoint-5").mkdir()
    metrics = fetch(mine)
    assert sorted(os.listdir(BASE)) == [
        "config.json", "generation_config.json", "model.safetensors", "source.json", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    left = ["checkpoint-5/", "optimizer.pt", "pytorch_model.bin", "trainer_state.json"]
    assert metrics["files_left"] == left
    assert f"Not copied, because the model does not need them: {', '.join(left)}" in caplog.messages
    source = json.loads((BASE / "source.json").read_text())
    assert source == {"source": "folder", "name": "mine", "revision": metrics["revision"], "embeddings_added": 0}


def test_chat_template_and_generation_config_are_kept(mine: Path) -> None:
    (mine / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    (mine / "generation_config.json").write_text('{"eos_token_id": [2, 3], "do_sample": true, "temperature": 0.7}')
    fetch(mine)
    assert AutoTokenizer.from_pretrained(BASE).chat_template == "{{ messages[0]['content'] }}"
    assert plain(BASE).generation_config.eos_token_id == [2, 3]


def test_model_without_a_generation_config_is_taken(mine: Path) -> None:
    (mine / "generation_config.json").unlink()
    fetch(mine)
    assert torch.equal(logits(plain(BASE)), logits(plain(mine)))


def test_untied_head_is_kept_apart_from_the_embeddings(mine: Path) -> None:
    for is_tied in (False, True):
        small_model("llama", tie_word_embeddings=is_tied).save_pretrained(mine)
        fetch(mine)
        assert torch.equal(logits(plain(BASE)), logits(plain(mine)))
        assert ("lm_head.weight" in load_file(BASE / "model.safetensors")) != is_tied


def test_weights_beyond_the_language_model_are_counted(mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = load_file(mine / "model.safetensors")
    save_file({**tensors, "v_head.weight": torch.zeros(1, 32)}, mine / "model.safetensors", {"format": "pt"})
    assert fetch(mine)["tensors_unused"] == 1
    assert "These weights are not part of the language model and are not used: v_head.weight." in caplog.text


def test_smaller_vocabulary_than_embeddings_is_left_as_it_is(mine: Path) -> None:
    word_tokenizer(dict(list(WORDS.items())[:50])).save_pretrained(mine)
    metrics = fetch(mine)
    assert (metrics["embeddings_added"], metrics["pad_token_replaced"]) == (0, False)
    assert (BASE / "model.safetensors").read_bytes() == (mine / "model.safetensors").read_bytes()


def test_pad_token_beyond_the_embeddings_gives_way_to_the_end_of_text(
    mine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    word_tokenizer(pad_token="[PAD]").save_pretrained(mine)
    assert AutoTokenizer.from_pretrained(mine).pad_token_id == 101
    metrics = fetch(mine)
    assert (metrics["embeddings_added"], metrics["pad_token_replaced"]) == (0, True)
    assert (
        "Warning: The pad token [PAD] has no embedding (the model embeds 101 tokens): </s> is used for padding instead."
        in caplog.messages
    )
    tokenizer, encoder = AutoTokenizer.from_pretrained(BASE), load_encoder(BASE)
    assert (len(tokenizer), tokenizer.pad_token_id, encoder.pad_id) == (101, 2, 2)
    assert tokenizer("w3 w4").input_ids == [3, 4]
    assert (BASE / "model.safetensors").read_bytes() == (mine / "model.safetensors").read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox"])
def test_added_tokens_get_the_mean_of_the_embeddings(
    mine: Path, kind: str, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    """GPT-2's head is tied to its embeddings, the others' are not."""
    small_model(kind).to(dtype).save_pretrained(mine)
    tokenizer = word_tokenizer(pad_token="[PAD]")
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    tokenizer.save_pretrained(mine)
    before = AutoModelForCausalLM.from_pretrained(mine)
    assert before.dtype == dtype
    metrics = fetch(mine)
    assert (metrics["embeddings_added"], metrics["pad_token_replaced"]) == (3, False)
    assert "the tokenizer has 3 more: [PAD], <|im_start|>, <|im_end|>. Each starts with the mean" in caplog.text
    first = (BASE / "model.safetensors").read_bytes()
    after = AutoModelForCausalLM.from_pretrained(BASE)
    assert (after.dtype, after.config.vocab_size) == (dtype, 104)
    assert metrics["parameters"] == after.num_parameters()
    for old, new in (
        (before.get_input_embeddings(), after.get_input_embeddings()),
        (before.get_output_embeddings(), after.get_output_embeddings()),
    ):
        assert torch.equal(new.weight[:101], old.weight)
        assert torch.equal(new.weight[101:], old.weight.float().mean(0).to(dtype).expand(3, -1))
    torch.testing.assert_close(logits(after)[..., :101], logits(before), rtol=0, atol=0)
    fetch(mine)
    assert (BASE / "model.safetensors").read_bytes() == first


def test_sampling_options_survive_added_embeddings(mine: Path) -> None:
    generation = '{"eos_token_id": [2], "temperature": 0.7, "top_k": 9}'  # refused by save_pretrained
    (mine / "generation_config.json").write_text(generation)
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["<|im_end|>"])
    tokenizer.save_pretrained(mine)
    fetch(mine)
    assert (BASE / "generation_config.json").read_text() == generation


def test_tokenizer_of_another_model_is_refused(mine: Path) -> None:
    word_tokenizer({**WORDS, **{f"w{number}": number for number in range(101, 200)}}).save_pretrained(mine)
    with pytest.raises(ModelError) as error:
        fetch(mine)
    assert str(error.value) == (
        "model.path=mine: the tokenizer has 200 tokens, the model embeds 101: put the model's own tokenizer beside it"
    )
    assert not BASE.exists()


def test_custom_code_is_named_and_not_run(mine: Path) -> None:
    config = json.loads((mine / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (mine / "config.json").write_text(json.dumps({**config, **own}))
    (mine / "own.py").write_text("raise SystemExit('run')")
    with pytest.raises(
        ModelError, match=r"mine needs custom code \(auto_map in config.json\), and code of a model is never"
    ):
        fetch(mine)
