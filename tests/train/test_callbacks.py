"""When a training ends, and what it keeps: by the answers that a model gives, by a budget of time, on a plateau."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch
from support.project import ROOT
from transformers import TrainerCallback

from pipeline.compose.composition import parse_params
from pipeline.config.params import Train
from pipeline.core.files import read_parquet
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.modeling.encoding import load_encoder
from pipeline.modeling.generation import Answer
from pipeline.modeling.memory import explain_out_of_memory
from pipeline.train import callbacks
from pipeline.train import stage as train
from pipeline.train.answer_metric import GenerationMetric
from pipeline.train.callbacks import TimeBudget
from pipeline.train.methods import load_trainable
from pipeline.train.trainer import FineTuner

CPU, BASE = torch.device("cpu"), Path("models/base")
VALIDATION = Path("data/tokenized/validation.parquet")
Options = Callable[..., Any]


class Interrupt(TrainerCallback):
    """Ends a training before a step, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def interrupted(options: Any, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    build = train.build_trainer

    def with_interrupt(*arguments: Any) -> Any:
        trainer = build(*arguments)
        trainer.add_callback(Interrupt(step))
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(train, "build_trainer", with_interrupt)
        with pytest.raises(KeyboardInterrupt):
            train.train(options, CPU)


def judge(**changes: Any) -> GenerationMetric:
    shipped = parse_params((ROOT / "params.yaml").read_text(encoding="utf-8"))["train"]["early_stopping"]
    options = Train.model_fields["early_stopping"].annotation(**{**shipped, "metric": "f1", **changes})
    return GenerationMetric(read_parquet(VALIDATION), load_encoder(BASE), options, 4, 96)


def test_the_judge_asks_what_stands_before_the_labels(in_built: Path) -> None:
    rows = [json.loads(line) for line in Path("data/formatted/validation.jsonl").read_text().splitlines()]
    found = judge(rows=3, max_new_tokens=8)
    decoded = [found.encoder.tokenizer.decode(prompt) for prompt in found.prompts]
    assert len(decoded) == 3
    for text, row, reference in zip(decoded, rows, found.references, strict=False):
        assert row["prompt"].endswith(text)
        assert text.endswith("### Answer:")
        assert row["completion"].strip().startswith(reference)


def test_the_judge_gives_the_mean_score_and_leaves_the_model_as_it_was(
    in_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right, wrong, right, nothing: 2 of 4."""
    found = judge(rows=4, metric="exact_match", max_new_tokens=8)
    texts = [found.references[0], "no", found.references[2], ""]
    answers = [Answer(found.encoder.tokenizer.encode(text).ids, "stop") for text in texts]
    monkeypatch.setattr("pipeline.train.answer_metric.generate", lambda *_: answers)
    model = load_trainable(BASE, train_options_of(), CPU)
    before = model.generation_config
    assert found(model) == {"exact_match": 0.5}
    assert model.generation_config is before


def train_options_of() -> Any:
    return Train.model_validate(parse_params((ROOT / "params.yaml").read_text(encoding="utf-8"))["train"])


def test_rows_that_do_not_tell_question_from_answer_cannot_be_judged(in_built: Path) -> None:
    rows = read_parquet(VALIDATION)
    whole = rows.set_column(rows.schema.get_field_index("labels"), "labels", rows["input_ids"])
    with pytest.raises(ConfigError, match=r"train.early_stopping.metric: f1 is of answers .* tokenize.loss=completion"):
        GenerationMetric(whole, load_encoder(BASE), judge().options, 4, 96)


def test_answers_that_leave_no_room_for_a_question_are_told(in_built: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.early_stopping.max_new_tokens: 96 leaves no room"):
        judge(max_new_tokens=96)


def test_the_best_by_answers_is_kept_and_the_others_are_not_waited_for(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F1 at steps 0, 2, 4, 6, 8, 10 and of the weights kept: step 8 is best, but not by 0.05, and step 10 is not either."""
    scores = iter([0.0, 0.1, 0.05, 0.4, 0.42, 0.3, 0.4])
    monkeypatch.setattr(GenerationMetric, "__call__", lambda self, model: {"f1": next(scores)})
    changes = {"metric": "f1", "patience": 2, "threshold": 0.05, "max_new_tokens": 8}
    metrics = train.train(train_options(max_steps=30, eval_steps=2, early_stopping=changes), CPU)
    assert (metrics["steps"], metrics["kept_step"]) == (10, 8)
    assert metrics["validation_f1"] == 0.4
    table = pd.read_csv("metrics/train/validation.tsv", sep="\t")
    assert list(table.columns) == ["step", "validation_loss", "f1"]
    assert table["f1"].tolist() == [0.0, 0.1, 0.05, 0.4, 0.42, 0.3]


@pytest.mark.parametrize("method", [{"kind": "full"}, "lora"])
def test_judging_by_real_answers_does_not_change_the_training(
    in_built: Path, train_options: Options, method: Any
) -> None:
    if method == "lora":
        method = parse_params((ROOT / "conf/train/method/lora.yaml").read_text(encoding="utf-8"))
    written = []
    for metric in ("validation_loss", "rougeL"):
        changes = {"metric": metric, "rows": 5, "max_new_tokens": 8}
        options = train_options(max_steps=4, eval_steps=2, keep_best=False, method=method, early_stopping=changes)
        train.train(options, CPU)
        written.append(Path("models/finetuned/model.safetensors").read_bytes())
    assert written[0] == written[1]


class Clock:
    """Tells 10 seconds more each time that it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


@pytest.fixture
def ten_seconds_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=Clock()))  # other threads keep the real clock


@pytest.mark.usefixtures("ten_seconds_a_look")
def test_a_budget_of_time_ends_the_training_evaluated_and_saved(in_built: Path, train_options: Options) -> None:
    """10 s a step: the sixth step's end passes 50 s. There the validation loss is measured, and the weights can be kept."""
    options = train_options(max_steps=30, eval_steps=20, batch_size=4, max_minutes=50 / 60)
    metrics = train.train(options, CPU)
    assert (metrics["steps"], metrics["kept_step"]) == (6, 6)
    assert pd.read_csv("metrics/train/validation.tsv", sep="\t")["step"].tolist() == [0, 6]


@pytest.mark.usefixtures("ten_seconds_a_look")
def test_what_an_interrupted_training_had_spent_counts() -> None:
    first = TimeBudget(1.0)
    first.on_train_begin(None, None, None)  # type: ignore[arg-type]
    state = first.state()
    assert state == {"args": {"minutes": 1.0}, "attributes": {"spent": 10.0}}
    second = TimeBudget.from_state(state)
    assert second.seconds() == 10.0
    second.on_train_begin(None, None, None)  # type: ignore[arg-type]
    assert second.seconds() == 20.0


@pytest.mark.usefixtures("ten_seconds_a_look")
def test_a_budget_goes_on_where_an_interrupted_training_was(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of step 4 has spent some 40 s of 80; anew, it would go on to step 9 and beyond."""
    options = train_options(max_steps=30, eval_steps=4, batch_size=4, max_minutes=80 / 60)
    interrupted(options, 5, monkeypatch)
    assert train.train(options, CPU)["steps"] == 8


def test_on_a_plateau_the_rate_falls_and_an_interruption_changes_nothing(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No loss is better by 100 than the first: the second evaluation halves the rate, from the next step on."""
    schedule = {"kind": "plateau", "factor": 0.5, "patience": 0, "threshold": 100.0, "floor": 0.0}
    options = train_options(
        max_steps=7, eval_steps=2, logging_steps=1, batch_size=4, learning_rate=0.001, schedule=schedule
    )
    train.train(options, CPU)
    history = pd.read_csv("metrics/train/history.tsv", sep="\t")
    assert history["learning_rate"].tolist() == [0.0, 0.0005, 0.001, 0.001, 0.0005, 0.0005, 0.00025]
    undisturbed = Path("models/finetuned/model.safetensors").read_bytes()
    interrupted(options, 5, monkeypatch)
    train.train(options, CPU)
    assert Path("models/finetuned/model.safetensors").read_bytes() == undisturbed


def no_memory_on_the_processor() -> None:
    torch.empty(2**50)


def no_memory_on_a_card() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("exhaust", [no_memory_on_the_processor, no_memory_on_a_card])
def test_out_of_memory_is_told_with_what_to_lower(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch, exhaust: Callable[[], None]
) -> None:
    monkeypatch.setattr(FineTuner, "training_step", lambda *_, **__: exhaust())
    with pytest.raises(ModelError) as error:
        train.train(train_options(max_steps=2), CPU)
    longest = max(read_parquet(Path("data/tokenized/train.parquet"))["length"].to_pylist())
    assert "memory is too small: trained in batches of 16 rows, evaluated in batches of 42" in str(error.value)
    assert f"of up to {longest} tokens. Lower train.batch_size" in str(error.value)


def test_an_evaluation_that_does_not_fit_goes_on_with_half_as_many_rows_the_longest_first(
    in_built: Path, train_options: Options, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lengths = sorted(read_parquet(Path("data/tokenized/validation.parquet"))["length"].to_pylist(), reverse=True)
    expected = train.train(train_options(max_steps=1, eval_batch_size=3), CPU)["validation_loss_before"]
    step, shapes = FineTuner.prediction_step, []

    def limited(self: Any, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
        shapes.append(tuple(inputs["input_ids"].shape))
        if len(inputs["input_ids"]) > 4:
            no_memory_on_the_processor()
        return step(self, model, inputs, *rest, **options)

    monkeypatch.setattr(FineTuner, "prediction_step", limited)
    rows = 4096 // lengths[0]
    found = train.train(train_options(max_steps=1), CPU)["validation_loss_before"]
    assert found == pytest.approx(expected, rel=1e-6)
    assert min(rows, len(lengths)) > 8
    tried = [record.getMessage() for record in caplog.records if "do not fit" in record.getMessage()]
    assert tried[0] == f"{rows} rows side by side do not fit into memory; evaluating {(rows + 1) // 2} at a time"
    fitted = [shape for shape in shapes if shape[0] <= 4]
    size = fitted[0][0]
    assert [width for _, width in fitted[: -(-len(lengths) // size)]] == lengths[::size]


def test_other_errors_are_left_as_they_are() -> None:
    def fail() -> None:
        with explain_out_of_memory("lower"):
            raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        fail()


def test_rows_of_another_tokenizer_or_model_are_told() -> None:
    rows = pa.table({"input_ids": [[1, 399], [3]], "length": [2, 1]})
    train.require_fit(rows, "train.parquet", 400, 2)
    train.require_fit(rows, "train.parquet", 400, None)
    with pytest.raises(DataError, match=r"train.parquet: token id 399, but models/base embeds 399 tokens"):
        train.require_fit(rows, "train.parquet", 399, 2)
    with pytest.raises(DataError, match=r"a row of 2 tokens, but models/base has 1 positions"):
        train.require_fit(rows, "train.parquet", 400, 1)
