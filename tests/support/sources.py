"""Rows of a file or address, loaded with the parameters that matter alone."""

from typing import Any

from pipeline.config.params import FileRows
from pipeline.fetch.sources import LoadedRows, load_rows


def loaded(path: object, **values: Any) -> LoadedRows:
    return load_rows(
        FileRows.model_validate(
            {"source": "file", "path": str(path), "sha256": None, "columns": None, "limit": None} | values
        )
    )
