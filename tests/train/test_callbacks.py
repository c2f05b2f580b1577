"""The generation metric, early stopping, the time budget, the plateau schedule, and running out of memory."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch
from support.interruptions import interrupt_training
from support.project import SHIPPED

from pipeline.compose.composition import parse_params
from pipeline.config.options import EarlyStopping
from pipeline.core.files import read_parquet
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.modeling.encoding import load_encoder
from pipeline.modeling.generation import Answer
from pipeline.modeling.loading import load_model
from pipeline.modeling.memory import explain_out_of_memory
from pipeline.train import answer_metric, build_trainer, callbacks
from pipeline.train import stage as train
from pipeline.train.answer_metric import GenerationMetric
from pipeline.train.build_trainer import require_rows_fit_model
from pipeline.train.callbacks import TimeBudgetCallback
from pipeline.train.methods import load_trainable
from pipeline.train.trainer import FineTuner

CPU, BASE = torch.device("cpu"), Path("models/base")
VALIDATION = Path("data/tokenized/validation.parquet")
Options = Callable[..., Any]


def generation_metric(**changes: Any) -> GenerationMetric:
    shipped = parse_params((SHIPPED / "params.yaml").read_text(encoding="utf-8"))["train"]["early_stopping"]
    options = EarlyStopping(**{**shipped, "metric": "f1", **changes})
    return GenerationMetric(read_parquet(VALIDATION), load_encoder(BASE), options, 4, 96)


def test_generation_metric_takes_prompts_and_references_from_the_tokenized_rows(in_built: Path) -> None:
    rows = [json.loads(line) for line in Path("data/formatted/validation.jsonl").read_text().splitlines()]
    metric = generation_metric(rows=3, max_new_tokens=8)
    prompts = [metric.encoder.tokenizer.decode(prompt) for prompt in metric.prompts]
    assert len(prompts) == 3
    for prompt, row, reference in zip(prompts, rows, metric.references, strict=False):
        assert row["prompt"].endswith(prompt)
        assert prompt.endswith("### Answer:")
        assert row["completion"].strip().startswith(reference)


def test_generation_metric_is_the_mean_score_and_keeps_the_generation_config(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right, wrong, right, nothing: 2 of 4."""
    metric = generation_metric(rows=4, metric="exact_match", max_new_tokens=8)
    texts = [metric.references[0], "no", metric.references[2], ""]
    answers = [Answer(metric.encoder.tokenizer.encode(text).ids, "stop") for text in texts]
    monkeypatch.setattr(answer_metric, "generate_answers", lambda *_: answers)
    model = load_trainable(BASE, train_options(), CPU)
    original_config = model.generation_config
    assert metric(model) == {"exact_match": 0.5}
    assert model.generation_config is original_config


def test_generation_metric_refuses_rows_without_prompts(in_built: Path) -> None:
    rows = read_parquet(VALIDATION)
    fully_labeled = rows.set_column(rows.schema.get_field_index("labels"), "labels", rows["input_ids"])
    message = r"train.early_stopping.metric: f1 scores answers .* tokenize.loss=assistant"
    with pytest.raises(ConfigError, match=message):
        GenerationMetric(fully_labeled, load_encoder(BASE), generation_metric().options, 4, 96)


def test_generation_metric_needs_room_for_a_question(in_built: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.early_stopping.max_new_tokens: 96 leaves no room"):
        generation_metric(max_new_tokens=96)


def test_best_weights_by_generation_metric_are_kept_and_training_stops_early(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F1 at steps 0, 2, 4, 6, 8, 10 and of the kept weights: step 8 is the best, but not by 0.05, and step 10 is worse."""
    scores = iter([0.0, 0.1, 0.05, 0.4, 0.42, 0.3, 0.4])
    monkeypatch.setattr(GenerationMetric, "__call__", lambda self, model: {"f1": next(scores)})
    changes = {"metric": "f1", "patience": 2, "threshold": 0.05, "max_new_tokens": 8}
    metrics = train.train(train_options(max_steps=30, eval_steps=2, early_stopping=changes), CPU)
    assert (metrics["steps"], metrics["kept_step"]) == (10, 8)
    assert metrics["validation_f1"] == 0.4
    table = pd.read_csv("metrics/train/validation.tsv", sep="\t")
    assert list(table.columns) == ["step", "validation_loss", "f1"]
    assert table["f1"].tolist() == [0.0, 0.1, 0.05, 0.4, 0.42, 0.3]


@pytest.mark.parametrize("fixture", ["full_training", "lora_training"])
def test_generation_metric_does_not_change_the_training(
    in_built: Path, train_options: Options, request: pytest.FixtureRequest, fixture: str
) -> None:
    expected = request.getfixturevalue(fixture)
    assert expected.metrics["kept_step"] == expected.metrics["steps"]
    generation = {"metric": "rougeL", "rows": 5, "max_new_tokens": 8}
    train.train(train_options(**expected.changes, keep_best=False, early_stopping=generation), CPU)
    weights = [folder / "model.safetensors" for folder in (expected.finetuned, Path("models/finetuned"))]
    assert weights[0].read_bytes() == weights[1].read_bytes()


class Clock:
    """Shows 10 seconds more at each call."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


@pytest.fixture
def ten_seconds_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=Clock()))  # other threads keep the real clock


@pytest.mark.usefixtures("ten_seconds_per_call")
def test_time_budget_ends_the_training_with_an_evaluation_and_a_checkpoint(
    in_built: Path, train_options: Options
) -> None:
    """10 s per step: the sixth step exceeds 50 s. It is evaluated, and its weights can be kept."""
    options = train_options(max_steps=30, eval_steps=20, batch_size=4, max_minutes=50 / 60)
    metrics = train.train(options, CPU)
    assert (metrics["steps"], metrics["kept_step"]) == (6, 6)
    assert pd.read_csv("metrics/train/validation.tsv", sep="\t")["step"].tolist() == [0, 6]


@pytest.mark.usefixtures("ten_seconds_per_call")
def test_time_budget_includes_the_time_of_interrupted_runs() -> None:
    first = TimeBudgetCallback(1.0)
    first.on_train_begin(None, None, None)  # type: ignore[arg-type]
    state = first.state()
    assert state == {"args": {"max_minutes": 1.0}, "attributes": {"previous_seconds": 10.0}}
    second = TimeBudgetCallback.from_state(state)
    assert second.elapsed_seconds() == 10.0
    second.on_train_begin(None, None, None)  # type: ignore[arg-type]
    assert second.elapsed_seconds() == 20.0


@pytest.mark.usefixtures("ten_seconds_per_call")
def test_resumed_training_keeps_its_time_budget(in_built: Path, train_options: Options) -> None:
    """The checkpoint of step 4 has spent about 40 s of 80; a new budget would last to step 9 and beyond."""
    options = train_options(max_steps=30, eval_steps=4, batch_size=4, max_minutes=80 / 60)
    interrupt_training(options, 5)
    assert train.train(options, CPU)["steps"] == 8


def test_plateau_lowers_the_rate_and_survives_an_interruption(in_built: Path, train_options: Options) -> None:
    """No loss improves by 100, so each evaluation after the first halves the rate, from the next step on."""
    schedule = {"kind": "plateau", "factor": 0.5, "patience": 0, "threshold": 100.0, "floor": 0.0}
    options = train_options(
        max_steps=7, eval_steps=2, logging_steps=1, batch_size=4, learning_rate=0.001, schedule=schedule
    )
    train.train(options, CPU)
    history = pd.read_csv("metrics/train/history.tsv", sep="\t")
    assert history["learning_rate"].tolist() == [0.0, 0.0005, 0.001, 0.001, 0.0005, 0.0005, 0.00025]
    undisturbed = Path("models/finetuned/model.safetensors").read_bytes()
    interrupt_training(options, 5)
    train.train(options, CPU)
    assert Path("models/finetuned/model.safetensors").read_bytes() == undisturbed


def exhaust_cpu_memory() -> None:
    torch.empty(2**50)


def exhaust_gpu_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("exhaust", [exhaust_cpu_memory, exhaust_gpu_memory])
def test_out_of_memory_error_names_the_parameters_to_lower(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch, exhaust: Callable[[], None]
) -> None:
    monkeypatch.setattr(FineTuner, "training_step", lambda *_, **__: exhaust())
    with pytest.raises(ModelError) as error:
        train.train(train_options(max_steps=2), CPU)
    max_length = max(read_parquet(Path("data/tokenized/train.parquet"))["length"].to_pylist())
    assert "memory is too small: trained in batches of 16 rows and evaluated in batches of 42" in str(error.value)
    assert f"of up to {max_length} tokens each. Lower train.batch_size" in str(error.value)


def test_evaluation_batches_are_halved_until_they_fit_longest_rows_first(
    in_built: Path,
    train_options: Options,
    full_training: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lengths = sorted(read_parquet(Path("data/tokenized/validation.parquet"))["length"].to_pylist(), reverse=True)
    prediction_step, shapes = FineTuner.prediction_step, []

    def limited(self: Any, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
        shapes.append(tuple(inputs["input_ids"].shape))
        if len(inputs["input_ids"]) > 4:
            exhaust_cpu_memory()
        return prediction_step(self, model, inputs, *rest, **options)

    monkeypatch.setattr(FineTuner, "prediction_step", limited)
    batch_size = 4096 // lengths[0]
    loss = train.train(train_options(max_steps=1), CPU)["validation_loss_before"]
    assert loss == pytest.approx(full_training.metrics["validation_loss_before"], rel=1e-6)
    assert min(batch_size, len(lengths)) > 8
    warnings = [record.getMessage() for record in caplog.records if "do not fit" in record.getMessage()]
    smaller = (batch_size + 1) // 2
    assert warnings[0] == f"Evaluation batches of {batch_size} rows do not fit in memory; trying {smaller} rows"
    fitting = [shape for shape in shapes if shape[0] <= 4]
    size = fitting[0][0]
    assert [width for _, width in fitting[: -(-len(lengths) // size)]] == lengths[::size]


def test_other_errors_are_not_explained_as_out_of_memory() -> None:
    def fail() -> None:
        with explain_out_of_memory("lower"):
            raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        fail()


def test_rows_of_another_tokenizer_or_model_are_refused(in_built: Path) -> None:
    """models/base embeds 400 tokens and has 96 positions."""
    model, path = load_model(BASE), Path("train.parquet")

    def rows(token_id: int, length: int) -> pa.Table:
        return pa.table({"input_ids": [[1, token_id], [3]], "length": [length, 1]})

    require_rows_fit_model(rows(399, 96), path, model, BASE)
    with pytest.raises(DataError, match=r"train.parquet: token id 400, but models/base embeds 400 tokens"):
        require_rows_fit_model(rows(400, 96), path, model, BASE)
    with pytest.raises(DataError, match=r"train.parquet: a row has 97 tokens, but models/base has 96 positions"):
        require_rows_fit_model(rows(399, 97), path, model, BASE)


def test_models_without_a_position_limit_take_rows_of_any_length(
    in_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_trainer, "max_positions_of", lambda _: None)
    rows = pa.table({"input_ids": [[1, 399]], "length": [10_000]})
    require_rows_fit_model(rows, Path("train.parquet"), load_model(BASE), BASE)
