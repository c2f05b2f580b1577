"""Writes the base model to models/base: the files that it needs, checked by loading them.

Beside them, models/base/source.json says where the model came from, for the adapters that are trained on it. A path in it is
the one in the parameters, so that the same model has the same bytes in every checkout.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

from pipeline.chat.model_template import read_model_templates
from pipeline.config.sources import FolderModel, HubModel, Model, ScratchModel
from pipeline.core.files import atomic_write, sha256_of_path, write_json
from pipeline.core.paths import BASE
from pipeline.errors import ModelError
from pipeline.fetch import hub
from pipeline.fetch.chat_template import write_chat_template
from pipeline.fetch.model_files import ModelFiles, find_model_files
from pipeline.fetch.vocabulary import fit_vocabulary
from pipeline.modeling import loading
from pipeline.records.tasks import format_names
from pipeline.train.model_source import MODEL_SOURCE, ModelSource

log = logging.getLogger(__name__)


def fetch_model(model: Model) -> dict[str, Any]:
    """Write the model to models/base, load it as a check, and return the metrics."""
    with atomic_write(BASE) as folder:
        folder.mkdir()
        revision, files_left = _copy_or_build(model, folder)
        write_chat_template(model, folder)
        try:
            stats = check_model(folder)
        except ModelError as error:  # the user knows the parameter, not the temporary folder
            raise ModelError(str(error).replace(str(folder), _parameter_of(model))) from None
        source = ModelSource(model.source, model_name(model), revision, stats["embeddings_added"])
        write_json(folder / MODEL_SOURCE, source._asdict())
        own = "the model's own" if read_model_templates(folder) else "none"
        return {**stats, **source._asdict(), "files_left": files_left, "chat_template": model.chat_template or own}


def model_name(model: Model) -> str:
    """The hub's name of the model, or its path."""
    if isinstance(model, HubModel):
        return model.name
    return "random weights" if isinstance(model, ScratchModel) else model.path


def _parameter_of(model: Model) -> str:
    if isinstance(model, ScratchModel):
        return "model=scratch"
    return f"model.name={model.name}" if isinstance(model, HubModel) else f"model.path={model.path}"


def _copy_or_build(model: Model, folder: Path) -> tuple[str, list[str]]:
    """Write the model's files to the folder; return (the revision, the files of the source that were left behind)."""
    if isinstance(model, ScratchModel):
        from pipeline.fetch.scratch_model import build_scratch_model

        build_scratch_model(model, folder)
        return sha256_of_path(folder), []
    if isinstance(model, HubModel):
        snapshot = hub.fetch_snapshot(model.name, model.revision, "model")
        files, revision = find_model_files(str(snapshot), _parameter_of(model)), snapshot.name
    else:
        files = find_model_files(model.path, _parameter_of(model))
        revision = _require_unchanged(model, files.folder)
    _report_left_behind(files, _parameter_of(model))
    for name in files.needed:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(files.folder / name, folder / name)
    return revision, files.left


def _report_left_behind(files: ModelFiles, parameter: str) -> None:
    if files.left:
        log.info(f"Not copied, because the model does not need them: {format_names(files.left)}")
    if files.has_unused_adapter:
        log.warning(
            f"Warning: {parameter} holds complete weights and an adapter. The weights are used as they are, without the adapter, "
            "which is usually merged into them already. If it is not, merge it first (merge_and_unload of peft). transformers "
            "itself would apply it to these weights, so move adapter_config.json out of the folder."
        )


def _require_unchanged(model: FolderModel, folder: Path) -> str:
    checksum = sha256_of_path(folder)
    if model.sha256 not in (None, checksum):
        raise ModelError(
            f"model.path={model.path} has changed since params.yaml was composed; compose it again: make params"
        )
    return checksum


def check_model(folder: Path) -> dict[str, Any]:
    """Load model and tokenizer, so that one that cannot work fails here; fit both together; return the metrics."""
    tokenizer = loading.load_tokenizer(folder)
    model, unused = loading.load_model_and_unused(folder)
    if broken := loading.nonfinite_weights(model):
        raise ModelError(f"{folder}: weights that are not finite numbers: {broken[0]}; save the model again")
    if unused:
        log.warning(
            f"Warning: These weights are not part of the language model and are not used: {format_names(unused)}."
        )
    stats = {"architecture": type(model).__name__, "parameters": model.num_parameters(), "tensors_unused": len(unused)}
    tokenizer.save_pretrained(folder)  # writes the end-of-text token, which some folders leave to the defaults
    if not (folder / "tokenizer.json").exists():
        raise ModelError(f"{folder}: the tokenizer has no fast version; save one beside the model (tokenizer.json)")
    vocabulary = fit_vocabulary(folder, tokenizer, model)
    return {**stats, "parameters": model.num_parameters(), **vocabulary}
