"""Models and tokenizers on disk: what a folder must hold, and loading them so that nothing is silently random."""

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.files import local_path
from pipeline.errors import ModelError

if TYPE_CHECKING:  # the libraries take seconds to import, and composition needs neither
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def require_model_folder(path: str, name: str = "") -> Path:
    """The local model folder of that path; ModelError, by a name if there is one, if it lacks what loading needs."""
    folder, name = local_path(path), name or path
    if not folder.is_dir():
        raise ModelError(f"{name} is {'a file' if folder.exists() else 'not there'}; expected a model folder")
    if not (folder / "config.json").exists():
        raise ModelError(f"{name} has no config.json; expected a folder that save_pretrained wrote")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
        raise ModelError(
            f"{name} has pickled weights only ({', '.join(pickled)}), which can run code when opened. Convert them "
            "where you trust them: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…) writes safetensors"
            if pickled
            else f"{name} has no weights in safetensors, as save_pretrained writes them (pickled ones are not opened)"
        )
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise ModelError(f"{name} has no tokenizer; expected one of {', '.join(TOKENIZER_FILES)}")
    return folder


def load_model(folder: Path, dtype: "torch.dtype | None" = None, **changes: Any) -> "PreTrainedModel":
    """The causal language model of a folder, in float32 unless told otherwise, in evaluation mode.

    changes: keys of its configuration, and what else from_pretrained takes.

    ModelError if its weights cannot be read, or lack a tensor: transformers would fill it at random and warn.
    """
    import torch
    from transformers import AutoModelForCausalLM

    quiet_transformers()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype or torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported below, in words that name the tensors
            output_loading_info=True,
            **changes,
        )
    except Exception as error:  # the library raises whatever its parsers do
        raise ModelError(
            f"{folder} does not load as a causal language model; expected what save_pretrained wrote ({_briefly(error)})"
        ) from None
    missing = sorted(info["missing_keys"])
    if missing or info["mismatched_keys"]:
        lacking = ", ".join([*missing, *(each[0] for each in info["mismatched_keys"])][:5])
        raise ModelError(
            f"{folder}: the weights do not fit config.json; save both together; missing or of another shape: {lacking}"
        )
    return model.eval()


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder; its pad token is the end of text where it has none of its own.

    ModelError if there is none, or if it has no end-of-text token: no answer would ever stop.
    """
    from transformers import AutoTokenizer

    quiet_transformers()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise ModelError(
            f"{folder}: its tokenizer does not load; expected what save_pretrained wrote ({_briefly(error)})"
        ) from None
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{folder}: the tokenizer has no end-of-text token; name one as eos_token in tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _briefly(error: Exception) -> str:
    """What a library says, without its lists of hundreds of architectures; with the type, as a KeyError is but a key."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" …")


def quiet_transformers() -> None:
    """Hide its warnings and the progress bars of loading and saving: what matters of them is an error here."""
    from transformers import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def max_positions_of(folder: Path) -> int | None:
    """The longest sequence that a folder's model takes, in tokens; None where its configuration names no limit."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{folder / 'config.json'} is not JSON ({error}); have it written anew") from None
    if not isinstance(config, dict):
        raise ModelError(f"{folder / 'config.json'} is no JSON object; have it written anew")
    return config.get("max_position_embeddings") or config.get("n_positions")
