"""fetch, clean and format in one process, on a file and the shipped configuration, and what they write."""

import csv
import functools
import inspect
import io
import json
import logging
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf
from support.project import SHIPPED

from pipeline.clean import stage as clean
from pipeline.compose.composition import compose_params, parse_params
from pipeline.config.params import Params
from pipeline.config.validation import validate_params
from pipeline.core.files import read_json, read_jsonl, read_parquet
from pipeline.core.paths import DETAILS, FORMATTED, RECORDS
from pipeline.fetch import stage as fetch
from pipeline.format import stage as format_stage
from pipeline.records.json_cells import parse_json

SPLITS = ("train", "validation", "test")


class Prepared(NamedTuple):
    """What the data stages wrote, and their log."""

    rows: dict[str, list[dict[str, Any]]]
    records: list[dict[str, Any]]
    clean: dict[str, Any]
    format: dict[str, Any]
    log: str

    @property
    def counts(self) -> tuple[int, ...]:
        """The rows of train, validation and test."""
        return tuple(len(self.rows[name]) for name in SPLITS)

    def texts(self, id: int) -> tuple[str, str]:
        """The prompt and the completion of a row, in whichever split it is."""
        (row,) = (row for rows in self.rows.values() for row in rows if row["id"] == id)
        return row["prompt"], row["completion"]

    def changed(self) -> dict[str, int]:
        return nonzero(self.clean["changed"])

    def dropped(self) -> dict[str, int]:
        return nonzero(self.clean["dropped"] | self.format["dropped"])


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


@functools.cache
def compose_for_files() -> str:
    """The shipped params.yaml with data=file. Composing is slow, so that all tests share this one."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "rows.csv"
        path.write_text("text\nx\n", encoding="utf-8")
        patch.chdir(SHIPPED)
        return compose_params("data=file", "model=scratch", f"data.path='{path}'")


def params_for(path: Path | str, *overrides: str) -> Params:
    """The shipped parameters for a file, with KEY=VALUE overrides of single keys."""
    changes = OmegaConf.from_dotlist([f"data.path={path}", "data.sha256=null", *overrides])
    return validate_params(
        parse_params(OmegaConf.to_yaml(OmegaConf.merge(OmegaConf.create(compose_for_files()), changes)))
    )


def prepare(path: Path, caplog: pytest.LogCaptureFixture, *overrides: str) -> Prepared:
    """Run the stages on a file, in the file's folder."""
    caplog.set_level(logging.INFO)
    params = params_for(path, *overrides)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        inspect.unwrap(fetch.main)(params, "data")
        inspect.unwrap(clean.main)(params)
        inspect.unwrap(format_stage.main)(params)
        return Prepared(
            {name: read_jsonl(FORMATTED / f"{name}.jsonl") for name in SPLITS},
            [{name: parsed(name, value) for name, value in row.items()} for row in read_parquet(RECORDS).to_pylist()],
            read_json(DETAILS / "clean.json"),
            read_json(DETAILS / "format.json"),
            "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("pipeline")),
        )


def parsed(name: str, value: Any) -> Any:
    return parse_json(value) if value and name in clean.JSON_COLUMNS else value


def lines(rows: list[Any]) -> bytes:
    """The rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def delimited(header: list[str], rows: list[list[str]], delimiter: str = ",") -> str:
    """A table as text."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([header, *rows])
    return text.getvalue()
