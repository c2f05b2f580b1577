"""Rows of a file or address, loaded with default parameters."""

from typing import Any

from pipeline.config.sources import FileRows
from pipeline.fetch.sources import LoadedRows, load_rows


def load_from(path: object, **values: Any) -> LoadedRows:
    return load_rows(
        FileRows.model_validate(
            {"source": "file", "path": str(path), "sha256": None, "columns": None, "limit": None} | values
        )
    )
