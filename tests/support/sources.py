"""Rows of a file or address, and models, with default parameters."""

from typing import Any

from pipeline.config.sources import FileRows, FolderModel, HubModel, HubRows
from pipeline.fetch.sources import LoadedRows, load_rows


def file_rows(path: object, **values: Any) -> FileRows:
    """The data section for a file; whatever `values` does not set is null."""
    nulls = dict.fromkeys(FileRows.model_fields) | {"source": "file", "path": str(path)}
    return FileRows.model_validate(nulls | values)


def hub_rows(name: str, **values: Any) -> HubRows:
    """The data section for the split train of a dataset on the Hub; whatever `values` does not set is null."""
    given = {"source": "hub", "name": name, "revision": "main", "split": "train"}
    return HubRows.model_validate(dict.fromkeys(HubRows.model_fields) | given | values)


def load_from(path: object, **values: Any) -> LoadedRows:
    return load_rows(file_rows(path, **values))


OWN_TEMPLATE: dict[str, Any] = {"chat_template": None, "chat_template_sha256": None, "replace_chat_template": False}


def folder_model(path: object, **values: Any) -> FolderModel:
    """The model section for a folder."""
    given = {"source": "folder", "path": str(path), "sha256": None}
    return FolderModel.model_validate(OWN_TEMPLATE | given | values)


def hub_model(name: str, **values: Any) -> HubModel:
    """The model section for a model on the Hub."""
    return HubModel.model_validate(OWN_TEMPLATE | {"source": "hub", "name": name, "revision": "main"} | values)
