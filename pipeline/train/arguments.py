"""The Trainer's arguments, from the sections train and compute of params.yaml."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from pipeline.config.options import Compute, Fsdp
from pipeline.config.params import Train
from pipeline.modeling.devices import uses_bf16
from pipeline.train.history import ANSWER_METRICS


def training_arguments(
    options: Train, checkpoints: Path, device: torch.device, compute: Compute | None = None
) -> TrainingArguments:
    """The Trainer's arguments; whatever is not set here keeps the Trainer's default."""
    evaluation = "epoch" if options.eval_steps is None else "steps"
    is_fsdp = isinstance(compute, Fsdp)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        seed=options.seed,
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.eval_batch_size or 1,  # 1: FineTuner chooses a size that fits
        gradient_accumulation_steps=options.gradient_accumulation,
        optim=options.optimizer,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        label_smoothing_factor=options.label_smoothing,
        neftune_noise_alpha=options.neftune_alpha,
        bf16=uses_bf16(options.precision, device),
        activation_checkpointing=options.gradient_checkpointing and not is_fsdp,
        fsdp=is_fsdp,  # type: ignore[arg-type]  # annotated as str, but documented and used as a bool
        fsdp_config=fsdp_config(options, compute) if isinstance(compute, Fsdp) else None,
        train_sampling_strategy="group_by_length" if options.group_by_length else "random",
        use_cpu=device.type == "cpu",
        logging_steps=options.logging_steps,
        logging_nan_inf_filter=False,  # the filter would log the last finite loss instead of nan
        eval_strategy=evaluation,
        eval_steps=options.eval_steps,
        eval_on_start=True,
        restore_callback_states_from_checkpoint=True,  # early stopping's patience, the time budget
        save_strategy=evaluation,
        save_steps=options.eval_steps or 500,
        load_best_model_at_end=options.keep_best,
        metric_for_best_model=options.early_stopping.metric,
        greater_is_better=options.early_stopping.metric in ANSWER_METRICS,
        remove_unused_columns=False,
        length_column_name="length",
        ddp_find_unused_parameters=False,  # every trainable parameter gets a gradient in every step
        dataloader_num_workers=options.dataloader_workers,
        dataloader_pin_memory=device.type == "cuda",
        accelerator_config={"non_blocking": device.type == "cuda"},  # else the host waits for the GPU at each batch
        report_to="none",
        disable_tqdm=True,  # HistoryCallback shows progress
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # with more, the Trainer would wrap the model in nn.DataParallel
    return arguments


def fsdp_config(options: Train, compute: Fsdp) -> dict[str, Any]:
    """How Accelerate shards the model; weights are gathered before they are saved."""
    return {
        "state_dict_type": "FULL_STATE_DICT",
        "reshard_after_forward": compute.reshard_after_forward,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "activation_checkpointing": options.gradient_checkpointing,
    }
