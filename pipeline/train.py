"""Fine-tunes the base model on the tokenized rows with the Hugging Face Trainer.

    python -m pipeline.train     data/tokenized/, models/base/ → models/finetuned/, metrics/train.json,
                                 metrics/train/{history,validation}.tsv

models/finetuned/ holds safetensors, tokenizer and generation config: from_pretrained("models/finetuned") just works.
A training that was killed goes on from its last checkpoint (see pipeline/checkpoints.py) and ends as if it had not been.
"""

import logging
import math
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from transformers import EvalPrediction, GenerationConfig, PreTrainedModel, TrainingArguments

from pipeline import losses
from pipeline.checkpoints import StrictTrainer, checkpoint_folder, key_of, last_checkpoint
from pipeline.devices import device_of
from pipeline.encoding import Example
from pipeline.files import read_parquet, whole, write_json
from pipeline.history import HistoryCallback, Patience, rows_of, write_history
from pipeline.likelihood import pack, pad
from pipeline.params import Params, Train
from pipeline.stage import stage
from pipeline.weights import load_model, load_tokenizer, positions_of

log = logging.getLogger(__name__)

TOKENIZED, BASE, FINETUNED = Path("data/tokenized"), Path("models/base"), Path("models/finetuned")
HISTORY, METRICS = Path("metrics/train"), Path("metrics/train.json")


def arguments_of(options: Train, folder: Path, device: torch.device) -> TrainingArguments:
    """The Trainer's arguments; what they do not say is its default."""
    evaluation = "epoch" if options.eval_steps is None else "steps"
    return TrainingArguments(
        output_dir=str(folder),
        seed=options.seed,
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.eval_batch_size,
        gradient_accumulation_steps=options.gradient_accumulation,
        optim=options.optimizer,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.scheduler,
        warmup_steps=options.warmup_steps,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        bf16=options.precision == "bf16",
        activation_checkpointing=options.gradient_checkpointing,
        train_sampling_strategy="group_by_length" if options.group_by_length else "random",
        use_cpu=device.type == "cpu",
        logging_steps=options.logging_steps,
        logging_nan_inf_filter=False,  # it would show the last finite loss instead
        eval_strategy=evaluation,
        eval_steps=options.eval_steps,
        eval_on_start=True,
        restore_callback_states_from_checkpoint=True,  # the patience of early stopping
        save_strategy=evaluation,
        save_steps=options.eval_steps or 500,
        save_total_limit=1,
        load_best_model_at_end=options.keep_best,
        metric_for_best_model="validation_loss",
        greater_is_better=False,
        remove_unused_columns=False,
        length_column_name="length",
        dataloader_pin_memory=device.type == "cuda",
        report_to="none",
        disable_tqdm=True,  # HistoryCallback shows progress
    )


def details(model: PreTrainedModel, tokens: int, accumulation: int) -> dict[str, Any]:
    """Size and cost of a model, as the tutorial prints them.

    FLOPs of one optimizer step on `accumulation` sequences of `tokens` tokens: 6 × parameters without the input
    embedding × tokens (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", and what transformers'
    floating_point_ops computed as long as it was there).
    """
    embedded = model.get_input_embeddings().weight.numel()
    flops = 6 * (model.num_parameters() - embedded) * tokens * accumulation
    return {
        "parameters": model.num_parameters(),
        "trainable_parameters": model.num_parameters(only_trainable=True),
        "memory_gb": model.get_memory_footprint() / 1e9,
        "gflops_per_step_at_full_length": flops / 1e9,
    }


def validation_loss(prediction: EvalPrediction) -> dict[str, float]:
    """The loss in nats a token over all validation rows; the Trainer's own mean weighs rows alike, short or long."""
    summed, tokens = prediction.predictions.astype("float64").sum(axis=0)
    return {"validation_loss": float(summed / tokens)}


def build_trainer(options: Train, folder: Path, device: torch.device) -> StrictTrainer:
    """The Trainer over the tokenized rows, with the base model in it."""
    model, tokenizer = load_model(BASE), load_tokenizer(BASE)
    row_losses = losses.install(model)

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        examples = [Example(row["input_ids"], row["labels"], 0) for row in rows]
        return pack(examples) if options.packing else pad(examples, tokenizer.pad_token_id)

    trainer = StrictTrainer(
        model=model,
        args=arguments_of(options, folder, device),
        train_dataset=datasets.Dataset(read_parquet(TOKENIZED / "train.parquet")),
        eval_dataset=datasets.Dataset(read_parquet(TOKENIZED / "validation.parquet")),
        data_collator=collate,
        compute_metrics=validation_loss,
        preprocess_logits_for_metrics=row_losses,
        callbacks=[HistoryCallback()],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    stopping = options.early_stopping
    if stopping.patience is not None:
        trainer.add_callback(Patience(stopping.patience, stopping.threshold))
    return trainer


def save(model: PreTrainedModel, tokenizer: Any) -> None:
    """Write models/finetuned: weights in safetensors, tokenizer, and a generation config that stops and is greedy."""
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = True
    # One of our own: the base's may hold values for sampling, which save_pretrained refuses beside greedy decoding.
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    with whole(FINETUNED) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def train(options: Train, device: torch.device) -> dict[str, Any]:
    """Train, write the model and its history; return the metrics."""
    with checkpoint_folder(key_of({**options.model_dump(), "device": device.type}, TOKENIZED, BASE)) as folder:
        checkpoint = last_checkpoint(folder)
        trainer = build_trainer(options, folder, device)
        log.info(announced(options, trainer))
        log.debug(f"checkpoints in {folder}")
        if checkpoint:
            log.info(f"Going on from {checkpoint.name}, which an interrupted training left")
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        kept = trainer.evaluate()["eval_validation_loss"]
        model = trainer.accelerator.unwrap_model(trainer.model)
        save(model.cpu(), load_tokenizer(BASE))
        write_history(HISTORY, history := rows_of(trainer.state.log_history))
        return _metrics(trainer, model, kept, history)


def announced(options: Train, trainer: StrictTrainer) -> str:
    """What is about to be trained, in words."""
    rows, size = len(trainer.train_dataset), options.batch_size * options.gradient_accumulation
    steps = options.max_steps or math.ceil(math.ceil(rows / size) * options.epochs)
    extent = f"{steps:,} steps" if options.max_steps else f"{options.epochs:g} epochs, {steps:,} steps"
    return (
        f"Training {type(trainer.model).__name__} with {trainer.model.num_parameters():,} parameters on {rows:,} rows: "
        f"{extent} of {size} rows, {options.precision} on {trainer.args.device}"
    )


def _metrics(trainer: StrictTrainer, model: Any, kept: float, history: list[dict[str, Any]]) -> dict[str, Any]:
    options, state = trainer.args, trainer.state
    best = state.best_global_step if options.load_best_model_at_end else None
    losses = [row["loss"] for row in history if "loss" in row]  # none if it stopped early before the first log
    return {
        **({"loss": losses[-1]} if losses else {}),
        "validation_loss": kept,
        "validation_loss_before": next(row["validation_loss"] for row in history if "validation_loss" in row),
        "validation_perplexity": math.exp(min(kept, 709.0)),
        "steps": state.global_step,
        "kept_step": best or state.global_step,
        "epochs": state.epoch,
        **details(
            model,
            positions_of(BASE) or 2048,
            options.per_device_train_batch_size * options.gradient_accumulation_steps,
        ),
    }


@stage("train")
def main(params: Params) -> None:
    device = device_of(params.compute)
    metrics = train(params.train, device)
    write_json(METRICS, metrics)
    before, after = metrics["validation_loss_before"], metrics["validation_loss"]
    kept = f"the weights of step {metrics['kept_step']:,} of {metrics['steps']:,}"
    if after > before:
        log.warning("The validation loss rose: the model got worse than its base. Lower train.learning_rate")
    log.info(f"validation loss {before:.4f} → {after:.4f} nats a token; kept {kept} → {FINETUNED}/")


if __name__ == "__main__":
    main()
