"""The Trainer of a run: base model, tokenized rows, collator and loss put together."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import torch
import transformers

from pipeline.config.options import Fsdp, Machine
from pipeline.config.params import Train
from pipeline.core.files import read_parquet
from pipeline.errors import DataError, ModelError
from pipeline.modeling import held_out_loss
from pipeline.modeling.batches import collate_packed, collate_padded, supports_packing
from pipeline.modeling.devices import uses_bf16
from pipeline.modeling.encoding import Example, load_encoder
from pipeline.modeling.loading import load_tokenizer, max_positions_of
from pipeline.modeling.memory import retain_freed_memory
from pipeline.train import attention, chunked_loss
from pipeline.train.answer_metric import GenerationMetric
from pipeline.train.arguments import training_arguments
from pipeline.train.history import SCORES
from pipeline.train.methods import load_trainable
from pipeline.train.trainer import FineTuner

TRAIN, VALIDATION = "train.parquet", "validation.parquet"


def build_trainer(
    options: Train, base: Path, tokenized: Path, checkpoints: Path, device: torch.device, compute: Machine | None = None
) -> FineTuner:
    """The Trainer for the rows of the folder `tokenized` and the model of the folder `base`."""
    retain_freed_memory()
    model, tokenizer = load_trainable(base, options, device), load_tokenizer(base)
    train, validation = (read_parquet(tokenized / name) for name in (TRAIN, VALIDATION))
    for rows, name in ((train, TRAIN), (validation, VALIDATION)):
        require_rows_fit_model(rows, tokenized / name, model, base)
    attention.install_block_attention(model)
    if uses_bf16(options.precision, device):
        model.get_input_embeddings().register_forward_hook(cast_embeddings_to_autocast_dtype)
    model.config.use_cache = False  # with a cache, packed rows are not kept apart
    if options.packing:
        require_packing_support(model, base, examples_of(train.slice(0, 3).to_pylist()))
    # Smoothed labels want every logit; of a split model, the output layer's weights are gathered in its own forward alone.
    every_logit = options.label_smoothing or isinstance(compute, Fsdp)
    row_losses = held_out_loss.row_losses if every_logit else chunked_loss.install_chunked_loss(model)
    prepared = (lambda batch: batch) if row_losses is held_out_loss.row_losses else chunked_loss.with_label_positions

    def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return prepared(collate_padded(examples_of(rows), tokenizer.pad_token_id))

    def packed(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return prepared(collate_packed(examples_of(rows)))

    trainer = FineTuner(
        options,
        generation_metric_of(options, validation, base),
        model=model,
        args=training_arguments(options, checkpoints, device, compute),
        train_dataset=datasets.Dataset(train),
        eval_dataset=datasets.Dataset(validation.sort_by([("length", "descending")])),  # so little is padding
        data_collator=packed if options.packing else padded,
        padded=padded,
        preprocess_logits_for_metrics=row_losses,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def examples_of(rows: list[dict[str, Any]]) -> list[Example]:
    return [Example(row["input_ids"], row["labels"], 0) for row in rows]


def generation_metric_of(options: Train, validation: pa.Table, base: Path) -> GenerationMetric | None:
    """Who scores answers, if their score decides what is kept."""
    if options.early_stopping.metric not in SCORES:
        return None
    return GenerationMetric(
        validation, load_encoder(base), options.early_stopping, options.eval_batch_size, max_positions_of(base)
    )


def require_rows_fit_model(rows: pa.Table, path: Path, model: Any, base: Path) -> None:
    """Raise DataError if rows hold ids that the model does not embed, or are longer than its positions."""
    tokens, positions = model.get_input_embeddings().num_embeddings, max_positions_of(base)
    longest, highest = pc.max(rows["length"]).as_py(), pc.max(pc.list_flatten(rows["input_ids"])).as_py()
    if highest >= tokens:
        raise DataError(
            f"{path}: token id {highest}, but {base} embeds {tokens} tokens: these rows are of another "
            "tokenizer. Tokenize them anew: dvc repro"
        )
    if positions and longest > positions:
        raise DataError(
            f"{path}: a row of {longest} tokens, but {base} has {positions} positions. Lower tokenize.max_length"
        )


def require_packing_support(model: Any, base: Path, examples: list[Example]) -> None:
    """Raise ModelError if a model lets packed rows see each other, by the starts of some rows."""
    if not supports_packing(model, [Example(each.input_ids[:16], each.labels[:16], 0) for each in examples]):
        raise ModelError(
            f"train.packing: {base} ({model.config.model_type}) does not keep packed rows apart, so each would be learned "
            "as what follows another. Set train.packing=false; train.group_by_length=true leaves little padding, too"
        )


def cast_embeddings_to_autocast_dtype(module: torch.nn.Module, inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
    """The embedded tokens in the type that autocast computes in, so that what is added to them stays in it, too.

    Autocast by itself leaves them in float32, and with them all norms and sums: twice the memory to go through, and a
    conversion before each matrix product.
    """
    return chunked_loss.cast_to_autocast_dtype(embedded)
