"""Fits a tokenizer with more tokens than the model embeds: one that only pads is removed, others get embeddings."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError
from pipeline.modeling import loading
from pipeline.records.tasks import format_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def fit_vocabulary(folder: Path, tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel") -> dict[str, Any]:
    """Make every token of the tokenizer in `folder` have an embedding; return the metrics. `model` is changed, too.

    Only tokens that were added to the vocabulary can be without one, such as a pad token or the marks of a chat template.
    Raises ModelError if others are: then the tokenizer is another model's.
    """
    embedding: Any = model.get_input_embeddings()
    embedded = int(embedding.num_embeddings)
    beyond = {token: token_id for token, token_id in tokenizer.get_vocab().items() if token_id >= embedded}
    metrics = {"embeddings_added": 0, "pad_token_replaced": False}
    if not beyond:
        return metrics
    if any(token_id not in tokenizer.added_tokens_decoder for token_id in beyond.values()):
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model embeds {embedded}: "
            "put the model's own tokenizer beside it"
        )
    if list(beyond) == [tokenizer.pad_token] and tokenizer.pad_token != tokenizer.eos_token:
        log.warning(
            f"Warning: The pad token {tokenizer.pad_token} has no embedding (the model embeds {embedded:,} tokens): "
            f"{tokenizer.eos_token} is used for padding instead."
        )
        _replace_pad_token(folder, tokenizer)
        return {**metrics, "pad_token_replaced": True}
    names = sorted(beyond, key=beyond.__getitem__)
    size = max(beyond.values()) + 1
    log.warning(
        f"Warning: The model embeds {embedded:,} tokens, the tokenizer has {size - embedded:,} more: {format_names(names)}. "
        "Each starts with the mean of the other embeddings."
    )
    grow_embeddings(model, size)
    _rewrite_weights(folder, size)
    return {**metrics, "embeddings_added": size - embedded}


def grow_embeddings(model: "PreTrainedModel", size: int) -> None:
    """Give the model embeddings for `size` tokens. New rows, those of the output head included, are the mean of the old.

    transformers draws them at random around the mean, which would differ from run to run.
    """
    import torch

    embedding: Any = model.get_input_embeddings()
    embedded = embedding.num_embeddings
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            for parameter in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
                if parameter is not None and len(parameter) == size:
                    parameter[embedded:] = parameter[:embedded].float().mean(dim=0).to(parameter.dtype)


def _rewrite_weights(folder: Path, size: int) -> None:
    """Grow the embeddings of the model in `folder`, whose weights keep their type."""
    from transformers import GenerationConfig

    model = loading.load_model(folder, dtype="auto")
    grow_embeddings(model, size)
    generation = folder / "generation_config.json"
    settings = generation.read_bytes() if generation.exists() else None
    model.generation_config = GenerationConfig()  # the folder's own may hold options that save_pretrained refuses
    for file in folder.glob("model*.safetensors*"):
        file.unlink()
    model.save_pretrained(folder)
    generation.unlink()
    if settings is not None:
        generation.write_bytes(settings)


def _replace_pad_token(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Let the end-of-text token pad, and remove the pad token from the tokenizer's files."""
    pad_token, tokenizer.pad_token = tokenizer.pad_token, tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] != pad_token]
    values["padding"] = None  # a saved setting, which would name the pad token
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(decoder := config.get("added_tokens_decoder"), dict):
        config["added_tokens_decoder"] = {key: token for key, token in decoder.items() if token["content"] != pad_token}
    config["pad_token"] = tokenizer.eos_token
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in ("added_tokens.json", "special_tokens_map.json"):  # older copies of what the two files above hold
        (folder / name).unlink(missing_ok=True)
