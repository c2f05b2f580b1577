"""Training keeps the best weights, writes what transformers loads, resumes after kill -9, and measures its cost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from support.interruptions import interrupt_training, kill_training
from support.project import TINY, python_in
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    pipeline,
)

from pipeline.compose.composition import compose_params, parse_params
from pipeline.config.options import Local
from pipeline.config.params import Train
from pipeline.config.validation import validate_params
from pipeline.core.files import read_jsonl
from pipeline.errors import ModelError
from pipeline.evaluate.stage import evaluate_model
from pipeline.modeling.loading import load_model
from pipeline.modeling.resume_key import ResumeKey
from pipeline.train import stage as train
from pipeline.train.checkpoint_manifest import last_checkpoint, write_manifest
from pipeline.train.checkpoints import checkpoint_folder, checkpoint_key, load_weights
from pipeline.train.export import model_stats
from pipeline.train.history import history_rows
from pipeline.train.other_checkpoints import start_checkpoints
from pipeline.train.trainer import FineTuner

CPU = torch.device("cpu")
LOCAL = Local(kind="local", device="cpu", threads=None)
FINETUNED = Path("models/finetuned")
Options = Callable[..., Any]


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_model_stats_match_the_tutorial_for_pythia_70m() -> None:
    """EleutherAI/pythia-70m's configuration; the weights do not matter, only their sizes."""
    config = GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        max_position_embeddings=2048,
    )
    stats = model_stats(GPTNeoXForCausalLM(config), row_tokens=2048, rows=4)
    assert stats["gflops_per_step_at_full_length"] == 2195.667812352
    assert round(stats["memory_gb"], 4) == 0.2817
    assert stats["parameters"] == stats["trainable_parameters"] == 70_426_624


def test_best_checkpoint_is_kept_in_every_tensor(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learning rate wrecks the model after the first evaluations, so the best and the last weights differ."""
    weights: dict[str, Any] = {}
    load_best = FineTuner._load_best_model

    def spy(trainer: Any) -> None:
        weights["last"] = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        best = Path(trainer.state.best_model_checkpoint)
        weights["best"] = {name: tensor.clone() for name, tensor in load_model(best).state_dict().items()}
        load_best(trainer)

    monkeypatch.setattr(FineTuner, "_load_best_model", spy)
    constant = {"kind": "constant_with_warmup"}
    options = train_options(max_steps=8, eval_steps=2, learning_rate=0.3, schedule=constant, warmup_steps=11)
    metrics = train.train(options, CPU)
    finetuned = load_model(FINETUNED).state_dict()
    assert (metrics["kept_step"], metrics["steps"]) == (4, 8)
    assert finetuned.keys() == weights["best"].keys()
    for name, tensor in finetuned.items():
        assert torch.equal(tensor, weights["best"][name]), name
    assert not torch.equal(weights["last"]["lm_head.weight"], weights["best"]["lm_head.weight"])


def test_loading_a_checkpoint_replaces_every_tensor_even_the_output_head(in_built: Path, tmp_path: Path) -> None:
    model = load_model(Path("models/base"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.save_pretrained(tmp_path / "checkpoint")
    target = load_model(Path("models/base"))
    load_weights(target, tmp_path / "checkpoint")
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_checkpoint_of_another_shape_is_refused(in_built: Path, tmp_path: Path) -> None:
    model = load_model(Path("models/base"))
    config = AutoConfig.from_pretrained("models/base")
    config.num_hidden_layers = 3
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(ModelError, match="does not fit the model; remove it and train again"):
        load_weights(model, tmp_path / "checkpoint")


def test_transformers_loads_the_finetuned_model(full_training: Any) -> None:
    folder = full_training.finetuned
    assert not list(folder.glob("*.bin"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.padding_side == "left"
    answer = pipeline("text-generation", str(folder))("### Question:\nWhat is acne?\n### Answer:", max_new_tokens=3)
    assert answer[0]["generated_text"].startswith("### Question:\nWhat is acne?\n### Answer:")
    checkpoints = full_training.folder / ".checkpoints"
    assert not checkpoints.exists() or not list(checkpoints.iterdir())


def test_same_seed_gives_the_same_bytes_and_another_seed_others(
    in_built: Path, train_options: Options, full_training: Any
) -> None:
    weights = [(full_training.finetuned / "model.safetensors").read_bytes()]
    for seed in (0, 1):
        train.train(train_options(**full_training.changes, seed=seed), CPU)
        weights.append((FINETUNED / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_history_has_the_losses_of_both_splits_and_no_empty_cell(full_training: Any) -> None:
    history = pd.read_csv(full_training.folder / "metrics/train/history.tsv", sep="\t")
    validation = pd.read_csv(full_training.folder / "metrics/train/validation.tsv", sep="\t")
    assert list(history.columns) == ["step", "loss", "learning_rate"]
    assert history["step"].tolist() == [2, 3, 4, 6]
    assert validation["step"].tolist() == [0, 3, 6]
    assert not history.isna().any(axis=None)
    assert full_training.metrics["validation_loss"] == min(validation["validation_loss"][1:])
    assert full_training.metrics["validation_loss_before"] == validation["validation_loss"][0]


def test_training_stops_early_when_validation_does_not_improve(in_built: Path, train_options: Options) -> None:
    stopping = {"patience": 1, "threshold": 100.0}
    metrics = train.train(train_options(max_steps=20, eval_steps=2, early_stopping=stopping), CPU)
    assert metrics["steps"] == 4


def test_diverging_training_stops_with_advice(in_built: Path, train_options: Options) -> None:
    wild = train_options(max_steps=200, learning_rate=9.9, optimizer="sgd", max_grad_norm=1e9, warmup_steps=0)
    with pytest.raises(ModelError, match=r"is nan at step \d+: rows .* Training has diverged: lower train.learning"):
        train.train(wild, CPU)
    assert not FINETUNED.exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_training_resumes_to_the_same_result(in_built: Path, precision: str) -> None:
    """A real process, really killed between its first two checkpoints, at a step whose log is not at a checkpoint."""
    changes = {"max_steps": 11, "eval_steps": 5, "logging_steps": 6, "batch_size": 4, "gradient_accumulation": 2}
    changes |= {"precision": precision}
    values = parse_params(Path("params.yaml").read_text())
    options = Train.model_validate({**values["train"], **changes})
    train.train(options, CPU, LOCAL)
    undisturbed = files_in(FINETUNED)
    history = Path("metrics/train/history.tsv").read_bytes()

    kill_training(in_built, "step 6/11", *(f"train.{name}={value}" for name, value in changes.items()))
    (folder,) = (path for path in Path(".checkpoints").iterdir() if path.is_dir())
    assert last_checkpoint(folder) == folder / "checkpoint-5"

    train.train(options, CPU, LOCAL)
    assert not folder.exists()
    assert files_in(FINETUNED) == undisturbed
    assert Path("metrics/train/history.tsv").read_bytes() == history


def test_interruptions_do_not_use_up_patience(in_built: Path, train_options: Options) -> None:
    """Early stopping ends the undisturbed training at step 8; logs are not at the checkpoints' steps."""
    stopping = {"patience": 3, "threshold": 100.0}
    options = train_options(max_steps=16, eval_steps=2, logging_steps=3, batch_size=4, early_stopping=stopping)
    assert train.train(options, CPU)["steps"] == 8
    undisturbed = (FINETUNED / "model.safetensors").read_bytes()
    for steps in (3, 5):
        shutil.rmtree(FINETUNED)
        interrupt_training(options, steps)
        assert train.train(options, CPU)["steps"] == 8
        assert (FINETUNED / "model.safetensors").read_bytes() == undisturbed


def test_incomplete_checkpoints_are_not_used(tmp_path: Path) -> None:
    for step in (4, 8):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text('{"best_model_checkpoint": null}')
    write_manifest(tmp_path / "checkpoint-4")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]


def test_checkpoints_belong_to_their_parameters_and_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train").write_text("a")
    cpu = torch.device("cpu")
    key = checkpoint_key({"seed": 0}, cpu, tmp_path / "data")
    assert key == checkpoint_key({"seed": 0}, cpu, tmp_path / "data")
    assert key != checkpoint_key({"seed": 1}, cpu, tmp_path / "data")
    (tmp_path / "data/train").write_text("b")
    assert key != checkpoint_key({"seed": 0}, cpu, tmp_path / "data")


def write_checkpoint(folder: Path, key: ResumeKey, step: int) -> None:
    """The folder that a killed training with this key leaves below `folder`."""
    start_checkpoints(folder / key.digest, key)
    checkpoint = folder / key.digest / f"checkpoint-{step}"
    checkpoint.mkdir()
    write_manifest(checkpoint)


def test_checkpoints_of_other_trainings_are_named_with_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path(".checkpoints")
    root.mkdir()
    key = ResumeKey(
        {"parameters": {"seed": 0}, "content": {"data": "1", "models": "1"}, "code": "a", "environment": {}}
    )
    assert start_checkpoints(root / key.digest, key) == []
    other = ResumeKey(
        {**key.dependencies, "parameters": {"seed": 7}, "content": {"data": "2", "models": "1"}, "code": "b"}
    )
    write_checkpoint(root, other, 40)
    kept = f".checkpoints/{other.digest}"
    assert start_checkpoints(root / key.digest, key) == [
        f"Not resuming from {kept}/checkpoint-40, which is of another training: seed 7 (now 0), other data, other code. "
        f"To remove it: rm -r {kept}"
    ]
    (root / other.digest / "key.json").unlink()
    assert "another training: made by another version of the pipeline." in start_checkpoints(root / key.digest, key)[0]
    with checkpoint_folder(other.digest):  # it trains at this moment
        assert start_checkpoints(root / key.digest, key) == []


def test_running_training_does_not_share_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with checkpoint_folder("key") as first, checkpoint_folder("key") as second:
        assert first == tmp_path / ".checkpoints/key"
        assert second != first
    assert "The same training is already running" in caplog.text
    assert not list((tmp_path / ".checkpoints").iterdir())


def test_checkpoints_stay_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))

    def fail() -> None:
        with checkpoint_folder("key") as folder:
            (folder / "checkpoint-1").mkdir(parents=True)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / ".checkpoints/key/checkpoint-1").exists()


def test_step_that_was_logged_twice_is_one_row() -> None:
    first_run = [{"step": 4, "loss": 2.0, "learning_rate": 0.1}, {"step": 4, "eval_validation_loss": 3.0}]
    resumed_run = [{"step": 4, "eval_validation_loss": 3.5}, {"step": 5, "train_runtime": 9.0}]
    assert history_rows(first_run + resumed_run) == [
        {"step": 4, "loss": 2.0, "learning_rate": 0.1, "validation_loss": 3.0}
    ]


def test_plain_text_trains_too(in_built: Path) -> None:
    rows = [{"text": f"A note about nothing in particular, number {i}."} for i in range(60)]
    Path("notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny = [override for override in TINY if not override.startswith("data.")]
    text = compose_params(*tiny, "data=file", "data.path=notes.jsonl", "format.near.threshold=0.99")
    Path("params.yaml").write_text(text)
    for module, *arguments in (("fetch", "instance=data"), ("clean",), ("format",), ("tokenize",)):
        done = python_in(in_built, f"pipeline.{module}", *arguments)
        assert done.returncode == 0, done.stderr
    params = validate_params(parse_params(text))
    train.train(params.train.model_copy(update={"max_steps": 2}), CPU)
    predictions, metrics = evaluate_model(
        read_jsonl(Path("data/formatted/test.jsonl")), FINETUNED, params.evaluate, CPU
    )
    assert set(metrics) == {"rows", "version", "loss", "perplexity", "loss_per_byte", "perplexity_per_byte"}
    assert set(predictions[0]) == {"id", "reference", "loss", "tokens", "bytes"}


def test_packed_batches_train_like_padded_ones(in_built: Path, train_options: Options, full_training: Any) -> None:
    packed = train.train(train_options(**full_training.changes, packing=True), CPU)
    for name in ("validation_loss_before", "validation_loss", "loss"):
        assert packed[name] == pytest.approx(full_training.metrics[name], rel=1e-4)


def test_model_without_packing_support_is_refused(in_built: Path, train_options: Options) -> None:
    config = AutoConfig.for_model("bloom", vocab_size=400, hidden_size=32, n_layer=2, n_head=2)
    AutoModelForCausalLM.from_config(config).save_pretrained("models/base")
    with pytest.raises(ModelError, match=r"train\.packing: models/base \(bloom\) does not keep packed rows apart"):
        train.train(train_options(packing=True), CPU)
    assert not FINETUNED.exists()
