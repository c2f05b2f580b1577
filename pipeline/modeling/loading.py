"""Load models and tokenizers from folders, and reject a folder whose weights do not match its configuration."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError
from pipeline.modeling.model_config import read_config

if TYPE_CHECKING:  # these libraries take seconds to import, and composition needs neither
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_model(folder: Path, dtype: "torch.dtype | str | None" = None, **options: Any) -> "PreTrainedModel":
    """Load the causal language model of a folder in evaluation mode. dtype: None is float32, "auto" that of the weights.

    options: further arguments of from_pretrained, such as changed keys of the configuration.

    Raises ModelError if the weights cannot be read or a tensor is missing. transformers would only warn and initialize it
    at random.
    """
    return load_model_and_unused(folder, dtype, **options)[0]


def load_model_and_unused(
    folder: Path, dtype: "torch.dtype | str | None" = None, **options: Any
) -> "tuple[PreTrainedModel, list[str]]":
    """(the model as `load_model` returns it, the names of the tensors in the files that the model does not have)."""
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
        if isinstance(read_config(folder).get("auto_map"), dict) and "custom code" in str(error):
            raise ModelError(
                f"{folder} needs custom code (auto_map in config.json), and code of a model is never run here. Use a model of "
                "an architecture that transformers has, or a version of this one converted to it"
            ) from None
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
    return model, sorted(info["unexpected_keys"])


def nonfinite_weights(model: "PreTrainedModel") -> list[str]:
    """The names of the parameters that contain NaN or infinity. Quantized ones cannot."""
    return [name for name, weight in model.named_parameters() if weight.is_floating_point() and not _is_finite(weight)]


def _is_finite(tensor: "torch.Tensor") -> bool:
    if not tensor.numel():
        return True
    lowest, highest = tensor.detach().aminmax()  # both are NaN if one value is; isfinite() would copy the tensor
    return bool(lowest.isfinite() & highest.isfinite())


def load_tokenizer(folder: Path, **options: Any) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a folder. If it has no pad token, the end-of-text token pads.

    options: further arguments of from_pretrained, which save_pretrained writes to tokenizer_config.json.

    Raises ModelError if it does not load, or has no end-of-text token: without one, no answer would ever stop.
    """
    from transformers import AutoTokenizer

    quiet_transformers()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
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
