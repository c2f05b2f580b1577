"""What the train stage says: before training, after it, and where memory runs out."""

import logging
from typing import Any

from pipeline.config.params import Train
from pipeline.core.paths import FINETUNED
from pipeline.train.schedules import rows_per_step, total_steps
from pipeline.train.trainer import FineTuner

log = logging.getLogger(__name__)


def describe_run(options: Train, trainer: FineTuner) -> str:
    """What is about to be trained."""
    rows, processes = len(trainer.train_dataset), trainer.args.world_size
    steps, size = total_steps(options, rows, processes), rows_per_step(options, processes)
    extent = f"{steps:,} steps" if options.max_steps else f"{options.epochs:g} epochs, {steps:,} steps"
    config = trainer.model.config
    total, trainable = trainer.model.num_parameters(), trainer.model.num_parameters(only_trainable=True)
    some = "" if trainable == total else f", {trainable:,} of them trained,"
    return (
        f"Training {(config.architectures or [config.model_type])[0]} with {total:,} parameters{some} on {rows:,} rows: "
        f"{extent} of {size} rows, {'bf16' if trainer.args.bf16 else 'fp32'} on {trainer.args.device.type}"
        + (f" and {processes - 1} more, by {'FSDP' if trainer.is_fsdp_enabled else 'DDP'}" if processes > 1 else "")
    )


def oom_hint(options: Train, trainer: FineTuner) -> str:
    """What to lower where memory is too small for it."""
    longest, evaluated = max(trainer.train_dataset["length"]), trainer.args.per_device_eval_batch_size
    return (
        f"trained in batches of {options.batch_size} rows, evaluated in batches of {evaluated}, of up to "
        f"{longest} tokens. Lower train.batch_size (and raise train.gradient_accumulation as much), "
        "train.eval_batch_size or tokenize.max_length, or set train.gradient_checkpointing=true"
    )


def report(metrics: dict[str, Any]) -> None:
    """Log the validation loss before and after, and which weights were kept."""
    before, after = metrics["validation_loss_before"], metrics["validation_loss"]
    kept = f"the weights of step {metrics['kept_step']:,} of {metrics['steps']:,}"
    if after > before:
        log.warning("The validation loss rose: the model got worse than its base. Lower train.learning_rate")
    log.info(f"validation loss {before:.4f} → {after:.4f} nats a token; kept {kept} → {FINETUNED}/")
