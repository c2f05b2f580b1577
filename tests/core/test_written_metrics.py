"""pipeline/core/metrics.py: all metrics in the details, the headline's numbers for DVC."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.metrics import read_metrics, select_headline, write_metrics
from pipeline.errors import DataError

VALUES: dict[str, Any] = {
    "rows_in": 9,
    "rows": {"train": 7, "test": 2},
    "loss": 0.5,
    "warnings": ["too few rows"],
    "note": "a text",
}


@pytest.fixture(autouse=True)
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files() -> dict[str, Any]:
    return {path.as_posix(): json.loads(path.read_text()) for path in sorted(Path().rglob("*.json"))}


def test_details_have_every_value_and_the_headline_the_named_ones() -> None:
    write_metrics("format", VALUES, {"rows.source": "rows_in", "rows.test": "rows.test", "loss": "loss"})
    assert files() == {
        "metrics/details/format.json": VALUES,
        "metrics/format.json": {"rows": {"source": 9, "test": 2}, "loss": 0.5},
    }
    assert read_metrics("format") == VALUES


def test_a_stage_without_a_headline_writes_only_details() -> None:
    write_metrics("fetch/data", VALUES)
    assert files() == {"metrics/details/fetch/data.json": VALUES}
    assert read_metrics("fetch/data") == VALUES


@pytest.mark.parametrize("key", ["f1", "rows.validation", "loss.train", "rows.train.more"])
def test_values_that_a_run_lacks_are_left_out(key: str) -> None:
    assert select_headline(VALUES, {"x": key, "y": "loss"}) == {"y": 0.5}


@pytest.mark.parametrize("key", ["warnings", "note", "rows"])
def test_a_headline_holds_only_numbers(key: str) -> None:
    with pytest.raises(TypeError, match=f"^{key} is .*; only numbers"):
        select_headline(VALUES, {"x": key})


def test_nan_is_rejected() -> None:
    with pytest.raises(ValueError, match="nan"):
        write_metrics("train", {"loss": float("nan")}, {"loss": "loss"})
    assert files() == {}


def test_missing_details_name_the_commands_that_restore_them() -> None:
    with pytest.raises(DataError) as caught:
        read_metrics("evaluate/base")
    assert str(caught.value) == (
        "metrics/details/evaluate/base.json is missing. Restore it from DVC's cache (dvc checkout "
        "metrics/details/evaluate/base.json) or remote (dvc pull metrics/details/evaluate/base.json), or run its stage: "
        "dvc repro"
    )


def test_damaged_details_are_a_data_error() -> None:
    write_metrics("train", VALUES)
    Path("metrics/details/train.json").write_text('{"loss": 0.')
    with pytest.raises(DataError, match=r"^metrics/details/train\.json is damaged"):
        read_metrics("train")
