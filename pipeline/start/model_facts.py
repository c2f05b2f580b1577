"""What is known about a base model before it is fetched: size, positions, tokenizer and chat template, without its weights."""

import atexit
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config.sources import FolderModel, HubModel, Model, ScratchModel
from pipeline.errors import ModelError, PipelineError
from pipeline.fetch.model_files import TEXT_FILES, WEIGHTS, WEIGHTS_INDEX, find_model_files
from pipeline.modeling.encoding import Encoder, load_encoder
from pipeline.modeling.model_config import max_positions_of, read_config

SCRATCH = "scratch"  # the name of a model that fetch creates
OTHER_COPIES = "*/*.model"  # of the tokenizer, in subfolders of models on the Hub
# The keys of config.json for the same figure, which differ by architecture.
LAYERS, HIDDEN = ("num_hidden_layers", "n_layer", "n_layers", "num_layers"), ("hidden_size", "n_embd", "d_model")


class ModelFacts(NamedTuple):
    name: str
    parameters: int | None = None  # None: not known before fetch
    positions: int | None = None  # None: no limit, or not known
    layers: int | None = None
    hidden_size: int | None = None
    vocabulary: int | None = None
    encoder: Encoder | None = None  # None: the tokenizer is not known before fetch
    folder: Path | None = None  # with tokenizer.json, chat template and configuration; None: not there before fetch

    @property
    def may_have_chat_template(self) -> bool:
        """Whether only fetch will show if the model has a chat template."""
        return self.folder is None and self.name != SCRATCH


def model_facts(model: Model) -> ModelFacts:
    """The facts of a model section.

    Raises ModelError if a folder is not a model's, or the Hub has no such model. Where the Hub cannot be reached, the facts
    hold only the name.
    """
    if isinstance(model, FolderModel):
        files = find_model_files(model.path)
        return _facts_of_folder(model.path, files.folder, [files.folder / name for name in files.needed])
    if isinstance(model, HubModel):
        return _facts_from_hub(model)
    return _facts_of_scratch(model)


def _facts_of_folder(name: str, folder: Path, files: list[Path]) -> ModelFacts:
    parameters = sum(map(count_parameters, (file for file in files if file.suffix == ".safetensors")))
    return _facts(name, folder, parameters)


def count_parameters(weights: Path) -> int:
    """The number of weights in a safetensors file, by its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{weights} is damaged ({error}); copy or download it again") from None


def _facts(name: str, folder: Path, parameters: int | None) -> ModelFacts:
    config = read_config(folder, name)
    text: dict[str, Any] = config | (config.get("text_config") or {})
    ready = _with_fast_tokenizer(folder)
    return ModelFacts(
        name,
        parameters,
        max_positions_of(folder),
        layers=_first_of(text, LAYERS),
        hidden_size=_first_of(text, HIDDEN),
        vocabulary=_first_of(text, ("vocab_size",)),
        encoder=load_encoder(ready),
        folder=ready,
    )


def _first_of(config: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((config[key] for key in keys if isinstance(config.get(key), int)), None)


def _with_fast_tokenizer(folder: Path) -> Path:
    """The folder; if it has no tokenizer.json, a temporary one with its tokenizer converted, as fetch does."""
    if (folder / "tokenizer.json").exists():
        return folder
    from pipeline.modeling.loading import load_tokenizer  # imports transformers, which takes seconds

    tokenizer = load_tokenizer(folder)
    converted = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, converted, ignore_errors=True)
    tokenizer.save_pretrained(converted)
    for name in ("config.json", "generation_config.json"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, converted / name)
    return converted


def _facts_of_scratch(model: ScratchModel) -> ModelFacts:
    """The figures of the GPT-NeoX that fetch will create; its tokenizer is trained then."""
    per_layer = 12 * model.hidden_size**2 + 13 * model.hidden_size
    parameters = model.layers * per_layer + 2 * model.vocabulary * model.hidden_size + 2 * model.hidden_size
    return ModelFacts(SCRATCH, parameters, model.positions, model.layers, model.hidden_size, model.vocabulary)


def _facts_from_hub(model: HubModel) -> ModelFacts:
    """The facts by the Hub's listing and the small files of the model, which stay in the Hub's cache."""
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # not in its __all__

    from pipeline.fetch.hub_errors import explain_hub_error

    disable_progress_bars()
    try:
        snapshot = snapshot_download(
            model.name, revision=model.revision, allow_patterns=[*TEXT_FILES], ignore_patterns=OTHER_COPIES
        )
        return _facts_of_snapshot(model, Path(snapshot))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.TransportError):
        return ModelFacts(model.name)
    except (HFValidationError, HfHubHTTPError) as error:
        raise ModelError(f"--model: {explain_hub_error(error, model.name, model.revision, 'model')}") from None


def _facts_of_snapshot(model: HubModel, snapshot: Path) -> ModelFacts:
    if not (snapshot / "config.json").exists():
        raise ModelError(
            f"--model: {model.name} has no config.json on the Hub; expected a model that transformers loads"
        )
    parameters = _cached_parameters(snapshot) or _hub_parameters(model)
    try:
        return _facts(model.name, snapshot, parameters)
    except PipelineError:  # a tokenizer that only fetch can explain
        config = read_config(snapshot, model.name)
        return ModelFacts(model.name, parameters, max_positions_of(snapshot), _first_of(config, LAYERS))


def _hub_parameters(model: HubModel) -> int | None:
    """The number of weights by the headers of the safetensors files, of which only the start is downloaded."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError, OfflineModeIsEnabled

    try:
        metadata = HfApi().get_safetensors_metadata(model.name, revision=model.revision)
    except (HfHubHTTPError, NotASafetensorsRepoError, OfflineModeIsEnabled, httpx2.HTTPError, ValueError, KeyError):
        return None
    return sum(metadata.parameter_count.values())


def _cached_parameters(snapshot: Path) -> int | None:
    """The number of weights of a snapshot in the cache; None if it lacks a file of them."""
    if (snapshot / WEIGHTS).exists():
        return count_parameters(snapshot / WEIGHTS)
    if not (snapshot / WEIGHTS_INDEX).exists():
        return None
    shards = set(json.loads((snapshot / WEIGHTS_INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    files = [snapshot / name for name in shards]
    return sum(map(count_parameters, files)) if all(file.exists() for file in files) else None
