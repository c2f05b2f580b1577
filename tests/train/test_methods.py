"""LoRA, its adapter and what it is merged into; dropout, label smoothing and NEFTune, which leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from support.project import environment
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, MambaConfig, MambaForCausalLM

from pipeline.core.files import read_parquet
from pipeline.errors import ConfigError, ModelError
from pipeline.modeling.loading import load_model
from pipeline.train import stage as train
from pipeline.train.answer_metric import GenerationMetric
from pipeline.train.build import build_trainer
from pipeline.train.checkpoints import last_checkpoint
from pipeline.train.methods import (
    dropout_changes,
    dropout_keys,
    load_adapter,
    load_trainable,
    missing_for_qlora,
    target_module_error,
)
from pipeline.train.methods import merge_adapter as merge
from pipeline.train.trainer import FineTuner

CPU, BASE, FINETUNED = torch.device("cpu"), Path("models/base"), Path("models/finetuned")
LORA = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear"}
Options = Callable[..., Any]
IDS = torch.arange(3, 27).view(2, 12)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_adapter_on_the_base_and_the_merged_model_give_the_same_logits(
    in_built: Path, train_options: Options, recwarn: pytest.WarningsRecorder
) -> None:
    from peft import PeftModel

    metrics = train.train(train_options(max_steps=4, method=LORA, learning_rate=0.01), CPU)
    tuned = logits(load_model(FINETUNED))
    assert (tuned - logits(load_model(BASE))).abs().max() > 0.05  # it has learned something
    recwarn.clear()
    adapted = PeftModel.from_pretrained(load_model(BASE), FINETUNED / "adapter").eval()
    torch.testing.assert_close(logits(adapted), tuned, rtol=0, atol=1e-5)
    # 2 layers of 4 modules, 32 × 96, 32 × 32, 32 × 128 and 128 × 32, each with matrices of rank 4
    assert metrics["trainable_parameters"] == 2 * 4 * (128 + 64 + 160 + 160)
    assert metrics["parameters"] == load_model(BASE).num_parameters() + 4096


def test_what_an_adapter_leaves_is_the_same_each_time_and_names_no_folder_of_this_machine(
    in_built: Path, train_options: Options
) -> None:
    written = []
    for _ in range(2):
        train.train(train_options(max_steps=2, method=LORA), CPU)
        written.append(files(FINETUNED))
    assert written[0] == written[1]
    assert {name for name in written[0] if name.startswith("adapter")} == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    config = json.loads(written[0]["adapter/adapter_config.json"])
    assert config["base_model_name_or_path"] == "models/base"
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 8.0, "CAUSAL_LM")


def test_the_adapter_kept_is_the_best_checkpoint(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the scores of steps 0, 2, 4 and 6, the best is that of step 4, and it is merged in every tensor."""
    load_best = FineTuner._load_best_model
    scores = iter([0.0, 0.1, 0.5, 0.2, 0.5])
    monkeypatch.setattr(GenerationMetric, "__call__", lambda self, model: {"f1": next(scores)})

    def spy(trainer: Any) -> None:
        torch.save(merge(BASE, Path(trainer.state.best_model_checkpoint)).state_dict(), "best.pt")
        load_best(trainer)

    monkeypatch.setattr(FineTuner, "_load_best_model", spy)
    stopping = {"metric": "f1", "max_new_tokens": 8}
    metrics = train.train(train_options(max_steps=6, eval_steps=2, method=LORA, early_stopping=stopping), CPU)
    assert (metrics["kept_step"], metrics["steps"]) == (4, 6)
    best, found = torch.load("best.pt"), load_model(FINETUNED).state_dict()
    assert found.keys() == best.keys()
    assert all(torch.equal(found[name], best[name]) for name in found)


def test_an_adapter_of_another_shape_is_refused(in_built: Path, train_options: Options) -> None:
    load_trainable(BASE, train_options(method=LORA), CPU).save_pretrained("checkpoint")
    for changes in ({"rank": 5}, {"target_modules": ["dense"]}):
        other = load_trainable(BASE, train_options(method={**LORA, **changes}), CPU)
        with pytest.raises(ModelError, match="checkpoint does not fit the adapter"):
            load_adapter(other, Path("checkpoint"))


def test_an_adapters_training_that_is_killed_ends_as_if_it_had_not_been(in_built: Path, train_options: Options) -> None:
    """A real process, really killed after its first checkpoint; with dropout and NEFTune, which draw numbers."""
    overrides = ["train/method=lora"]  # params.yaml has no groups: they are composed into it
    method = {**LORA, "dropout": 0.1}
    subprocess.run(
        [
            *(sys.executable, "-m", "pipeline.compose", *overrides),
            *(f"train.method.{name}={value}" for name, value in method.items() if name != "kind"),
            *composed_changes(),
        ],
        cwd=in_built,
        env=environment(),
        check=True,
    )
    from pipeline.compose.composition import parse_params
    from pipeline.config.params import Train

    options = Train.model_validate(parse_params(Path("params.yaml").read_text())["train"])
    train.train(options, CPU)
    undisturbed = files(FINETUNED)

    command = [sys.executable, "-u", "-m", "pipeline.train", "hydra.verbose=true"]
    process = subprocess.Popen(command, cwd=in_built, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 4/7"):
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    (left,) = (path for path in Path(".checkpoints").iterdir() if path.is_dir())
    assert last_checkpoint(left) == left / "checkpoint-3"

    train.train(options, CPU)
    assert files(FINETUNED) == undisturbed


def composed_changes() -> list[str]:
    from support.project import TINY

    changes = ("max_steps=7", "eval_steps=3", "batch_size=4", "dropout=0.1", "neftune_alpha=5.0")
    return [*TINY, *(f"train.{each}" for each in changes)]


def test_gradient_checkpointing_trains_an_adapter_to_the_same_weights(in_built: Path, train_options: Options) -> None:
    written = []
    for checkpointing in (False, True):
        train.train(train_options(max_steps=2, method=LORA, gradient_checkpointing=checkpointing), CPU)
        written.append(load_model(FINETUNED).state_dict())
    for name in written[0]:
        torch.testing.assert_close(written[0][name], written[1][name])


def test_a_module_that_the_model_lacks_is_told_with_those_that_it_has(in_built: Path, train_options: Options) -> None:
    method = {**LORA, "target_modules": ["q_proj", "dense", "layers.0.attention.dense", "embed_out"]}
    with pytest.raises(ConfigError) as error:
        load_trainable(BASE, train_options(method=method), CPU)
    assert str(error.value) == (
        "train.method.target_modules: the model has no linear module q_proj, embed_out "
        "for an adapter; it has dense, dense_4h_to_h, dense_h_to_4h, query_key_value"
    )


def test_a_model_with_a_state_takes_an_adapter_where_its_kernels_see_it(in_built: Path, train_options: Options) -> None:
    config = MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1, state_size=4)
    model = MambaForCausalLM(config)
    assert "it has dt_proj, in_proj, x_proj" in (target_module_error(model, ["out_proj"]) or "")
    model.save_pretrained("models/base")
    train.train(train_options(max_steps=2, method=LORA, learning_rate=0.01), CPU)
    adapted = merge(BASE, FINETUNED / "adapter")
    torch.testing.assert_close(logits(adapted), logits(load_model(FINETUNED)))
    assert not torch.equal(logits(adapted), logits(load_model(BASE)))


def test_gpt2_takes_an_adapter_too(in_built: Path, train_options: Options) -> None:
    """Its linear modules are transposed ones (Conv1D), and its head shares the embedding's weights."""
    config = GPT2Config(vocab_size=400, n_positions=96, n_embd=32, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config)
    assert target_module_error(model, ["c_attn", "mlp.c_fc"]) is None
    assert target_module_error(model, ["lm_head"]) is not None
    model.save_pretrained("models/base")
    train.train(train_options(max_steps=2, method=LORA, learning_rate=0.01), CPU)
    adapted = merge(BASE, FINETUNED / "adapter")
    assert torch.equal(logits(adapted), logits(load_model(FINETUNED)))
    assert not torch.equal(logits(adapted), logits(load_model(BASE)))


def test_dropout_is_in_training_and_not_in_what_is_kept(in_built: Path, train_options: Options) -> None:
    model = load_trainable(BASE, train_options(dropout=0.3), CPU)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.3}
    assert (model.config.hidden_dropout, model.config.attention_dropout) == (0.3, 0.3)
    written = []
    for dropout in (None, 0.3):
        train.train(train_options(max_steps=2, dropout=dropout), CPU)
        written.append(files(FINETUNED))
    assert written[0]["config.json"] == written[1]["config.json"]
    assert written[0]["model.safetensors"] != written[1]["model.safetensors"]


def test_a_model_without_dropout_is_told() -> None:
    assert dropout_keys(LlamaConfig()) == ["attention_dropout"]
    bare = LlamaConfig()
    del bare.attention_dropout
    with pytest.raises(ConfigError, match=r"train.dropout: 0.1, but a llama model has no dropout; use null"):
        dropout_changes(bare, 0.1)


def first_batch(trainer: Any) -> dict[str, torch.Tensor]:
    rows = read_parquet(Path("data/tokenized/train.parquet")).slice(0, 4).to_pylist()
    return trainer.data_collator(rows)


@pytest.mark.parametrize("method", [{"kind": "full"}, LORA])
def test_label_smoothing_is_in_the_training_loss_and_not_in_the_validation_loss(
    in_built: Path, train_options: Options, method: dict[str, Any]
) -> None:
    """The training loss is torch's own with label_smoothing; the validation loss at step 0 is that of the base."""
    plain = build_trainer(train_options(method=method), BASE, Path("data/tokenized"), Path("plain"), CPU)
    smooth = build_trainer(
        train_options(method=method, label_smoothing=0.2), BASE, Path("data/tokenized"), Path("smooth"), CPU
    )
    batch = first_batch(smooth)
    found = smooth.compute_loss(smooth.model, dict(batch))
    outputs = smooth.model(input_ids=batch["input_ids"]).logits
    expected = cross_entropy(outputs[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), label_smoothing=0.2)
    torch.testing.assert_close(found, expected)
    assert not torch.isclose(found, plain.compute_loss(plain.model, dict(batch)))
    found, expected = (each.evaluate()["eval_validation_loss"] for each in (smooth, plain))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", [{"kind": "full"}, LORA])
def test_neftune_is_noise_while_training_alone_and_gone_afterwards(
    in_built: Path, train_options: Options, method: dict[str, Any]
) -> None:
    """At most alpha / √(tokens × hidden size) on each number of an embedding: 5 / √(12 × 32)."""
    seen: dict[str, float] = {}

    class Look(FineTuner):
        def training_step(self, model: Any, *arguments: Any, **rest: Any) -> torch.Tensor:
            embedding = model.get_input_embeddings()
            embedding.train()
            clean = torch.nn.functional.embedding(IDS, embedding.weight)
            seen["noise"] = (embedding(IDS) - clean).abs().max().item()
            embedding.eval()
            seen["evaluation"] = (embedding(IDS) - clean).abs().max().item()
            return super().training_step(model, *arguments, **rest)

    trainer = build_trainer(
        train_options(max_steps=1, neftune_alpha=5.0, method=method), BASE, Path("data/tokenized"), Path("noise"), CPU
    )
    trainer.__class__ = Look
    trainer.train()
    bound = 5 / (12 * 32) ** 0.5
    assert 0.9 * bound < seen["noise"] <= bound
    assert seen["evaluation"] == 0.0
    embedding = trainer.model.get_input_embeddings()
    assert not embedding._forward_hooks
    assert not hasattr(embedding, "neftune_noise_alpha")


@pytest.mark.skipif(find_spec("bitsandbytes") is not None or torch.cuda.is_available(), reason="this machine has some")
def test_qlora_is_refused_where_it_cannot_run(in_built: Path, train_options: Options) -> None:
    told = missing_for_qlora("cpu")
    assert told is not None
    assert "a CUDA card" in told
    assert "bitsandbytes" in told
    with pytest.raises(ConfigError, match=r"train.method: qlora needs a CUDA card"):
        load_trainable(BASE, train_options(method={**LORA, "kind": "qlora"}), CPU)
