"""LoRA adapters and the models they are merged into; dropout, label smoothing and NEFTune, which do not outlast training."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from support.interruptions import kill_training
from support.project import TINY
from support.sources import folder_model
from tokenizers import AddedToken
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, MambaConfig, MambaForCausalLM

from pipeline.chat.row_format import ChatFormat, write_row_format
from pipeline.compose.composition import compose_params, parse_params
from pipeline.config.params import Train
from pipeline.core.files import read_parquet
from pipeline.core.paths import TOKENIZED
from pipeline.errors import ConfigError, ModelError
from pipeline.fetch.model_folder import fetch_model
from pipeline.modeling.encoding import load_encoder
from pipeline.modeling.generation import stop_conditions
from pipeline.modeling.loading import load_model
from pipeline.train import stage as train
from pipeline.train.answer_metric import GenerationMetric
from pipeline.train.build_trainer import build_trainer
from pipeline.train.checkpoint_manifest import last_checkpoint
from pipeline.train.methods import (
    dropout_changes,
    dropout_keys,
    load_adapter,
    load_trainable,
    merge_adapter,
    missing_for_qlora,
    target_module_error,
)
from pipeline.train.model_source import MODEL_SOURCE
from pipeline.train.trainer import FineTuner

CPU, BASE, FINETUNED = torch.device("cpu"), Path("models/base"), Path("models/finetuned")
LORA = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear"}
Options = Callable[..., Any]
IDS = torch.arange(3, 27).view(2, 12)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_adapter_on_the_base_and_the_merged_model_give_the_same_logits(
    lora_training: Any, recwarn: pytest.WarningsRecorder
) -> None:
    from peft import PeftModel

    base = lora_training.folder / BASE
    merged = logits(load_model(lora_training.finetuned))
    assert (merged - logits(load_model(base))).abs().max() > 0.05  # it has learned something
    recwarn.clear()
    with_adapter = PeftModel.from_pretrained(load_model(base), lora_training.finetuned / "adapter").eval()
    torch.testing.assert_close(logits(with_adapter), merged, rtol=0, atol=1e-5)
    # 2 layers of 4 modules, 32 × 96, 32 × 32, 32 × 128 and 128 × 32, each with matrices of rank 4
    assert lora_training.metrics["trainable_parameters"] == 2 * 4 * (128 + 64 + 160 + 160)
    assert lora_training.metrics["parameters"] == load_model(base).num_parameters() + 4096


def test_same_training_writes_the_same_adapter_except_its_base_path(
    in_built: Path, train_options: Options, lora_training: Any
) -> None:
    train.train(train_options(**lora_training.changes), CPU)
    files, others = files_in(FINETUNED), files_in(lora_training.finetuned)
    config, other_config = (json.loads(found.pop("adapter/adapter_config.json")) for found in (files, others))
    assert files == others
    assert {name for name in files if name.startswith("adapter")} == {
        "adapter/adapter_model.safetensors",
        "adapter/chat_template.jinja",
        "adapter/tokenizer.json",
        "adapter/tokenizer_config.json",
    }
    assert config.pop("base_model_name_or_path") == str(in_built / "models/base")  # random weights have no other folder
    assert other_config.pop("base_model_name_or_path") == str(lora_training.folder / "models/base")
    assert config == other_config
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 8.0, "CAUSAL_LM")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # in peft, about transformers' next version
@pytest.mark.parametrize("tokens", [[], ["<|im_start|>", "<|im_end|>"]], ids=["plain", "added tokens"])
def test_peft_loads_the_adapter_from_another_folder(
    in_built: Path, train_options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: list[str]
) -> None:
    """The base is a folder of the user's; for the added tokens, which it does not embed, the adapter has the embeddings."""
    from peft import AutoPeftModelForCausalLM

    shutil.copytree(BASE, "own/model", ignore=shutil.ignore_patterns(MODEL_SOURCE))
    tokenizer = AutoTokenizer.from_pretrained("own/model")
    tokenizer.add_tokens([AddedToken(token, special=True) for token in tokens])
    tokenizer.save_pretrained("own/model")
    metrics = fetch_model(folder_model("own/model"))
    assert metrics["embeddings_added"] == len(tokens)
    train.train(train_options(max_steps=2, method=LORA, learning_rate=0.01), CPU)
    config = json.loads((FINETUNED / "adapter/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (str(in_built / "own/model"), None)
    expected = load_model(FINETUNED)
    assert not torch.equal(logits(expected), logits(load_model(BASE)))
    adapter = (in_built / FINETUNED / "adapter").rename(tmp_path / "adapter")
    monkeypatch.chdir("/")
    loaded = AutoPeftModelForCausalLM.from_pretrained(adapter).eval()
    torch.testing.assert_close(logits(loaded), logits(expected), rtol=0, atol=1e-5)
    assert AutoTokenizer.from_pretrained(adapter).padding_side == "left"


@pytest.mark.parametrize("method", [{"kind": "full"}, LORA])
def test_end_tokens_of_the_base_and_the_rows_template_are_kept(
    in_built: Path, train_options: Options, method: dict[str, Any]
) -> None:
    """End tokens that are tokens of ordinary text here are not: another tokenizer's end of text."""
    config = {"eos_token_id": [1, 0, 7], "do_sample": True, "temperature": 0.5}
    (BASE / "generation_config.json").write_text(json.dumps(config))
    write_row_format(TOKENIZED, ChatFormat(source="{{ messages[0]['content'] }}", stop_tokens=[]))
    train.train(train_options(max_steps=1, method=method), CPU)
    assert AutoTokenizer.from_pretrained(FINETUNED).chat_template == "{{ messages[0]['content'] }}"
    generation = json.loads((FINETUNED / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["do_sample"]) == ([0, 1], False)
    for folder in (BASE, FINETUNED):
        assert stop_conditions(load_model(folder), load_encoder(folder), 8).end_ids == [0, 1]


def test_best_checkpoint_of_an_adapter_is_kept(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the steps 0, 2, 4 and 6, step 4 has the best score; its adapter is merged in every tensor."""
    load_best = FineTuner._load_best_model
    scores = iter([0.0, 0.1, 0.5, 0.2, 0.5])
    monkeypatch.setattr(GenerationMetric, "__call__", lambda self, model: {"f1": next(scores)})

    def spy(trainer: Any) -> None:
        torch.save(merge_adapter(BASE, Path(trainer.state.best_model_checkpoint)).state_dict(), "best.pt")
        load_best(trainer)

    monkeypatch.setattr(FineTuner, "_load_best_model", spy)
    stopping = {"metric": "f1", "max_new_tokens": 8}
    metrics = train.train(train_options(max_steps=6, eval_steps=2, method=LORA, early_stopping=stopping), CPU)
    assert (metrics["kept_step"], metrics["steps"]) == (4, 6)
    best, finetuned = torch.load("best.pt"), load_model(FINETUNED).state_dict()
    assert finetuned.keys() == best.keys()
    assert all(torch.equal(finetuned[name], best[name]) for name in finetuned)


def test_adapter_of_another_shape_is_refused(in_built: Path, train_options: Options) -> None:
    load_trainable(BASE, train_options(method=LORA), CPU).save_pretrained("checkpoint")
    for changes in ({"rank": 5}, {"target_modules": ["dense"]}):
        other = load_trainable(BASE, train_options(method={**LORA, **changes}), CPU)
        with pytest.raises(ModelError, match="checkpoint does not fit the adapter; remove it and train again"):
            load_adapter(other, Path("checkpoint"))


def test_killed_lora_training_resumes_to_the_same_result(in_built: Path) -> None:
    """A real process, really killed after its first checkpoint; with dropout and NEFTune, which draw random numbers."""
    method = {**LORA, "dropout": 0.1}
    changes = {"max_steps": 11, "eval_steps": 5, "logging_steps": 6, "batch_size": 4}
    changes |= {"dropout": 0.1, "neftune_alpha": 5.0}
    changes |= {f"method.{name}": value for name, value in method.items() if name != "kind"}
    overrides = ("train/method=lora", *(f"train.{name}={value}" for name, value in changes.items()))
    Path("params.yaml").write_text(compose_params(*TINY, *overrides))
    options = Train.model_validate(parse_params(Path("params.yaml").read_text())["train"])
    train.train(options, CPU)
    undisturbed = files_in(FINETUNED)

    kill_training(in_built, "step 6/11")
    (folder,) = (path for path in Path(".checkpoints").iterdir() if path.is_dir())
    assert last_checkpoint(folder) == folder / "checkpoint-5"

    train.train(options, CPU)
    assert files_in(FINETUNED) == undisturbed


def test_gradient_checkpointing_trains_an_adapter_to_the_same_weights(
    in_built: Path, train_options: Options, lora_training: Any
) -> None:
    train.train(train_options(**lora_training.changes, gradient_checkpointing=True), CPU)
    weights, expected = (load_model(folder).state_dict() for folder in (FINETUNED, lora_training.finetuned))
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name])


def test_error_about_missing_target_modules_lists_the_available_ones(in_built: Path, train_options: Options) -> None:
    method = {**LORA, "target_modules": ["q_proj", "dense", "layers.0.attention.dense", "embed_out"]}
    with pytest.raises(ConfigError) as error:
        load_trainable(BASE, train_options(method=method), CPU)
    assert str(error.value) == (
        "train.method.target_modules: the model has no linear module q_proj, embed_out "
        "for an adapter; it has dense, dense_4h_to_h, dense_h_to_4h, query_key_value"
    )


def test_state_space_model_gets_adapters_only_where_its_kernels_use_them(
    in_built: Path, train_options: Options
) -> None:
    config = MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1, state_size=4)
    model = MambaForCausalLM(config)
    assert "it has dt_proj, in_proj, x_proj" in (target_module_error(model, ["out_proj"]) or "")
    model.save_pretrained("models/base")
    train.train(train_options(max_steps=2, method=LORA, learning_rate=0.01), CPU)
    merged = merge_adapter(BASE, FINETUNED / "adapter")
    torch.testing.assert_close(logits(merged), logits(load_model(FINETUNED)))
    assert not torch.equal(logits(merged), logits(load_model(BASE)))


def test_gpt2_can_have_an_adapter(in_built: Path, train_options: Options) -> None:
    """Its linear modules are transposed (Conv1D), and its head shares the embedding's weights."""
    config = GPT2Config(vocab_size=400, n_positions=96, n_embd=32, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config)
    assert target_module_error(model, ["c_attn", "mlp.c_fc"]) is None
    assert target_module_error(model, ["lm_head"]) is not None
    model.save_pretrained("models/base")
    train.train(train_options(max_steps=2, method=LORA, learning_rate=0.01), CPU)
    merged = merge_adapter(BASE, FINETUNED / "adapter")
    assert torch.equal(logits(merged), logits(load_model(FINETUNED)))
    assert not torch.equal(logits(merged), logits(load_model(BASE)))


def test_dropout_applies_in_training_and_is_not_exported(
    in_built: Path, train_options: Options, full_training: Any
) -> None:
    model = load_trainable(BASE, train_options(dropout=0.3), CPU)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.3}
    assert (model.config.hidden_dropout, model.config.attention_dropout) == (0.3, 0.3)
    train.train(train_options(**full_training.changes, dropout=0.3), CPU)
    files, without_dropout = files_in(FINETUNED), files_in(full_training.finetuned)
    assert files["config.json"] == without_dropout["config.json"]
    assert files["model.safetensors"] != without_dropout["model.safetensors"]


def test_model_without_dropout_is_refused() -> None:
    assert dropout_keys(LlamaConfig()) == ["attention_dropout"]
    without_dropout = LlamaConfig()
    del without_dropout.attention_dropout
    with pytest.raises(ConfigError, match=r"train.dropout: 0.1, but a llama model has no dropout; use null"):
        dropout_changes(without_dropout, 0.1)


def first_batch(trainer: Any) -> dict[str, torch.Tensor]:
    rows = read_parquet(Path("data/tokenized/train.parquet")).slice(0, 4).to_pylist()
    return trainer.data_collator(rows)


@pytest.mark.parametrize("method", [{"kind": "full"}, LORA])
def test_label_smoothing_changes_the_training_loss_but_not_the_validation_loss(
    in_built: Path, train_options: Options, method: dict[str, Any]
) -> None:
    """The training loss is torch's own with label_smoothing; the validation loss before training is the base model's."""
    plain = build_trainer(train_options(method=method), BASE, Path("data/tokenized"), Path("plain"), CPU)
    smooth = build_trainer(
        train_options(method=method, label_smoothing=0.2), BASE, Path("data/tokenized"), Path("smooth"), CPU
    )
    batch = first_batch(smooth)
    loss = smooth.compute_loss(smooth.model, dict(batch))
    all_logits = smooth.model(input_ids=batch["input_ids"]).logits
    expected = cross_entropy(all_logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), label_smoothing=0.2)
    torch.testing.assert_close(loss, expected)
    assert not torch.isclose(loss, plain.compute_loss(plain.model, dict(batch)))
    loss, expected = (trainer.evaluate()["eval_validation_loss"] for trainer in (smooth, plain))
    assert loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", [{"kind": "full"}, LORA])
def test_neftune_adds_noise_in_training_only(in_built: Path, train_options: Options, method: dict[str, Any]) -> None:
    """At most alpha / √(tokens × hidden size) on each element of an embedding: 5 / √(12 × 32)."""
    differences: dict[str, float] = {}

    class NoiseMeter(FineTuner):
        def training_step(self, model: Any, *arguments: Any, **rest: Any) -> torch.Tensor:
            embedding = model.get_input_embeddings()
            embedding.train()
            clean = torch.nn.functional.embedding(IDS, embedding.weight)
            differences["noise"] = (embedding(IDS) - clean).abs().max().item()
            embedding.eval()
            differences["evaluation"] = (embedding(IDS) - clean).abs().max().item()
            return super().training_step(model, *arguments, **rest)

    trainer = build_trainer(
        train_options(max_steps=1, neftune_alpha=5.0, method=method), BASE, Path("data/tokenized"), Path("noise"), CPU
    )
    trainer.__class__ = NoiseMeter
    trainer.train()
    bound = 5 / (12 * 32) ** 0.5
    assert 0.9 * bound < differences["noise"] <= bound
    assert differences["evaluation"] == 0.0
    embedding = trainer.model.get_input_embeddings()
    assert not embedding._forward_hooks
    assert not hasattr(embedding, "neftune_noise_alpha")


@pytest.mark.skipif(
    find_spec("bitsandbytes") is not None or torch.cuda.is_available(), reason="this machine may run QLoRA"
)
def test_qlora_is_refused_where_it_cannot_run(in_built: Path, train_options: Options) -> None:
    error = missing_for_qlora("cpu")
    assert error is not None
    assert "a CUDA GPU" in error
    assert "bitsandbytes" in error
    with pytest.raises(ConfigError, match=r"train.method: qlora needs a CUDA GPU"):
        load_trainable(BASE, train_options(method={**LORA, "kind": "qlora"}), CPU)
