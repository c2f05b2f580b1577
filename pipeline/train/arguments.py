"""The Trainer's arguments, from the sections train and compute."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from pipeline.config.options import Fsdp, Machine
from pipeline.config.params import Train
from pipeline.modeling.devices import uses_bf16
from pipeline.train.history import SCORES


def training_arguments(
    options: Train, folder: Path, device: torch.device, compute: Machine | None = None
) -> TrainingArguments:
    """The Trainer's arguments; what they do not say is its default."""
    evaluation = "epoch" if options.eval_steps is None else "steps"
    is_sharded = isinstance(compute, Fsdp)
    arguments = TrainingArguments(
        output_dir=str(folder),
        seed=options.seed,
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.eval_batch_size or 1,  # else FineTuner finds what fits
        gradient_accumulation_steps=options.gradient_accumulation,
        optim=options.optimizer,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        label_smoothing_factor=options.label_smoothing,
        neftune_noise_alpha=options.neftune_alpha,
        bf16=uses_bf16(options.precision, device),
        activation_checkpointing=options.gradient_checkpointing and not is_sharded,
        fsdp=is_sharded,
        fsdp_config=fsdp_config(options, compute) if isinstance(compute, Fsdp) else None,
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
        metric_for_best_model=options.early_stopping.metric,
        greater_is_better=options.early_stopping.metric in SCORES,
        remove_unused_columns=False,
        length_column_name="length",
        ddp_find_unused_parameters=False,  # all are used
        dataloader_pin_memory=device.type == "cuda",
        accelerator_config={"non_blocking": device.type == "cuda"},  # else the host waits for the card at each batch
        report_to="none",
        disable_tqdm=True,  # HistoryCallback shows progress
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # on several cards the Trainer would spread a process's batches over all
    return arguments


def fsdp_config(options: Train, compute: Fsdp) -> dict[str, Any]:
    """How the Trainer splits the model; what is saved is whole."""
    return {
        "state_dict_type": "FULL_STATE_DICT",
        "reshard_after_forward": compute.reshard_after_forward,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "activation_checkpointing": options.gradient_checkpointing,
    }
