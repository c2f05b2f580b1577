"""Each schedule against its values written out, and against the library that it comes from."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.project import SHIPPED, TINY, python_in
from torch.optim import lr_scheduler
from transformers import optimization

from pipeline.compose.composition import compose_params, parse_params
from pipeline.config.params import Train
from pipeline.train.schedules import PlateauRate, rate_function, total_steps, warmup_steps_of

Options = Callable[..., Train]
HALF = math.sqrt(0.5)

# schedule → (changes to the shipped option, the factors of steps 0 to 10 of 10 with 2 warmup steps)
EXPECTED_FACTORS = {
    "constant": ({}, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    "constant_with_warmup": ({}, [0, 0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    "linear": ({}, [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0]),
    "linear to a floor": ({"floor": 0.2}, [0, 0.5, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]),
    "cosine": ({}, [0, 0.5, 1, 0.96194, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.03806, 0]),
    "cosine_with_restarts": (
        {"cycles": 2},
        [0, 0.5, 1, 0.853553, 0.5, 0.146447, 1, 0.853553, 0.5, 0.146447, 0],
    ),
    "step": (
        {"every_steps": 3, "factor": 0.5, "floor": 0.3},
        [0, 0.5, 1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3],
    ),
    "exponential": (
        {"factor": 0.5, "floor": 0.01},
        [0, 0.5, 1, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.01, 0.01],
    ),
    "inverse_sqrt": (
        {"timescale": None},
        [0, 0.5, 1, 0.816497, HALF, 0.632456, 0.57735, 0.534522, 0.5, 0.471405, 0.447214],
    ),
    "warmup_stable_decay": (
        {"decay": "linear", "decay_share": 0.4},
        [0, 0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0],
    ),
    "warmup_stable_decay to a floor": (
        {"decay": "1-sqrt", "decay_share": 0.4, "floor": 0.1},
        [0, 0.5, 1, 1, 1, 1, 1, 0.55, 0.363604, 0.220577, 0.1],
    ),
    "warmup_stable_decay by a cosine": (
        {"decay": "cosine", "decay_share": 0.4},
        [0, 0.5, 1, 1, 1, 1, 1, 0.853553, 0.5, 0.146447, 0],
    ),
}
SCHEDULES = sorted(path.stem for path in (SHIPPED / "conf/train/schedule").glob("*.yaml"))


def schedule(kind: str, **changes: Any) -> dict[str, Any]:
    """The shipped option with changes."""
    shipped = parse_params((SHIPPED / f"conf/train/schedule/{kind}.yaml").read_text(encoding="utf-8"))
    return {**shipped, **changes}


@pytest.mark.parametrize("name", EXPECTED_FACTORS)
def test_schedule_has_the_expected_factors(train_options: Options, name: str) -> None:
    changes, expected = EXPECTED_FACTORS[name]
    options = train_options(schedule=schedule(name.split()[0], **changes), warmup_steps=2)
    rate = rate_function(options, 10)
    assert [round(rate(step), 6) for step in range(11)] == [round(value, 6) for value in expected]


def reference(build: Callable[[Any], Any], steps: int) -> list[float]:
    """The learning rates of a library's scheduler that starts from 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = build(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


BITWISE_EQUAL = {
    "constant": lambda o: optimization.get_constant_schedule(o),
    "constant_with_warmup": lambda o: optimization.get_constant_schedule_with_warmup(o, 7),
    "linear": lambda o: optimization.get_linear_schedule_with_warmup(o, 7, 83),
    "cosine": lambda o: optimization.get_cosine_schedule_with_warmup(o, 7, 83),
}


@pytest.mark.parametrize("kind", BITWISE_EQUAL)
def test_schedules_of_the_trainer_are_equal_to_the_last_bit(train_options: Options, kind: str) -> None:
    rate = rate_function(train_options(schedule=schedule(kind), warmup_steps=7), 83)
    assert [rate(step) for step in range(83)] == reference(BITWISE_EQUAL[kind], 83)


NEARLY_EQUAL = {
    "cosine_with_restarts": (
        {"cycles": 3},
        7,
        lambda o: optimization.get_cosine_with_hard_restarts_schedule_with_warmup(o, 7, 83, 3),
    ),
    "inverse_sqrt": ({}, 7, lambda o: optimization.get_inverse_sqrt_schedule(o, 7)),
    "warmup_stable_decay": (
        {"decay": "cosine", "decay_share": 0.25},
        7,
        lambda o: optimization.get_wsd_schedule(o, 7, num_decay_steps=21, num_training_steps=83),
    ),
    "step": ({"every_steps": 9, "factor": 0.3}, 0, lambda o: lr_scheduler.StepLR(o, 9, 0.3)),
    "exponential": ({"factor": 0.97}, 0, lambda o: lr_scheduler.ExponentialLR(o, 0.97)),
}


@pytest.mark.parametrize("kind", NEARLY_EQUAL)
def test_schedule_matches_its_library(train_options: Options, kind: str) -> None:
    changes, warmup, build = NEARLY_EQUAL[kind]
    rate = rate_function(train_options(schedule=schedule(kind, **changes), warmup_steps=warmup), 83)
    assert [rate(step) for step in range(83)] == pytest.approx(reference(build, 83), abs=1e-12)


def test_plateau_rate_matches_torch() -> None:
    losses = [5.0, 4.0, 4.0, 3.99, 4.1, 4.2, 3.0, 3.0, 2.99, 3.1, 3.0, 3.0, 3.0, 3.0]
    ours = PlateauRate(warmup_steps=0, factor=0.5, patience=1, threshold=0.05, floor=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=1, threshold=0.05, threshold_mode="abs", min_lr=0.1
    )
    rates = []
    for loss in losses:
        ours.observe(loss)
        torchs.step(loss)
        rates.append(ours(0))
        assert rates[-1] == optimizer.param_groups[0]["lr"]
    assert rates == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.1, 0.1, 0.1, 0.1]


def test_plateau_rate_has_a_warmup() -> None:
    rate = PlateauRate(warmup_steps=4, factor=0.5, patience=0, threshold=0.0, floor=0.0)
    assert [rate(step) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    rate.observe(1.0)
    rate.observe(1.0)
    assert [rate(step) for step in range(6)] == [0, 0.125, 0.25, 0.375, 0.5, 0.5]


def test_warmup_can_be_a_share_of_all_steps(train_options: Options) -> None:
    assert warmup_steps_of(train_options(warmup_steps=20, warmup_share=None), 101) == 20
    assert warmup_steps_of(train_options(warmup_steps=20, warmup_share=0.1), 101) == 11
    assert warmup_steps_of(train_options(warmup_steps=20, warmup_share=0.0), 101) == 0


def test_steps_are_counted_like_the_trainer_counts_them(train_options: Options) -> None:
    """101 rows in batches of 4, with 3 batches per step: 9 steps per epoch."""
    size = {"batch_size": 4, "gradient_accumulation": 3}
    assert total_steps(train_options(epochs=2.0, **size), 101) == 18
    assert total_steps(train_options(epochs=0.5, **size), 101) == 5
    assert total_steps(train_options(epochs=2.0, max_steps=7, **size), 101) == 7


@pytest.mark.parametrize("kind", SCHEDULES)
def test_shipped_schedules_stay_between_zero_and_the_learning_rate(train_options: Options, kind: str) -> None:
    for warmup, steps in ((0, 1), (2, 40), (50, 40)):
        rate = rate_function(train_options(schedule=schedule(kind), warmup_steps=warmup), steps)
        assert all(0 <= rate(step) <= 1 for step in range(steps + 1))


def test_tutorial_schedule_is_linear_after_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SHIPPED)
    options = Train.model_validate(parse_params(compose_params("experiment=tutorial"))["train"])
    rate = rate_function(options, total_steps(options, 1000))
    assert [options.learning_rate * rate(step) for step in range(3)] == [0.0, 1e-5, 5e-6]


def test_schedule_command_plots_the_learning_rate(project: Path) -> None:
    printed = python_in(
        project, "pipeline.schedule", "train.max_steps=20", "train/schedule=step", "train.warmup_steps=4"
    )
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.splitlines()[:3] == [
        "  step  learning rate",
        "     1              0",
        "     3         0.0002",
    ]
    assert printed.stdout.splitlines()[-1] == "step → metrics/schedule.svg"
    first = (project / "metrics/schedule.svg").read_bytes()
    assert b"learning rate" in first

    all_schedules = python_in(project, "pipeline.schedule", "--all", "--out", "all.png", "train.max_steps=20")
    assert all_schedules.stdout.splitlines()[-1] == f"{', '.join(SCHEDULES)} → all.png"
    assert (project / "all.png").read_bytes().startswith(b"\x89PNG")


def test_schedule_command_needs_rows_or_a_number_of_steps(project: Path) -> None:
    done = python_in(project, "pipeline.schedule", *TINY)
    assert done.returncode == 1
    assert "data/tokenized/train.parquet does not exist" in done.stderr
    assert "set train.max_steps=…" in done.stderr
