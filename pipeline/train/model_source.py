"""Where models/base came from (models/base/source.json), and what an adapter that was trained on it names as its base."""

import os
from pathlib import Path
from typing import NamedTuple

from pipeline.core.files import read_json
from pipeline.modeling.model_config import ADAPTER_CONFIG

MODEL_SOURCE = "source.json"


class ModelSource(NamedTuple):
    source: str  # hub, folder or scratch, as in the parameters
    name: str  # the Hub's name, or the path in the parameters
    revision: str  # the Hub's commit, or the SHA-256 of the files
    embeddings_added: int = 0  # by fetch, for tokens that the source does not embed


def read_model_source(folder: Path) -> ModelSource:
    """The source of the model in models/base. Raises DataError if the file is damaged, FileNotFoundError without it."""
    return ModelSource(**read_json(folder / MODEL_SOURCE))


def has_added_embeddings(folder: Path) -> bool:
    return (folder / MODEL_SOURCE).exists() and read_model_source(folder).embeddings_added > 0


def base_reference(folder: Path) -> tuple[str, str | None]:
    """(name or path of the model in `folder`, its revision on the Hub), with which peft finds it from any folder.

    A path becomes absolute, and in a queued experiment, which runs in a temporary copy, it is that of the original checkout,
    which DVC_ROOT names. It is the path of `folder` itself for random weights, and for a model with an adapter beside its
    weights, which peft would apply first.
    """
    source = read_model_source(folder) if (folder / MODEL_SOURCE).exists() else None
    if source and source.source == "hub":
        return source.name, source.revision
    original = _in_checkout(source.name) if source and source.source == "folder" else None
    if original is None or (original / ADAPTER_CONFIG).exists():
        original = _in_checkout(str(folder))
    return str(original), None


def _in_checkout(path: str) -> Path:
    """The absolute path of a path in the parameters, in the checkout that a queued experiment came from."""
    return Path(os.path.normpath(Path(os.environ.get("DVC_ROOT", ".")).absolute() / Path(path).expanduser()))
