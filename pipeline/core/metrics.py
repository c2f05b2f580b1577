"""Writes and reads the stages' metrics: all of them for the stages and pages, and a few for DVC's tables.

metrics/details/STAGE[/INSTANCE].json   every value; DVC caches it
metrics/STAGE[/INSTANCE].json           the headline, the few values that `dvc metrics` and `dvc exp show` print
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.files import read_json, write_json
from pipeline.core.paths import DETAILS, METRICS
from pipeline.errors import DataError

Headline = Mapping[str, str]  # name in DVC's tables → dotted key in the stage's metrics


def write_metrics(name: str, values: dict[str, Any], headline: Headline | None = None) -> None:
    """Write all `values` to metrics/details/NAME.json and those of the headline, if there is one, to metrics/NAME.json.

    `name` is STAGE or STAGE/INSTANCE. A new value is in the details only, unless the headline names it. Raises ValueError
    on NaN, TypeError if a value of the headline is not a number.
    """
    write_json(details_path(name), values)
    if headline is not None:
        write_json(METRICS / f"{name}.json", select_headline(values, headline))


def select_headline(values: dict[str, Any], headline: Headline) -> dict[str, Any]:
    """The named numbers, nested by the dots of their names. Values that this run does not have are left out.

    >>> select_headline({"rows_in": 9, "loss": {"last": 0.5}}, {"rows.source": "rows_in", "loss": "loss.last", "f1": "f1"})
    {'rows': {'source': 9}, 'loss': 0.5}
    """
    selected: dict[str, Any] = {}
    for name, key in headline.items():
        if (value := _value_at(values, key)) is None:
            continue
        if not isinstance(value, int | float):
            raise TypeError(f"{key} is {value!r}; only numbers can be compared in DVC's tables")
        *parents, leaf = name.split(".")
        target = selected
        for parent in parents:
            target = target.setdefault(parent, {})
        target[leaf] = value
    return selected


def _value_at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def details_path(name: str) -> Path:
    return DETAILS / f"{name}.json"


def read_metrics(name: str) -> dict[str, Any]:
    """All metrics of STAGE or STAGE/INSTANCE. Raises DataError if their file is missing or damaged."""
    path = details_path(name)
    if not path.exists():
        raise DataError(
            f"{path} is missing. Restore it from DVC's cache (dvc checkout {path}) or remote (dvc pull {path}), or run its "
            "stage: dvc repro"
        )
    return read_json(path)
