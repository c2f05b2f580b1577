"""Load models and tokenizers from folders, and reject a folder that lacks files or weights."""

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.files import local_path
from pipeline.errors import ModelError

if TYPE_CHECKING:  # these libraries take seconds to import, and composition needs neither
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
REWRITE = "save the model again, or run dvc repro if a stage wrote it"


def require_model_folder(path: str, name: str = "") -> Path:
    """The local folder of that path. name: what error messages call it, if not by its path.

    Raises ModelError if it lacks a file that loading needs, or has only pickled weights.
    """
    folder, name = local_path(path), name or path
    if not folder.is_dir():
        raise ModelError(f"{name} {'is a file' if folder.exists() else 'does not exist'}; expected a model folder")
    if not (folder / "config.json").exists():
        raise ModelError(f"{name} has no config.json; expected a folder written by save_pretrained")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for pattern in PICKLE_PATTERNS for file in folder.glob(pattern))
        if pickled:
            raise ModelError(
                f"{name} has only pickled weights ({', '.join(pickled)}), which can run code when loaded. Convert them if "
                "you trust them: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…) writes safetensors"
            )
        raise ModelError(
            f"{name} has no safetensors weights (pickled ones are not loaded); expected a folder written by save_pretrained"
        )
    if not any((folder / file).exists() for file in TOKENIZER_FILES):
        raise ModelError(f"{name} has no tokenizer; expected one of {', '.join(TOKENIZER_FILES)}")
    return folder


def load_model(folder: Path, dtype: "torch.dtype | None" = None, **options: Any) -> "PreTrainedModel":
    """Load the causal language model of a folder in evaluation mode. dtype: None is float32.

    options: further arguments of from_pretrained, such as changed keys of the configuration.

    Raises ModelError if the weights cannot be read or a tensor is missing. transformers would only warn and initialize it
    at random.
    """
    import torch
    from transformers import AutoModelForCausalLM

    quiet_transformers()
    model: PreTrainedModel
    info: dict[str, Any]
    try:
        model, info = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]  # a pair, with output_loading_info
            folder,
            dtype=dtype or torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported below, with the names of the tensors
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # the parsers of the library raise many types
        raise ModelError(
            f"{folder} does not load as a causal language model; expected a folder written by save_pretrained "
            f"({_shorten_message(error)})"
        ) from None
    missing = sorted(info["missing_keys"])
    if missing or info["mismatched_keys"]:
        tensors = ", ".join([*missing, *(mismatch[0] for mismatch in info["mismatched_keys"])][:5])
        raise ModelError(
            f"{folder}: the weights do not match config.json; save both together; missing or of another shape: {tensors}"
        )
    model.eval()
    return model


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a folder. If it has no pad token, the end-of-text token pads.

    Raises ModelError if it does not load, or has no end-of-text token: without one, no answer would ever stop.
    """
    from transformers import AutoTokenizer

    quiet_transformers()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as in load_model
        raise ModelError(
            f"{folder}: the tokenizer does not load; expected a folder written by save_pretrained "
            f"({_shorten_message(error)})"
        ) from None
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{folder}: the tokenizer has no end-of-text token; name one as eos_token in tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _shorten_message(error: Exception) -> str:
    """A library's message without its list of hundreds of architectures, and with the type: a KeyError's message is a key."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" …")


def quiet_transformers() -> None:
    """Hide the warnings of transformers and its progress bars of loading and saving; warnings that matter are errors here."""
    from transformers import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def max_positions_of(folder: Path) -> int | None:
    """The number of positions of a folder's model, which limits prompt and answer; None if config.json sets no limit.

    Raises ModelError if config.json is not a JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); {REWRITE}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object; {REWRITE}")
    return config.get("max_position_embeddings") or config.get("n_positions")
