"""How near two texts are in meaning: the cosine of their embeddings by a sentence encoder that lies on this machine.

A text's embedding is the mean of the last hidden states over its tokens (Reimers and Gurevych 2019, arXiv:1908.10084), as
the usual sentence encoders are trained for (sentence-transformers/all-MiniLM-L6-v2 is one). Scores of two encoders do not
compare.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cosine_similarity

from pipeline.errors import ModelError
from pipeline.modeling.loading import max_positions_of, quiet_transformers, require_model_folder

if TYPE_CHECKING:
    from pathlib import Path

BATCH = 64
LONGEST = 512  # tokens, where the model names no limit; what is longer is cut


def semantic_similarities(path: str, answers: list[str], references: list[str], device: torch.device) -> list[float]:
    """The cosine of each answer and its reference, from -1 to 1; 0 for an empty one, which means nothing.

    ModelError if the path is no folder of an encoder.
    """
    folder = require_model_folder(path, f"evaluate.semantic_model: {path}")
    model, tokenizer = _loaded(folder)
    model = model.to(device)
    limit = min(max_positions_of(folder) or LONGEST, LONGEST)
    first, second = (_embedded(model, tokenizer, texts, limit) for texts in (answers, references))
    cosines = cosine_similarity(first, second).tolist()
    return [
        cosine if answer.strip() and reference.strip() else 0.0
        for cosine, answer, reference in zip(cosines, answers, references, strict=True)
    ]


def _loaded(folder: "Path") -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    quiet_transformers()
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model, info = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # the library raises whatever its parsers do
        raise ModelError(f"evaluate.semantic_model: {folder} does not load ({type(error).__name__}: {error})") from None
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)  # of which a mean needs none
    if missing:
        raise ModelError(
            f"evaluate.semantic_model: {folder} lacks weights, such as {missing[0]}; expected what save_pretrained wrote"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval(), tokenizer


@torch.inference_mode()
def _embedded(model: Any, tokenizer: Any, texts: list[str], limit: int) -> torch.Tensor:
    """(texts, hidden size), in float32"""
    found = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(
            texts[start : start + BATCH], padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(model.device)
        states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).float()
        found.append((states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1))
    return torch.cat(found)
