"""Each schedule against its closed form written out, and against the library that it is of."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.project import ROOT, TINY, python_in
from torch.optim import lr_scheduler
from transformers import optimization

from pipeline.compose.composition import compose_params, parse_params
from pipeline.config.params import Train
from pipeline.train.schedules import PlateauRate, rate_function, total_steps, warmup_of

Options = Callable[..., Train]
HALF = math.sqrt(0.5)

# schedule → the factors of steps 0 to 10 of 10, after a warmup of 2
CLOSED = {
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
SHIPPED = sorted(path.stem for path in (ROOT / "conf/train/schedule").glob("*.yaml"))


def schedule(kind: str, **changes: Any) -> dict[str, Any]:
    """The shipped option with changes."""
    shipped = parse_params((ROOT / f"conf/train/schedule/{kind}.yaml").read_text(encoding="utf-8"))
    return {**shipped, **changes}


@pytest.mark.parametrize("name", CLOSED)
def test_a_schedule_is_its_closed_form(train_options: Options, name: str) -> None:
    changes, expected = CLOSED[name]
    options = train_options(schedule=schedule(name.split()[0], **changes), warmup_steps=2)
    rate = rate_function(options, 10)
    assert [round(rate(step), 6) for step in range(11)] == [round(value, 6) for value in expected]


def reference(build: Callable[[Any], Any], steps: int) -> list[float]:
    """The factors that a library's scheduler gives, of a learning rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = build(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


LIBRARIES = {
    "constant": lambda o: optimization.get_constant_schedule(o),
    "constant_with_warmup": lambda o: optimization.get_constant_schedule_with_warmup(o, 7),
    "linear": lambda o: optimization.get_linear_schedule_with_warmup(o, 7, 83),
    "cosine": lambda o: optimization.get_cosine_schedule_with_warmup(o, 7, 83),
}


@pytest.mark.parametrize("kind", LIBRARIES)
def test_the_schedules_that_were_the_trainers_are_so_to_the_last_bit(train_options: Options, kind: str) -> None:
    rate = rate_function(train_options(schedule=schedule(kind), warmup_steps=7), 83)
    assert [rate(step) for step in range(83)] == reference(LIBRARIES[kind], 83)


NEAR = {
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


@pytest.mark.parametrize("kind", NEAR)
def test_a_schedule_is_that_of_its_library(train_options: Options, kind: str) -> None:
    changes, warmup, build = NEAR[kind]
    rate = rate_function(train_options(schedule=schedule(kind, **changes), warmup_steps=warmup), 83)
    assert [rate(step) for step in range(83)] == pytest.approx(reference(build, 83), abs=1e-12)


def test_on_a_plateau_the_rate_falls_as_torchs() -> None:
    losses = [5.0, 4.0, 4.0, 3.99, 4.1, 4.2, 3.0, 3.0, 2.99, 3.1, 3.0, 3.0, 3.0, 3.0]
    ours = PlateauRate(warmup=0, factor=0.5, patience=1, threshold=0.05, floor=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=1, threshold=0.05, threshold_mode="abs", min_lr=0.1
    )
    found = []
    for loss in losses:
        ours.observe(loss)
        torchs.step(loss)
        found.append(ours(0))
        assert found[-1] == optimizer.param_groups[0]["lr"]
    assert found == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.1, 0.1, 0.1, 0.1]


def test_on_a_plateau_there_is_a_warmup_too() -> None:
    rate = PlateauRate(warmup=4, factor=0.5, patience=0, threshold=0.0, floor=0.0)
    assert [rate(step) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    rate.observe(1.0)
    rate.observe(1.0)
    assert [rate(step) for step in range(6)] == [0, 0.125, 0.25, 0.375, 0.5, 0.5]


def test_a_warmup_may_be_a_share_of_all_steps(train_options: Options) -> None:
    assert warmup_of(train_options(warmup_steps=20, warmup_share=None), 101) == 20
    assert warmup_of(train_options(warmup_steps=20, warmup_share=0.1), 101) == 11
    assert warmup_of(train_options(warmup_steps=20, warmup_share=0.0), 101) == 0


def test_steps_are_counted_as_the_trainer_does(train_options: Options) -> None:
    """101 rows in batches of 4, 3 of them a step: 9 steps an epoch."""
    size = {"batch_size": 4, "gradient_accumulation": 3}
    assert total_steps(train_options(epochs=2.0, **size), 101) == 18
    assert total_steps(train_options(epochs=0.5, **size), 101) == 5
    assert total_steps(train_options(epochs=2.0, max_steps=7, **size), 101) == 7


@pytest.mark.parametrize("kind", SHIPPED)
def test_every_shipped_schedule_stays_between_nothing_and_the_learning_rate(train_options: Options, kind: str) -> None:
    for warmup, steps in ((0, 1), (2, 40), (50, 40)):
        rate = rate_function(train_options(schedule=schedule(kind), warmup_steps=warmup), steps)
        assert all(0 <= rate(step) <= 1 for step in range(steps + 1))


def test_the_tutorials_schedule_is_linear_after_one_step() -> None:
    options = Train.model_validate(parse_params(compose_params("experiment=tutorial"))["train"])
    rate = rate_function(options, total_steps(options, 1000))
    assert [options.learning_rate * rate(step) for step in range(3)] == [0.0, 1e-5, 5e-6]


def test_the_schedule_is_drawn_before_training(project: Path) -> None:
    shown = python_in(project, "pipeline.schedule", "train.max_steps=20", "train/schedule=step", "train.warmup_steps=4")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[:3] == ["  step  learning rate", "     1              0", "     3         0.0002"]
    assert shown.stdout.splitlines()[-1] == "step → metrics/schedule.svg"
    first = (project / "metrics/schedule.svg").read_bytes()
    assert b"learning rate" in first

    every = python_in(project, "pipeline.schedule", "--all", "--out", "all.png", "train.max_steps=20")
    assert every.stdout.splitlines()[-1] == f"{', '.join(SHIPPED)} → all.png"
    assert (project / "all.png").read_bytes().startswith(b"\x89PNG")


def test_without_rows_the_number_of_steps_has_to_be_given(project: Path) -> None:
    done = python_in(project, "pipeline.schedule", *TINY)
    assert done.returncode == 1
    assert "data/tokenized/train.parquet is not there" in done.stderr
    assert "give train.max_steps=…" in done.stderr
