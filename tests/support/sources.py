"""Rows of a file or address, loaded with the parameters that matter alone."""

from typing import Any

from pipeline.config.params import FileRows
from pipeline.fetch.sources import Source, load


def loaded(path: object, **values: Any) -> Source:
    return load(
        FileRows.model_validate(
            {"source": "file", "path": str(path), "sha256": None, "columns": None, "limit": None} | values
        )
    )
