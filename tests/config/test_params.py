"""The schema rejects wrong parameters and reports all errors together, by the keys of params.yaml."""

from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from support.project import SHIPPED

from pipeline.compose.composition import parse_params
from pipeline.config.validation import param_errors, validate_params
from pipeline.errors import ConfigError


@pytest.fixture
def values() -> dict[str, Any]:
    return parse_params((SHIPPED / "params.yaml").read_text(encoding="utf-8"))


ERRORS = {
    "misspelt key": ("train.learning_rat", 1, "train.learning_rat: unknown key; did you mean learning_rate?"),
    "misspelt section": ("trian.seed", 1, "trian: unknown key; did you mean train?"),
    "key of another source": ("data.revision", "x", "data.revision: unknown key; known here: "),
    "text for a number": ("train.learning_rate", "oops", "train.learning_rate: 'oops' is invalid; expected a number"),
    "number as text": ("train.epochs", "3", "train.epochs: '3' is invalid; expected a number"),
    "fraction for a count": ("train.batch_size", 2.5, "train.batch_size: 2.5 is invalid; expected a whole number"),
    "true for a count": ("train.batch_size", True, "train.batch_size: True is invalid; expected a whole number"),
    "number for text": ("format.group", 2024, "expected text, which needs quotes: -S \"format.group='2024'\""),
    "number for a switch": ("train.keep_best", 1, "train.keep_best: 1 is invalid; expected true or false"),
    "below range": ("train.epochs", 0, "train.epochs: 0 is invalid; expected greater than 0"),
    "above range": ("format.test_fraction", 1.5, "format.test_fraction: 1.5 is invalid; expected less than 1"),
    "negative seed": ("format.seed", -1, "format.seed: -1 is invalid; expected greater than or equal to 0"),
    "unknown choice": (
        "train.precision",
        "fp8",
        "train.precision: 'fp8' is invalid; expected 'fp32', 'bf16' or 'auto'",
    ),
    "unknown kind": ("train.schedule.kind", "cosin", "train.schedule.kind: 'cosin'; expected 'constant', "),
    "option for a section": ("train.schedule", "linear", "choose an option of the group: train/schedule=…"),
    "key of another schedule": ("train.schedule.cycles", 3, "train.schedule.cycles: unknown key; known here: kind, fl"),
    "misspelt key of an option": ("train.schedule.flor", 0.1, "train.schedule.flor: unknown key; did you mean floor?"),
    "unknown source": ("data.source", "ftp", "data.source: 'ftp'; expected 'generated', 'file', 'hub'"),
    "null where needed": ("data.path", None, "data.path: required, but null"),
    "empty text": ("data.path", "", "data.path: '' is invalid; expected some text"),
    "fractions that leave nothing": ("format.validation_fraction", 0.9, "format: test_fraction + validation_fraction"),
    "template without its field": ("format.template.prompt", "Q:", "format.template: prompt 'Q:' must hold {question}"),
    "template with two": ("format.template.completion", "{answer}{x}", "completion '{answer}{x}' must hold {answer}"),
    "template with a stray brace": ("format.template.prompt", "{question} {", "write {{ and }} for literal braces"),
    "broken pattern": ("clean.boilerplate", ["("], "clean: boilerplate '(' is not a regular expression"),
    "version of another schema": ("version", 2, "version: 2 is invalid; expected 1"),
}


@pytest.mark.parametrize(("key", "value", "message"), ERRORS.values(), ids=ERRORS)
def test_an_error_names_its_key_and_the_expected_value(
    values: dict[str, Any], key: str, value: Any, message: str
) -> None:
    config = OmegaConf.create(values)
    OmegaConf.update(config, key, value)
    errors = param_errors(OmegaConf.to_container(config))  # type: ignore[arg-type]
    assert len(errors) == 1
    assert message in errors[0]


def test_heads_must_divide_the_hidden_size(values: dict[str, Any]) -> None:
    scratch = yaml.safe_load((SHIPPED / "conf/model/scratch.yaml").read_text())
    values["model"] = {**scratch, "heads": 5, "data": values["data"]}
    assert param_errors(values) == ["model: hidden_size 192 must be a multiple of heads 5"]


def test_a_missing_key_is_reported_with_the_command_that_composes_it(values: dict[str, Any]) -> None:
    del values["train"]["seed"]
    assert param_errors(values) == ["train.seed: missing; compose params.yaml again: make params"]


def test_all_errors_are_reported_together(values: dict[str, Any]) -> None:
    values["train"]["seed"] = "x"
    values["data"]["rows"] = 0
    values["compare"]["exampels"] = 3
    with pytest.raises(ConfigError) as error:
        validate_params(values)
    assert str(error.value).splitlines() == [
        "3 invalid parameters:",
        "  data.rows: 0 is invalid; expected greater than or equal to 1",
        "  train.seed: 'x' is invalid; expected a whole number",
        "  compare.exampels: unknown key; did you mean examples?",
    ]


def test_zero_is_a_valid_seed(values: dict[str, Any]) -> None:
    values["train"]["seed"] = 0
    assert validate_params(values).train.seed == 0


def test_integers_and_exponents_without_a_point_are_numbers(values: dict[str, Any]) -> None:
    values["train"]["epochs"] = 2
    assert validate_params(values).train.epochs == 2
    assert parse_params("train: {learning_rate: 1e-05}") == {"train": {"learning_rate": 1e-5}}
