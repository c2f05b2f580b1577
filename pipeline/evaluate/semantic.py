"""Semantic similarity of two texts: the cosine of their embeddings by a sentence encoder on this machine.

The embedding of a text is the mean of the last hidden states over its tokens (Reimers and Gurevych 2019, arXiv:1908.10084),
for which most sentence encoders are trained, such as sentence-transformers/all-MiniLM-L6-v2. Scores of different encoders
are not comparable.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cosine_similarity

from pipeline.errors import ModelError
from pipeline.fetch.model_files import require_model_folder
from pipeline.modeling.loading import quiet_transformers
from pipeline.modeling.model_config import max_positions_of

if TYPE_CHECKING:
    from pathlib import Path

BATCH_SIZE = 64  # texts
MAX_TOKENS = 512  # of a text, or fewer if the encoder has fewer positions; the rest is truncated


def semantic_similarities(path: str, answers: list[str], references: list[str], device: torch.device) -> list[float]:
    """The cosine similarity of each answer and its reference answer, from -1 to 1; 0 if either is empty.

    path: a folder with the encoder. Raises ModelError if it is not one.
    """
    folder = require_model_folder(path, f"evaluate.semantic_model: {path}")
    model, tokenizer = _load_sentence_encoder(folder)
    model = model.to(device)
    max_tokens = min(max_positions_of(folder) or MAX_TOKENS, MAX_TOKENS)
    answer_embeddings, reference_embeddings = (
        _embed(model, tokenizer, texts, max_tokens) for texts in (answers, references)
    )
    cosines = cosine_similarity(answer_embeddings, reference_embeddings).tolist()
    return [
        cosine if answer.strip() and reference.strip() else 0.0
        for cosine, answer, reference in zip(cosines, answers, references, strict=True)
    ]


def _load_sentence_encoder(folder: "Path") -> tuple[Any, Any]:
    """(model, tokenizer)"""
    from transformers import AutoModel, AutoTokenizer

    quiet_transformers()
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model, info = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # the parsers of the library raise many types
        raise ModelError(f"evaluate.semantic_model: {folder} does not load ({type(error).__name__}: {error})") from None
    missing = sorted(
        name for name in info["missing_keys"] if "pooler" not in name
    )  # mean pooling does not use the pooler
    if missing:
        raise ModelError(
            f"evaluate.semantic_model: {folder} lacks weights, such as {missing[0]}; "
            "expected a folder written by save_pretrained"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval(), tokenizer


@torch.inference_mode()
def _embed(model: Any, tokenizer: Any, texts: list[str], max_tokens: int) -> torch.Tensor:
    """The embeddings of the texts: (texts, hidden size), in float32."""
    embeddings = []
    for start in range(0, len(texts), BATCH_SIZE):
        batch = tokenizer(
            texts[start : start + BATCH_SIZE], padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
        ).to(model.device)
        states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).float()
        embeddings.append((states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1))
    return torch.cat(embeddings)
