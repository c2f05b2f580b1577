"""What can be known of the local sources before DVC starts a stage (and deletes its outputs)."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline import rows, weights
from pipeline.detect import resolve
from pipeline.errors import PipelineError
from pipeline.params import Data, FileRows, FolderModel, GeneratedRows, Model, ScratchModel
from pipeline.streams import is_remote


def source_faults(values: dict[str, Any]) -> list[str]:
    """One line for each local file or folder that is not there or not what fetch needs, or too small for its use."""
    faults = []
    for section, kind in (("data", Data), ("model", Model)):
        try:
            source: Any = TypeAdapter(kind).validate_python(values.get(section))
        except ValidationError:
            continue  # the schema's own faults say what is wrong
        try:
            faults += _look_at(source, values)
        except PipelineError as error:
            faults.append(f"{section}.path: {error}")
    return faults


def _look_at(source: Any, values: dict[str, Any]) -> list[str]:
    if isinstance(source, FileRows):
        if is_remote(source.path):
            rows.require_known_address(source.path)
        else:
            resolve(rows.peek(source.path), source.columns)
    elif isinstance(source, GeneratedRows):
        rows.require_file(source.path)
    elif isinstance(source, FolderModel):
        return _too_long(weights.positions_of(weights.require_model_folder(source.path)), values)
    elif isinstance(source, ScratchModel):
        return _too_long(source.positions, values)
    return []


def _too_long(positions: int | None, values: dict[str, Any]) -> list[str]:
    """The lengths, in tokens, for which a model with so many positions has no room."""
    if not positions:
        return []
    wanted = {
        "tokenize.max_length": (values.get("tokenize", {}).get("max_length"), positions),
        "evaluate.max_new_tokens": (values.get("evaluate", {}).get("max_new_tokens"), positions - 1),
    }
    return [
        f"{key}: {length} is more than the model has room for; expected at most {most} (it has {positions} positions)"
        for key, (length, most) in wanted.items()
        if isinstance(length, int) and length > most
    ]
