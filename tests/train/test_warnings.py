"""pipeline/train/warnings.py: what is said before a training on few rows. A step has 8 rows."""

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.train.warnings import training_warnings

Options = Callable[..., Any]
CONSTANT = {"kind": "constant"}


def warnings_of(train_options: Options, rows: int, **changes: Any) -> list[str]:
    defaults = {"epochs": 6.0, "batch_size": 8, "warmup_steps": 20}
    return training_warnings(train_options(**{**defaults, **changes}), rows)


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (7, {}, "The warmup takes 20 of this training's 6 steps: the learning rate reaches only 25% of train.learning_rate. "
                "Set train.warmup_share=0.1"),
        (24, {}, "The warmup takes 20 of this training's 18 steps: the learning rate reaches only 85% of"),
        (72, {}, "The warmup takes 20 of this training's 54 steps: for 37% of them the learning rate is below"),
        (7, {"max_steps": 3}, "The warmup takes 20 of this training's 3 steps: the learning rate reaches only 10% of "
                              "train.learning_rate. Set train.warmup_steps=0"),
        (7, {"max_steps": 1, "warmup_share": 0.1}, "The warmup takes 1 of this training's 1 steps: the learning rate reaches "
                                                   "only 0% of train.learning_rate. Set train.warmup_steps=0"),
        (7, {"epochs": 1.0, "warmup_steps": 1, "batch_size": 4}, "The warmup takes 1 of this training's 2 steps"),
    ],
)  # fmt: skip
def test_long_warmup_is_a_warning_with_the_key(
    train_options: Options, rows: int, changes: dict[str, Any], message: str
) -> None:
    (warning,) = warnings_of(train_options, rows, **changes)
    assert warning.startswith(message)


@pytest.mark.parametrize(
    ("rows", "changes"),
    [
        (80, {}), (7, {"warmup_share": 0.5}), (7, {"warmup_steps": 0}), (7, {"schedule": CONSTANT}),
        (7, {"warmup_steps": 2}), (7, {"max_steps": 60}), (7, {"warmup_share": 0.1}),
    ],
)  # fmt: skip
def test_short_or_chosen_warmup_is_no_warning(train_options: Options, rows: int, changes: dict[str, Any]) -> None:
    assert warnings_of(train_options, rows, **changes) == []


def test_evaluation_after_the_last_step_is_a_warning(train_options: Options) -> None:
    (warning,) = warnings_of(train_options, 80, eval_steps=100)
    assert warning == (
        "train.eval_steps=100 is more than this training's 60 steps, so train.keep_best has only the last step to choose "
        "from. Lower train.eval_steps, or set it to null"
    )
    assert warnings_of(train_options, 80, eval_steps=60) == []
    assert warnings_of(train_options, 80, eval_steps=100, keep_best=False) == []
