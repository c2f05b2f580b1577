"""The settings for a model, a machine and rows."""

from typing import Any

import pytest
from support.tickets import CPU

from pipeline.errors import DataError
from pipeline.start.lengths import Lengths
from pipeline.start.machine import Machine
from pipeline.start.model_facts import ModelFacts
from pipeline.start.recommend import recommend

SHORT = Lengths([40] * 1000, [20] * 1000, is_estimate=False)
NANO = ModelFacts("nano", 3_352_704, 512, 4, 192, 4096)
SMALL = ModelFacts("360M", 361_000_000, 8192, 32, 960, 49152)
MEDIUM = ModelFacts("1.7B", 1_700_000_000, 8192, 24, 2048, 49152)
LARGE = ModelFacts("7B", 7_000_000_000, 8192, 32, 4096, 32000)


def gpu(gigabytes: float, can_quantize: bool = True) -> Machine:
    return Machine("a CUDA GPU", True, int(gigabytes * 1e9), True, can_quantize)


def settings(
    facts: ModelFacts, machine: Machine = CPU, lengths: Lengths = SHORT, rows: int | None = 1000, own_test: bool = False
) -> dict[str, Any]:
    return {setting.key: setting.value for setting in recommend(facts, machine, lengths, rows, own_test).settings}


@pytest.mark.parametrize(
    ("facts", "machine", "method", "rate"),
    [
        (NANO, CPU, "full", 1e-3),
        (SMALL, gpu(24), "full", 3e-4),
        (MEDIUM, gpu(80), "full", 1e-4),
        (MEDIUM, gpu(24), "lora", 3e-4),
        (LARGE, gpu(80), "lora", 2e-4),
        (LARGE, gpu(36), "qlora", 2e-4),
        (LARGE, gpu(36, can_quantize=False), "lora", 2e-4),
    ],
)
def test_method_and_rate_follow_size_and_memory(facts: ModelFacts, machine: Machine, method: str, rate: float) -> None:
    chosen = settings(facts, machine)
    assert (chosen["train/method"], chosen["train.learning_rate"]) == (method, rate)


def test_a_model_too_large_for_the_machine_is_a_warning_with_figures() -> None:
    (warning,) = recommend(LARGE, gpu(24), SHORT, 1000, False).warnings
    assert warning.startswith(
        "7B is too large for this machine: evaluation in float32 needs about 28 GB, and 24 GB are free. Choose a smaller"
    )
    assert recommend(LARGE, gpu(80), SHORT, 1000, False).warnings == []


def test_a_training_of_hours_on_a_cpu_is_a_warning() -> None:
    (warning,) = recommend(SMALL, CPU, SHORT, 1000, False).warnings
    assert warning.startswith("training will take roughly 3 hours on this CPU")


def test_batches_fit_and_accumulate_to_a_step_of_16_rows() -> None:
    long = Lengths([6000], [1900], is_estimate=False)
    short, tight = settings(MEDIUM, gpu(80)), settings(MEDIUM, gpu(40), long)
    assert (short["train.batch_size"], short["train.gradient_accumulation"]) == (16, 1)
    assert not short["train.gradient_checkpointing"]
    assert tight["train.gradient_checkpointing"]
    assert tight["train.batch_size"] * tight["train.gradient_accumulation"] == 16


def test_the_longest_row_and_answer_fit() -> None:
    chosen = settings(NANO, lengths=Lengths([100, 10], [20, 90], is_estimate=False))
    assert (chosen["tokenize.max_length"], chosen["evaluate.max_new_tokens"]) == (128, 96)
    assert "tokenize.gates.max_unended" not in chosen


def test_rows_longer_than_the_model_are_counted_and_let_pass() -> None:
    lengths = Lengths([100] * 98 + [600, 100], [20] * 99 + [700], is_estimate=False)
    advice = recommend(NANO, CPU, lengths, 100, False)
    chosen = {setting.key: setting.value for setting in advice.settings}
    assert (chosen["tokenize.max_length"], chosen["tokenize.gates.max_unended"]) == (512, 0.02)
    assert "2 of 100 rows are longer than 512 tokens" in advice.warnings[0]
    assert "1 also lose the end of their answer" in advice.warnings[0]
    assert chosen["evaluate.max_new_tokens"] == 256


@pytest.mark.parametrize(
    ("rows", "test", "validation"),
    [(3, 0.3, 0.2), (100, 0.3, 0.1), (254, 0.15, 0.1), (5_000, 0.15, 0.1), (100_000, 0.02, 0.01)],
)
def test_held_out_shares_suit_the_number_of_rows(rows: int, test: float, validation: float) -> None:
    chosen = settings(NANO, rows=rows)
    assert (chosen["format.test_fraction"], chosen["format.validation_fraction"]) == (test, validation)


def test_a_test_set_of_ones_own_needs_no_shares() -> None:
    assert "format.test_fraction" not in settings(NANO, own_test=True)


def test_fewer_rows_get_more_epochs_and_smaller_steps() -> None:
    few, many = settings(SMALL, gpu(80), rows=50), settings(SMALL, gpu(80), rows=100_000)
    assert (few["train.epochs"], many["train.epochs"]) == (15, 2)
    assert (few["train.batch_size"], many["train.batch_size"]) == (4, 16)


def test_a_model_of_unknown_size_gets_middle_values_and_a_warning() -> None:
    advice = recommend(ModelFacts("owner/model"), gpu(80), SHORT, None, False)
    chosen = {setting.key: setting.value for setting in advice.settings}
    assert (chosen["train/method"], chosen["train.learning_rate"]) == ("full", 3e-4)
    assert "the size of owner/model is unknown" in advice.warnings[0]


def test_two_rows_are_too_few() -> None:
    with pytest.raises(DataError, match="2 usable rows; expected at least 3"):
        recommend(NANO, CPU, SHORT, 2, False)
