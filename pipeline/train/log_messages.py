"""The log lines of the train stage before and after training, and its hint when memory runs out."""

import logging
from typing import Any

from pipeline.config.params import Train
from pipeline.core.paths import FINETUNED
from pipeline.train.schedules import rows_per_step, total_steps
from pipeline.train.trainer import FineTuner

log = logging.getLogger(__name__)


def describe_run(options: Train, trainer: FineTuner) -> str:
    """One line about the training that is about to start: model, rows, steps, precision, device, processes."""
    rows, processes = len(trainer.train_dataset), trainer.args.world_size
    steps, size = total_steps(options, rows, processes), rows_per_step(options, processes)
    extent = f"{steps:,} steps" if options.max_steps else f"{options.epochs:g} epochs, {steps:,} steps"
    config = trainer.model.config
    architecture = (config.architectures or [config.model_type])[0]
    total, trainable = trainer.model.num_parameters(), trainer.model.num_parameters(only_trainable=True)
    trainable_note = "" if trainable == total else f" ({trainable:,} trainable)"
    strategy = "FSDP" if trainer.is_fsdp_enabled else "DDP"
    return (
        f"Training {architecture} with {total:,} parameters{trainable_note} on {rows:,} rows: "
        f"{extent} of {size} rows, {'bf16' if trainer.args.bf16 else 'fp32'} on {trainer.args.device.type}"
        + (f" in {processes} processes ({strategy})" if processes > 1 else "")
    )


def oom_hint(options: Train, trainer: FineTuner) -> str:
    """The sizes of this run that take memory, and the parameters that lower them."""
    max_length, eval_batch_size = max(trainer.train_dataset["length"]), trainer.args.per_device_eval_batch_size
    return (
        f"trained in batches of {options.batch_size} rows and evaluated in batches of {eval_batch_size}, of up to "
        f"{max_length} tokens each. Lower train.batch_size (and raise train.gradient_accumulation by the same factor), "
        "train.eval_batch_size or tokenize.max_length, or set train.gradient_checkpointing=true"
    )


def report(metrics: dict[str, Any]) -> None:
    """Log the validation loss before and after training, and the step of the saved weights."""
    before, after = metrics["validation_loss_before"], metrics["validation_loss"]
    if after > before:
        log.warning(
            "The validation loss rose: the fine-tuned model is worse than the base model. Lower train.learning_rate"
        )
    log.info(
        f"Validation loss: {before:.4f} nats per token before training, {after:.4f} at step {metrics['kept_step']:,} of "
        f"{metrics['steps']:,}, whose weights were saved to {FINETUNED}/"
    )
