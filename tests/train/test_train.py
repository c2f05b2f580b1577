"""Training keeps the best weights in every tensor, survives kill -9, and says what it costs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from support.project import TINY, environment, python_in
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    TrainerCallback,
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
from pipeline.train import stage as train
from pipeline.train.checkpoints import checkpoint_folder, checkpoint_key, last_checkpoint, load_weights
from pipeline.train.export import model_stats
from pipeline.train.history import history_rows
from pipeline.train.trainer import FineTuner

CPU = torch.device("cpu")
LOCAL = Local(kind="local", device="cpu")
Options = Callable[..., Any]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_details_are_those_that_the_tutorial_prints_for_pythia_70m() -> None:
    """EleutherAI/pythia-70m's configuration; the parameters are not needed, only their sizes."""
    config = GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        max_position_embeddings=2048,
    )
    details = model_stats(GPTNeoXForCausalLM(config), tokens=2048, accumulation=4)
    assert details["gflops_per_step_at_full_length"] == 2195.667812352
    assert round(details["memory_gb"], 4) == 0.2817
    assert details["parameters"] == details["trainable_parameters"] == 70_426_624


def test_the_model_kept_is_the_best_checkpoint_in_every_tensor(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A learning rate that wrecks the model after the first evaluations: best and last differ."""
    kept: dict[str, Any] = {}
    load_best = FineTuner._load_best_model

    def spy(trainer: Any) -> None:
        kept["last"] = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        best = Path(trainer.state.best_model_checkpoint)
        kept["best"] = {name: value.clone() for name, value in load_model(best).state_dict().items()}
        load_best(trainer)

    monkeypatch.setattr(FineTuner, "_load_best_model", spy)
    constant = {"kind": "constant_with_warmup"}
    options = train_options(max_steps=8, eval_steps=2, learning_rate=0.3, schedule=constant, warmup_steps=11)
    metrics = train.train(options, CPU)
    finetuned = load_model(Path("models/finetuned")).state_dict()
    assert (metrics["kept_step"], metrics["steps"]) == (4, 8)
    assert finetuned.keys() == kept["best"].keys()
    for name, value in finetuned.items():
        assert torch.equal(value, kept["best"][name]), name
    assert not torch.equal(kept["last"]["lm_head.weight"], kept["best"]["lm_head.weight"])


def test_loading_a_checkpoint_replaces_every_tensor_the_output_head_too(in_built: Path, tmp_path: Path) -> None:
    model = load_model(Path("models/base"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.save_pretrained(tmp_path / "checkpoint")
    target = load_model(Path("models/base"))
    load_weights(target, tmp_path / "checkpoint")
    for name, value in target.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_a_checkpoint_of_another_shape_is_refused(in_built: Path, tmp_path: Path) -> None:
    model = load_model(Path("models/base"))
    config = AutoConfig.from_pretrained("models/base")
    config.num_hidden_layers = 3
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(ModelError, match="does not fit the model"):
        load_weights(model, tmp_path / "checkpoint")


def test_training_writes_what_transformers_loads(in_built: Path, train_options: Options) -> None:
    train.train(train_options(max_steps=2), CPU)
    folder = Path("models/finetuned")
    assert not list(folder.glob("*.bin"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    answer = pipeline("text-generation", str(folder))("### Question:\nWhat is acne?\n### Answer:", max_new_tokens=3)
    assert answer[0]["generated_text"].startswith("### Question:\nWhat is acne?\n### Answer:")
    assert not Path(".checkpoints").exists() or not list(Path(".checkpoints").iterdir())


def test_the_same_training_gives_the_same_bytes_and_another_seed_others(in_built: Path, train_options: Options) -> None:
    written = []
    for seed in (0, 0, 1):
        train.train(train_options(max_steps=3, seed=seed), CPU)
        written.append(Path("models/finetuned/model.safetensors").read_bytes())
    assert written[0] == written[1] != written[2]


def test_the_history_has_no_empty_cell_and_the_losses_of_both_splits(in_built: Path, train_options: Options) -> None:
    metrics = train.train(train_options(max_steps=6, eval_steps=3), CPU)
    history = pd.read_csv("metrics/train/history.tsv", sep="\t")
    validation = pd.read_csv("metrics/train/validation.tsv", sep="\t")
    assert list(history.columns) == ["step", "loss", "learning_rate"]
    assert history["step"].tolist() == [2, 3, 4, 6]
    assert validation["step"].tolist() == [0, 3, 6]
    assert not history.isna().any(axis=None)
    assert metrics["validation_loss"] == min(validation["validation_loss"][1:])
    assert metrics["validation_loss_before"] == validation["validation_loss"][0]


def test_training_stops_early_when_validation_does_not_improve(in_built: Path, train_options: Options) -> None:
    stopping = {"patience": 1, "threshold": 100.0}
    metrics = train.train(train_options(max_steps=20, eval_steps=2, early_stopping=stopping), CPU)
    assert metrics["steps"] == 4


def test_a_training_that_diverges_ends_with_what_to_lower(in_built: Path, train_options: Options) -> None:
    wild = train_options(max_steps=200, learning_rate=9.9, optimizer="sgd", max_grad_norm=1e9, warmup_steps=0)
    with pytest.raises(ModelError, match=r"is nan at step \d+: training has diverged. Lower train.learning_rate"):
        train.train(wild, CPU)
    assert not Path("models/finetuned").exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_killed_in_mid_course_ends_as_if_it_had_not_been(in_built: Path, precision: str) -> None:
    """A real process, really killed, after its first checkpoint and before its second; then run again."""
    overrides = ("train.max_steps=7", "train.eval_steps=3", "train.logging_steps=2", f"train.precision={precision}")
    values = parse_params(Path("params.yaml").read_text())
    changes = {"max_steps": 7, "eval_steps": 3, "logging_steps": 2, "precision": precision}
    options = Train.model_validate({**values["train"], **changes, "gradient_accumulation": 2, "batch_size": 4})
    train.train(options, CPU, LOCAL)
    undisturbed = {path.name: path.read_bytes() for path in Path("models/finetuned").iterdir()}
    history = Path("metrics/train/history.tsv").read_bytes()

    small = ("train.gradient_accumulation=2", "train.batch_size=4")
    command = [sys.executable, "-u", "-m", "pipeline.train", *overrides, *small, "hydra.verbose=true"]
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

    train.train(options, CPU, LOCAL)
    assert not left.exists()
    assert {path.name: path.read_bytes() for path in Path("models/finetuned").iterdir()} == undisturbed
    assert Path("metrics/train/history.tsv").read_bytes() == history


@pytest.mark.parametrize("step", [3, 5])
def test_patience_is_not_used_up_by_being_interrupted(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Stops at step 8 undisturbed; logs at steps that are no checkpoints."""

    class Interrupt(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == step:
                raise KeyboardInterrupt

    stopping = {"patience": 3, "threshold": 100.0}
    options = train_options(max_steps=16, eval_steps=2, logging_steps=3, batch_size=4, early_stopping=stopping)
    assert train.train(options, CPU)["steps"] == 8
    undisturbed = Path("models/finetuned/model.safetensors").read_bytes()
    build = train.build_trainer

    def interrupted(*arguments: Any) -> Any:
        trainer = build(*arguments)
        trainer.add_callback(Interrupt())
        return trainer

    monkeypatch.setattr(train, "build_trainer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train(options, CPU)
    monkeypatch.setattr(train, "build_trainer", build)
    assert train.train(options, CPU)["steps"] == 8
    assert Path("models/finetuned/model.safetensors").read_bytes() == undisturbed


def test_a_checkpoint_cut_off_while_it_was_written_is_not_used(tmp_path: Path) -> None:
    for step, state in ((4, '{"global_step": 4}'), (8, '{"global_ste')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-12").mkdir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]


def test_checkpoints_belong_to_one_configuration_of_one_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train").write_text("a")
    key = checkpoint_key({"seed": 0}, tmp_path / "data")
    assert key == checkpoint_key({"seed": 0}, tmp_path / "data")
    assert key != checkpoint_key({"seed": 1}, tmp_path / "data")
    (tmp_path / "data/train").write_text("b")
    assert key != checkpoint_key({"seed": 0}, tmp_path / "data")


def test_a_training_that_still_runs_keeps_its_checkpoints_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with checkpoint_folder("key") as first, checkpoint_folder("key") as second:
        assert first == tmp_path / ".checkpoints/key"
        assert second != first
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


def test_a_step_that_was_logged_twice_is_one_row() -> None:
    logged = [{"step": 4, "loss": 2.0, "learning_rate": 0.1}, {"step": 4, "eval_validation_loss": 3.0}]
    resumed = [{"step": 4, "eval_validation_loss": 3.5}, {"step": 5, "train_runtime": 9.0}]
    assert history_rows(logged + resumed) == [{"step": 4, "loss": 2.0, "learning_rate": 0.1, "validation_loss": 3.0}]


def test_plain_text_trains_too(in_built: Path) -> None:
    rows = [{"text": f"A note about nothing in particular, number {i}."} for i in range(60)]
    Path("notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny = [each for each in TINY if not each.startswith("data.")]
    text = compose_params(*tiny, "data=file", "data.path=notes.jsonl", "format.near.threshold=0.99")
    Path("params.yaml").write_text(text)
    for module, *arguments in (("fetch", "instance=data"), ("clean",), ("format",), ("tokenize",)):
        done = python_in(in_built, f"pipeline.{module}", *arguments)
        assert done.returncode == 0, done.stderr
    params = validate_params(parse_params(text))
    train.train(params.train.model_copy(update={"max_steps": 2}), CPU)
    predictions, metrics = evaluate_model(
        read_jsonl(Path("data/formatted/test.jsonl")), Path("models/finetuned"), params.evaluate, CPU
    )
    assert set(metrics) == {"rows", "version", "loss", "perplexity", "loss_per_byte", "perplexity_per_byte"}
    assert set(predictions[0]) == {"id", "reference", "loss", "tokens", "bytes"}


def test_packed_batches_train_as_padded_ones_do(in_built: Path, train_options: Options) -> None:
    shared = {"max_steps": 6, "eval_steps": 3, "group_by_length": False}
    padded, packed = (train.train(train_options(**shared, packing=packing), CPU) for packing in (False, True))
    for name in ("validation_loss_before", "validation_loss", "loss"):
        assert packed[name] == pytest.approx(padded[name], rel=1e-4)


def test_a_model_that_mixes_packed_rows_is_refused(in_built: Path, train_options: Options) -> None:
    config = AutoConfig.for_model("bloom", vocab_size=400, hidden_size=32, n_layer=2, n_head=2)
    AutoModelForCausalLM.from_config(config).save_pretrained("models/base")
    with pytest.raises(ModelError, match=r"train\.packing: models/base \(bloom\) does not keep packed rows apart"):
        train.train(train_options(packing=True), CPU)
    assert not Path("models/finetuned").exists()
