"""Builds the Trainer of a run from the base model, the tokenized rows, the collator and the loss."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import torch
import transformers
from transformers import PreTrainedModel

from pipeline.chat.model_template import end_ids_of
from pipeline.chat.row_format import read_row_format
from pipeline.config.options import Compute, Fsdp
from pipeline.config.params import Train
from pipeline.core.files import read_parquet
from pipeline.errors import DataError, ModelError
from pipeline.modeling import held_out_loss
from pipeline.modeling.collation import collate_packed, collate_padded, supports_packing
from pipeline.modeling.devices import uses_bf16
from pipeline.modeling.encoding import Example, load_encoder
from pipeline.modeling.loading import load_tokenizer
from pipeline.modeling.memory import retain_freed_memory
from pipeline.modeling.model_config import max_positions_of
from pipeline.train import attention, chunked_loss
from pipeline.train.answer_metric import GenerationMetric
from pipeline.train.arguments import training_arguments
from pipeline.train.history import ANSWER_METRICS
from pipeline.train.logged_trainer import Collator
from pipeline.train.methods import load_trainable
from pipeline.train.nonfinite import require_finite_weights
from pipeline.train.trainer import FineTuner

TRAIN_FILE, VALIDATION_FILE = "train.parquet", "validation.parquet"


def build_trainer(
    options: Train, base: Path, tokenized: Path, checkpoints: Path, device: torch.device, compute: Compute | None = None
) -> FineTuner:
    """The Trainer for the rows in the folder `tokenized` and the model in the folder `base`.

    Raises DataError if the rows do not fit the model, ModelError if the model has weights that are not finite or
    does not support packing, and ConfigError if the model or this machine lacks what the options ask for.
    """
    retain_freed_memory()
    model, tokenizer = load_trainable(base, options, device), load_tokenizer(base)
    require_finite_weights(model, str(base), "Use another base model, or fetch it again: dvc repro -f fetch@model")
    train, validation = (read_parquet(tokenized / name) for name in (TRAIN_FILE, VALIDATION_FILE))
    for rows, name in ((train, TRAIN_FILE), (validation, VALIDATION_FILE)):
        require_rows_fit_model(rows, tokenized / name, model, base)
    attention.install_block_attention(model)
    if uses_bf16(options.precision, device):
        model.get_input_embeddings().register_forward_hook(cast_embeddings_to_autocast_dtype)
    model.config.use_cache = False  # with a cache, packed rows would attend to each other
    if options.packing:
        require_packing_support(model, base, examples_of(train.slice(0, 3).to_pylist()))
    # Label smoothing needs every logit. FSDP gathers the output layer's weights only in that layer's own forward.
    needs_all_logits = options.label_smoothing or isinstance(compute, Fsdp)
    row_losses = held_out_loss.row_losses if needs_all_logits else chunked_loss.install_chunked_loss(model)
    has_chunked_loss = row_losses is not held_out_loss.row_losses
    padding_collator, packing_collator = collators(tokenizer.pad_token_id, has_chunked_loss)
    trainer = FineTuner(
        options,
        generation_metric_of(options, validation, base, tokenized),
        padding_collator,
        model=model,
        args=training_arguments(options, checkpoints, device, compute),
        train_dataset=datasets.Dataset(train),
        eval_dataset=datasets.Dataset(validation.sort_by([("length", "descending")])),  # for little padding
        data_collator=packing_collator if options.packing else padding_collator,
        preprocess_logits_for_metrics=row_losses,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def collators(pad_id: int, has_chunked_loss: bool) -> tuple[Collator, Collator]:
    """(a collator that pads rows, one that packs them); with the label positions that the chunked loss takes."""

    # Not nested functions: data-loader workers could not get these where processes are not forked.
    collate = partial(collate_rows, has_chunked_loss=has_chunked_loss)
    return partial(collate, partial(collate_padded, pad_id=pad_id)), partial(collate, collate_packed)


def collate_rows(
    collate: Callable[[list[Example]], dict[str, torch.Tensor]], rows: list[dict[str, Any]], has_chunked_loss: bool
) -> dict[str, torch.Tensor]:
    """A batch of tokenized rows; `collate` pads or packs it."""
    batch = collate(examples_of(rows))
    return chunked_loss.with_label_positions(batch) if has_chunked_loss else batch


def examples_of(rows: list[dict[str, Any]]) -> list[Example]:
    return [Example(row["input_ids"], row["labels"], 0) for row in rows]


def generation_metric_of(options: Train, validation: pa.Table, base: Path, tokenized: Path) -> GenerationMetric | None:
    """The metric that scores answers in each evaluation; None if early stopping uses the validation loss."""
    if options.early_stopping.metric not in ANSWER_METRICS:
        return None
    encoder = load_encoder(base)
    return GenerationMetric(
        validation,
        encoder,
        options.early_stopping,
        options.eval_batch_size,
        max_positions_of(base),
        end_ids_of(read_row_format(tokenized), encoder),
    )


def require_rows_fit_model(rows: pa.Table, path: Path, model: PreTrainedModel, base: Path) -> None:
    """Raise DataError if rows hold token ids without an embedding, or are longer than the model's positions."""
    embedding: Any = model.get_input_embeddings()
    tokens, positions = embedding.num_embeddings, max_positions_of(base)
    max_length, max_id = pc.max(rows["length"]).as_py(), pc.max(pc.list_flatten(rows["input_ids"])).as_py()
    if max_id >= tokens:
        raise DataError(
            f"{path}: token id {max_id}, but {base} embeds {tokens} tokens: these rows come from another tokenizer. "
            "Tokenize them again: dvc repro"
        )
    if positions and max_length > positions:
        raise DataError(
            f"{path}: a row has {max_length} tokens, but {base} has {positions} positions. Lower tokenize.max_length"
        )


def require_packing_support(model: PreTrainedModel, base: Path, examples: list[Example]) -> None:
    """Raise ModelError if packed rows attend to each other in this model; tried on the first tokens of some rows."""
    positions = max_positions_of(base) or 48
    tokens = max(1, min(16, positions // len(examples)))  # all rows together are also tried as one text, which must fit
    starts = [Example(example.input_ids[:tokens], example.labels[:tokens], 0) for example in examples]
    if not supports_packing(model, starts):
        raise ModelError(
            f"train.packing: {base} ({model.config.model_type}) does not keep packed rows apart, so it would learn each row "
            "as the continuation of another. Set train.packing=false; train.group_by_length=true leaves little padding, too"
        )


def cast_embeddings_to_autocast_dtype(module: torch.nn.Module, inputs: Any, embeddings: torch.Tensor) -> torch.Tensor:
    """A forward hook that returns the embeddings in autocast's type, so that the residual stream stays in it.

    Autocast alone leaves them in float32, and with them all norms and sums: twice the memory traffic, and a conversion
    before each matrix product.
    """
    return chunked_loss.cast_to_autocast_dtype(embeddings)
