"""The step log, and trainings that stop at the first loss or gradient norm that is not finite."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState
from support.project import SHIPPED, TINY, python_in
from transformers import TrainerCallback, TrainingArguments

from pipeline.compose.composition import compose_params
from pipeline.core.files import read_parquet
from pipeline.core.paths import BASE, FINETUNED, TOKENIZED, TRAIN_STEPS
from pipeline.errors import ModelError
from pipeline.modeling.collation import skip_packing_detection
from pipeline.modeling.loading import load_model, nonfinite_weights
from pipeline.train import logged_trainer
from pipeline.train import stage as train
from pipeline.train.build_trainer import build_trainer
from pipeline.train.export import export_model
from pipeline.train.logged_trainer import LoggedTrainer
from pipeline.train.sample_order import sample_order
from pipeline.train.step_log import LoggedStep, read_step_log, rows_hash, write_step_log

Options = Callable[..., Any]
CPU, META = torch.device("cpu"), torch.device("meta")
LORA = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.1, "target_modules": "all-linear"}
CONSTANT = {"schedule": {"kind": "constant"}, "warmup_steps": 0}
OVERFLOWING = 3e38  # finite, but the sum of two is not


def rows_in_order(batch_rows: int) -> list[dict[str, Any]]:
    """The training rows in the order of the first epoch, with that many rows in a step."""
    rows = read_parquet(TOKENIZED / "train.parquet").to_pylist()
    generator = np.random.default_rng([0, 0])
    lengths = [row["length"] for row in rows]
    return [rows[index] for index in sample_order(lengths, batch_rows, lambda n: generator.permutation(n).tolist())]


def plant_embedding(split: str, row_id: int, value: float = OVERFLOWING) -> int:
    """Give a row a token that no other row has, and that token an embedding of this value; return the token."""
    tables = {name: read_parquet(TOKENIZED / f"{name}.parquet") for name in ("train", "validation")}
    rows = {name: table.to_pylist() for name, table in tables.items()}
    used = {token for split_rows in rows.values() for row in split_rows for token in row["input_ids"]}
    token = max(set(range(400)) - used)
    (row,) = (row for row in rows[split] if row["id"] == row_id)
    row["input_ids"][1] = token
    pq.write_table(pa.Table.from_pylist(rows[split], tables[split].schema), TOKENIZED / f"{split}.parquet")
    model = load_model(BASE)
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = value
    model.save_pretrained(BASE)
    return token


def failing_trainer(options: Any, message: str, *callbacks: TrainerCallback) -> Any:
    """Train with these callbacks, expect an error that matches, and return the Trainer."""
    trainers, build = [], train.build_trainer

    def build_and_remember(*arguments: Any) -> Any:
        trainers.append(build(*arguments))
        for callback in callbacks:
            trainers[-1].add_callback(callback)
        return trainers[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "build_trainer", build_and_remember)
        with pytest.raises(ModelError, match=message):
            train.train(options, CPU)
    assert not FINETUNED.exists()
    return trainers[-1] if trainers else None


def kept_checkpoints() -> list[str]:
    return sorted(path.name for path in Path(".checkpoints").glob("*/checkpoint-*"))


def test_step_log_has_rows_loss_norm_and_rate_of_every_step(
    full_training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(full_training.folder)
    lines = TRAIN_STEPS.read_text().splitlines()
    assert lines[0] == "step\trows\tloss\tgrad_norm\tlearning_rate"
    steps = read_step_log(TRAIN_STEPS)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    ids = [row["id"] for row in rows_in_order(16)]
    assert [step.rows for step in steps] == [rows_hash(ids[start : start + 16]) for start in range(0, 96, 16)]
    # a warmup of 2 steps, then half a cosine over 4
    half = 0.5**0.5
    factors = [0, 0.5, 1, (1 + half) / 2, 0.5, (1 - half) / 2]
    assert [step.learning_rate for step in steps] == pytest.approx([4e-4 * factor for factor in factors])
    losses = [step.loss for step in steps]
    history = [line.split("\t") for line in Path("metrics/train/history.tsv").read_text().splitlines()[1:]]
    means = [sum(losses[:2]) / 2, losses[2], losses[3], sum(losses[4:]) / 2]  # as logged at steps 2, 3, 4 and 6
    assert [float(loss) for _, loss, _ in history] == pytest.approx(means, rel=1e-6)
    assert all(0.1 < step.grad_norm < 100 for step in steps)


def test_step_log_keeps_every_digit(tmp_path: Path) -> None:
    steps = [LoggedStep(1, "00ff00ff00ff", 0.1 + 0.2, 1e-300, 5e-324), LoggedStep(2, "123456789012", 2.0, 1 / 3, 0.0)]
    write_step_log(tmp_path / "steps.tsv", steps)
    assert read_step_log(tmp_path / "steps.tsv") == steps
    assert (tmp_path / "steps.tsv").read_text().splitlines()[
        1
    ] == "1\t00ff00ff00ff\t0.30000000000000004\t1e-300\t5e-324"


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 4, "gradient_accumulation": 4},
        {"packing": True},
        {"group_by_length": False, "batch_size": 8, "gradient_accumulation": 2},
    ],
    ids=["accumulation", "packing", "random order"],
)
def test_same_rows_in_other_batches_have_the_same_log(
    in_built: Path, train_options: Options, changes: dict[str, Any]
) -> None:
    common = {"max_steps": 3, "group_by_length": changes.get("group_by_length", True)}
    logs = []
    for options in (train_options(**common), train_options(**{**common, **changes})):
        train.train(options, CPU)
        logs.append(read_step_log(TRAIN_STEPS))
    for one, other in zip(*logs, strict=True):
        assert one[:2] == other[:2]
        assert one[2:] == pytest.approx(other[2:], rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": LORA},
        {"packing": True},
        {"batch_size": 4, "gradient_accumulation": 4},
        {"precision": "bf16"},
    ],
    ids=["full", "lora", "packing", "accumulation", "bf16"],
)
def test_row_that_makes_the_loss_nan_is_named_and_weights_stay_finite(
    in_built: Path, train_options: Options, changes: dict[str, Any]
) -> None:
    third_step = rows_in_order(16)[32:48]
    row_id = third_step[9]["id"]
    plant_embedding("train", row_id)
    first = ", ".join(str(row["id"]) for row in third_step[:5])
    trainer = failing_trainer(
        train_options(max_steps=6, eval_steps=2, **CONSTANT, **changes),
        rf"^the loss is nan at step 3: rows {first} and 11 more \(ids in data/formatted/train\.jsonl\); learning rate 0\.0004,"
        r" gradient norm nan, loss before \d\.\d+\. \.checkpoints/\w+/checkpoint-2 is kept, with the weights of step 2\. "
        rf"Training again with the same parameters would end the same way\. "
        rf"The loss of row {row_id} is not finite, that of other rows is\. Correct that text or leave it out",
    )
    assert nonfinite_weights(trainer.model) == []
    assert trainer.state.global_step == 2
    assert kept_checkpoints() == ["checkpoint-2"]
    (log,) = Path(".checkpoints").glob("*/checkpoint-2/train_steps.tsv")
    assert read_step_log(log) == trainer.logged_steps
    assert [step.step for step in trainer.logged_steps] == [1, 2]


@pytest.mark.parametrize(("eval_steps", "steps_taken"), [(3, 3), (10, 3)], ids=["at a checkpoint", "between logs"])
def test_nan_on_a_gpu_is_noticed_a_step_later_and_never_saved(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch, eval_steps: int, steps_taken: int
) -> None:
    """As on a GPU, the numbers of a step are not read in that step; by then the optimizer has spread them."""
    plant_embedding("train", rows_in_order(16)[32]["id"])
    monkeypatch.setattr(LoggedTrainer, "reads_at_once", False)
    trainer = failing_trainer(
        train_options(max_steps=8, eval_steps=eval_steps, logging_steps=10, **CONSTANT),
        r"^the loss is nan at step 3: rows .* and 11 more .* There is no checkpoint yet\. .* If not, look at these rows$",
    )
    assert trainer.state.global_step == steps_taken
    assert kept_checkpoints() == []


def test_training_steps_read_nothing_that_the_device_still_computes(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of the whole Trainer on the device `meta`, whose tensors have no values: to wait for one is an error."""
    options = train_options(max_steps=9, gradient_accumulation=2, batch_size=4, optimizer="sgd", logging_steps=10)
    trainer = build_trainer(options, BASE, TOKENIZED, Path("unused"), CPU)
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.eval_on_start = False
    trainer.model.to("meta")
    copies: list[Any] = []
    reads: list[tuple[int, int]] = []

    class UnreadableCopy:
        def __init__(self, numbers: torch.Tensor) -> None:
            assert numbers.is_meta
            self.size = len(numbers)
            copies.append(self)

        def read(self) -> list[float]:
            reads.append((copies.index(self) + 1, len(copies)))
            return [1.0] * self.size

    class EndAfterThree(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                raise StopIteration

    trainer.add_callback(EndAfterThree())
    monkeypatch.setattr(logged_trainer, "HostCopy", UnreadableCopy)
    monkeypatch.setattr(TrainingArguments, "device", META)
    monkeypatch.setitem(AcceleratorState._shared_state, "device", META)
    with skip_packing_detection(packed=False), pytest.raises(StopIteration):
        trainer.train()
    assert [copy.size for copy in copies] == [3, 3, 3]  # two losses and the norm
    assert reads == [(1, 2), (2, 3)]  # (step read, step present)


@pytest.mark.parametrize("changes", [{}, {"method": LORA}], ids=["full", "lora"])
def test_base_model_with_nan_is_refused_before_training(
    in_built: Path, train_options: Options, changes: dict[str, Any]
) -> None:
    model = load_model(BASE)
    with torch.no_grad():
        model.get_parameter("gpt_neox.layers.1.mlp.dense_4h_to_h.bias")[3] = float("nan")
    model.save_pretrained(BASE)
    failing_trainer(
        train_options(max_steps=2, **changes),
        r"models/base: \S*layers\.1\.mlp\.dense_4h_to_h\.(base_layer\.)?bias contain NaN or infinity\. Use another base model",
    )
    assert kept_checkpoints() == []


def test_validation_row_that_makes_the_base_models_loss_nan_is_named(in_built: Path, train_options: Options) -> None:
    row_id = read_parquet(TOKENIZED / "validation.parquet")["id"].to_pylist()[4]
    plant_embedding("validation", row_id)
    failing_trainer(
        train_options(max_steps=2),
        rf"^the validation loss of the base model is nan on row {row_id} \(ids in data/formatted/validation\.jsonl\); no step",
    )


def test_validation_loss_that_becomes_nan_stops_before_a_checkpoint(in_built: Path, train_options: Options) -> None:
    row_id = read_parquet(TOKENIZED / "validation.parquet")["id"].to_pylist()[4]
    token = plant_embedding("validation", row_id, 0.0)

    class OverflowAfterThree(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step == 3:
                model.get_input_embeddings().weight.data[token] = OVERFLOWING

    failing_trainer(
        train_options(max_steps=6, eval_steps=1, early_stopping={"metric": "f1"}, **CONSTANT),
        rf"^the validation loss is nan after step 3 on row {row_id} \(ids in data/formatted/validation\.jsonl\); learning rate "
        r"0\.0004, gradient norm \d\.\d+, training loss \d\.\d+\. \S*checkpoint-2 is kept, .* lower train\.learning_rate",
        OverflowAfterThree(),
    )
    assert kept_checkpoints()[-1] == "checkpoint-2"


def test_step_without_a_labeled_token_is_explained(in_built: Path, train_options: Options) -> None:
    table = read_parquet(TOKENIZED / "train.parquet")
    rows = [{**row, "labels": [-100] * row["length"]} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), TOKENIZED / "train.parquet")
    failing_trainer(train_options(max_steps=2), "the loss is nan at step 1: .*None of these rows has a labeled token")


def test_model_with_nan_is_not_exported(in_built: Path) -> None:
    model = load_model(BASE)
    with torch.no_grad():
        model.lm_head.weight[7, 7] = float("inf")
    with pytest.raises(
        ModelError, match=r"the trained model: lm_head\.weight contain NaN or infinity\. Nothing was saved"
    ):
        export_model(model, BASE, FINETUNED)
    assert sorted(path.name for path in Path("models").iterdir()) == ["base", "nano"]


def test_nan_in_one_of_two_processes_names_its_row(in_built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows 4 to 7 of each step are those of the second process."""
    monkeypatch.setenv("PYTHON_EXEC", str(SHIPPED.parent / "torchrun_python"))
    third_step = [row["id"] for row in rows_in_order(8)[16:24]]
    plant_embedding("train", third_step[6])
    steps = ("train.max_steps=6", "train.eval_steps=2", "train.batch_size=4", "compute=ddp")
    Path("params.yaml").write_text(compose_params(*TINY, *steps))
    done = python_in(in_built, "pipeline.train")
    assert done.returncode == 1
    assert (
        f"train stopped: the loss is nan at step 3: rows {', '.join(map(str, third_step[:5]))} and 3 more"
        in done.stderr
    )
    assert f"The loss of row {third_step[6]} is not finite" in done.stderr
    assert kept_checkpoints() == ["checkpoint-2"]
