"""Fine-tunes the base model on the tokenized rows with the Hugging Face Trainer.

    python -m pipeline.train     data/tokenized/, models/base/ → models/finetuned/, metrics/train.json,
                                 metrics/train/{history,validation}.tsv

models/finetuned/ holds safetensors, tokenizer and generation config: from_pretrained("models/finetuned") just works. With
train/method=lora an adapter is trained (pipeline/methods.py): it is merged into the model, and lies in adapter/ besides.
A training that was killed goes on from its last checkpoint (see pipeline/checkpoints.py) and ends as if it had not been.
With compute=ddp or compute=fsdp several processes train (see pipeline/launch.py); the first of them writes.
"""

import logging
import math
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import torch
import transformers
from transformers import GenerationConfig

from pipeline import attention, likelihood, losses
from pipeline.arguments import arguments_of
from pipeline.batches import keeps_apart, known_to_be, pack, pad
from pipeline.checkpoints import key_of, last_checkpoint, shared_checkpoint_folder, whole_model
from pipeline.devices import device_of, in_bf16
from pipeline.encoding import Example, load_encoder
from pipeline.errors import DataError, ModelError
from pipeline.files import read_parquet, whole, write_json
from pipeline.history import SCORES, rows_of, write_history
from pipeline.judge import Judge
from pipeline.launch import launched
from pipeline.memory import keep_freed_memory, told_when_out_of_memory
from pipeline.methods import finished, load_trainable
from pipeline.options import Fsdp, Machine
from pipeline.params import Params, Train
from pipeline.ranks import agreed, is_main, joined, local_rank
from pipeline.rates import step_rows, steps_of
from pipeline.stage import stage
from pipeline.trainer import FineTuner
from pipeline.weights import load_tokenizer, positions_of

log = logging.getLogger(__name__)

TOKENIZED, BASE, FINETUNED = Path("data/tokenized"), Path("models/base"), Path("models/finetuned")
TRAIN, VALIDATION = "train.parquet", "validation.parquet"
HISTORY, METRICS = Path("metrics/train"), Path("metrics/train.json")


def details(model: Any, tokens: int, accumulation: int) -> dict[str, Any]:
    """Size and cost of a model, as the tutorial prints them; an adapter's parameters are counted in.

    FLOPs of one optimizer step on `accumulation` sequences of `tokens` tokens: 6 × parameters without the input
    embedding × tokens (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", and what transformers'
    floating_point_ops computed as long as it was there). 2 of the 6 are of the gradients of weights, which weights that
    are not trained do not have.
    """
    embedding = model.get_input_embeddings().weight
    total, trainable = model.num_parameters(), model.num_parameters(only_trainable=True)
    frozen = total - trainable - (0 if embedding.requires_grad else embedding.numel())
    flops = (6 * (total - embedding.numel()) - 2 * frozen) * tokens * accumulation
    return {
        "parameters": total,
        "trainable_parameters": trainable,
        "memory_gb": model.get_memory_footprint() / 1e9,
        "gflops_per_step_at_full_length": flops / 1e9,
    }


def require_fit(rows: pa.Table, name: str, tokens: int, positions: int | None) -> None:
    """Raise DataError if rows hold ids that a model of so many tokens has not, or are longer than its positions."""
    longest, highest = pc.max(rows["length"]).as_py(), pc.max(pc.list_flatten(rows["input_ids"])).as_py()
    if highest >= tokens:
        raise DataError(
            f"{TOKENIZED / name}: token id {highest}, but {BASE} embeds {tokens} tokens: these rows are of another "
            "tokenizer. Tokenize them anew: dvc repro"
        )
    if positions and longest > positions:
        raise DataError(
            f"{TOKENIZED / name}: a row of {longest} tokens, but {BASE} has {positions} positions. Lower "
            "tokenize.max_length"
        )


def as_autocast(module: torch.nn.Module, inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
    """The embedded tokens in the type that autocast computes in, so that what is added to them stays in it, too.

    Autocast by itself leaves them in float32, and with them all norms and sums: twice the memory to go through, and a
    conversion before each matrix product.
    """
    return losses.in_autocast_type(embedded)


def require_apart(model: Any, examples: list[Example]) -> None:
    """Raise ModelError if a model lets packed rows see each other, by the starts of some rows."""
    if not keeps_apart(model, [Example(each.input_ids[:16], each.labels[:16], 0) for each in examples]):
        raise ModelError(
            f"train.packing: {BASE} ({model.config.model_type}) does not keep packed rows apart, so each would be learned "
            "as what follows another. Set train.packing=false; train.group_by_length=true leaves little padding, too"
        )


def build_trainer(options: Train, folder: Path, device: torch.device, compute: Machine | None = None) -> FineTuner:
    """The Trainer over the tokenized rows, with the base model in it."""
    keep_freed_memory()
    model, tokenizer = load_trainable(BASE, options, device), load_tokenizer(BASE)
    train, validation = (read_parquet(TOKENIZED / name) for name in (TRAIN, VALIDATION))
    for rows, name in ((train, TRAIN), (validation, VALIDATION)):
        require_fit(rows, name, model.get_input_embeddings().num_embeddings, positions_of(BASE))
    attention.install(model)
    if in_bf16(options.precision, device):
        model.get_input_embeddings().register_forward_hook(as_autocast)
    model.config.use_cache = False  # with a cache, packed rows are not kept apart
    if options.packing:
        require_apart(model, examples_of(train.slice(0, 3).to_pylist()))
    # Smoothed labels want every logit; of a split model, the output layer's weights are gathered in its own forward alone.
    every_logit = options.label_smoothing or isinstance(compute, Fsdp)
    row_losses = likelihood.row_losses if every_logit else losses.install(model)
    prepared = (lambda batch: batch) if row_losses is likelihood.row_losses else losses.with_places

    def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return prepared(pad(examples_of(rows), tokenizer.pad_token_id))

    def packed(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return prepared(pack(examples_of(rows)))

    trainer = FineTuner(
        options,
        judge_of(options, validation),
        model=model,
        args=arguments_of(options, folder, device, compute),
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


def judge_of(options: Train, validation: pa.Table) -> Judge | None:
    """Who scores answers, if their score decides what is kept."""
    if options.early_stopping.metric not in SCORES:
        return None
    return Judge(validation, load_encoder(BASE), options.early_stopping, options.eval_batch_size, positions_of(BASE))


def save(trained: Any, tokenizer: Any) -> None:
    """Write models/finetuned: weights in safetensors, tokenizer, and a generation config that stops and is greedy."""
    with whole(FINETUNED) as folder:
        model = finished(trained, BASE, folder)
        model.config.pad_token_id = tokenizer.pad_token_id
        model.config.use_cache = True
        # One of our own: the base's may hold values for sampling, which save_pretrained refuses beside greedy decoding.
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            do_sample=False,
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def train(options: Train, device: torch.device, compute: Machine | None = None) -> dict[str, Any]:
    """Train, write the model and its history; return the metrics. Of several processes, the main one writes."""
    where = {**(compute.model_dump() if compute else {}), "device": device.type}
    with shared_checkpoint_folder(key_of({**options.model_dump(), "compute": where}, TOKENIZED, BASE)) as folder:
        checkpoint = agreed(last_checkpoint(folder) if is_main() else None)
        trainer = build_trainer(options, folder, device, compute)
        log.info(announced(options, trainer))
        log.debug(f"checkpoints in {folder}")
        if checkpoint:
            log.info(f"Going on from {checkpoint.name}, which an interrupted training left")
        with told_when_out_of_memory(advice(options, trainer)), known_to_be(options.packing):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            kept = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
        model = whole_model(trainer, lambda: load_trainable(BASE, options, device))
        history = rows_of(trainer.state.log_history)
        metrics = _metrics(trainer, model, kept, history)
        if is_main():
            write_history(HISTORY, history)
            save(model.cpu(), load_tokenizer(BASE))
        return metrics


def announced(options: Train, trainer: FineTuner) -> str:
    """What is about to be trained, in words."""
    rows, processes = len(trainer.train_dataset), trainer.args.world_size
    steps, size = steps_of(options, rows, processes), step_rows(options, processes)
    extent = f"{steps:,} steps" if options.max_steps else f"{options.epochs:g} epochs, {steps:,} steps"
    config = trainer.model.config
    total, trainable = trainer.model.num_parameters(), trainer.model.num_parameters(only_trainable=True)
    some = "" if trainable == total else f", {trainable:,} of them trained,"
    return (
        f"Training {(config.architectures or [config.model_type])[0]} with {total:,} parameters{some} on {rows:,} rows: "
        f"{extent} of {size} rows, {'bf16' if trainer.args.bf16 else 'fp32'} on {trainer.args.device.type}"
        + (f" and {processes - 1} more, by {'FSDP' if trainer.is_fsdp_enabled else 'DDP'}" if processes > 1 else "")
    )


def advice(options: Train, trainer: FineTuner) -> str:
    """What to lower where memory is too small for it."""
    longest, evaluated = max(trainer.train_dataset["length"]), trainer.args.per_device_eval_batch_size
    return (
        f"trained in batches of {options.batch_size} rows, evaluated in batches of {evaluated}, of up to "
        f"{longest} tokens. Lower train.batch_size (and raise train.gradient_accumulation as much), "
        "train.eval_batch_size or tokenize.max_length, or set train.gradient_checkpointing=true"
    )


def _metrics(trainer: FineTuner, model: Any, kept: dict[str, Any], history: list[dict[str, Any]]) -> dict[str, Any]:
    options, state = trainer.args, trainer.state
    best = state.best_global_step if options.load_best_model_at_end else None
    losses = [row["loss"] for row in history if "loss" in row]  # none if it stopped early before the first log
    loss = kept["validation_loss"]
    return {
        **({"loss": losses[-1]} if losses else {}),
        "validation_loss": loss,
        "validation_loss_before": next(row["validation_loss"] for row in history if "validation_loss" in row),
        "validation_perplexity": math.exp(min(loss, 709.0)),
        **{f"validation_{name}": kept[name] for name in SCORES if name in kept},
        "steps": state.global_step,
        "kept_step": best or state.global_step,
        "epochs": state.epoch,
        **details(
            model,
            positions_of(BASE) or 2048,
            step_rows(trainer.options, options.world_size),
        ),
    }


@stage("train")
def main(params: Params) -> None:
    if launched("pipeline.train", params.compute):
        return
    device = device_of(params.compute, local_rank())
    with joined(on_cpu=device.type == "cpu"):
        metrics = train(params.train, device, params.compute)
        if is_main():
            tell(metrics)


def tell(metrics: dict[str, Any]) -> None:
    """Write the metrics, and say what came of it."""
    write_json(METRICS, metrics)
    before, after = metrics["validation_loss_before"], metrics["validation_loss"]
    kept = f"the weights of step {metrics['kept_step']:,} of {metrics['steps']:,}"
    if after > before:
        log.warning("The validation loss rose: the model got worse than its base. Lower train.learning_rate")
    log.info(f"validation loss {before:.4f} → {after:.4f} nats a token; kept {kept} → {FINETUNED}/")


if __name__ == "__main__":
    main()
