"""What a training leaves: models/finetuned, and the figures of metrics/train.json."""

import math
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from pipeline.core.files import atomic_write
from pipeline.modeling.loading import max_positions_of
from pipeline.train.history import SCORES
from pipeline.train.methods import finalize_model
from pipeline.train.schedules import rows_per_step
from pipeline.train.trainer import FineTuner

LARGEST_EXPONENT = 709.0  # exp of more overflows
UNKNOWN_LENGTH = 2048  # tokens, where the model's configuration names no limit


def export_model(trained: Any, tokenizer: Any, base: Path, target: Path) -> None:
    """Write weights in safetensors, tokenizer, and a generation config that stops and is greedy."""
    with atomic_write(target) as folder:
        model = finalize_model(trained, base, folder)
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


def model_stats(model: Any, tokens: int, accumulation: int) -> dict[str, Any]:
    """Size and cost of a model; an adapter's parameters are included.

    FLOPs of one optimizer step on `accumulation` sequences of `tokens` tokens: 6 × parameters without the input
    embedding × tokens (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", and what transformers 4
    computed as floating_point_ops). 2 of the 6 are for the gradients of the weights; frozen weights have none.
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


def training_metrics(
    trainer: FineTuner, model: Any, evaluated: dict[str, Any], history: list[dict[str, Any]], base: Path
) -> dict[str, Any]:
    """metrics/train.json. `evaluated`: what the kept weights score on the validation rows."""
    options, state = trainer.args, trainer.state
    best = state.best_global_step if options.load_best_model_at_end else None
    losses = [row["loss"] for row in history if "loss" in row]  # none if it stopped early before the first log
    loss = evaluated["validation_loss"]
    return {
        **({"loss": losses[-1]} if losses else {}),
        "validation_loss": loss,
        "validation_loss_before": next(row["validation_loss"] for row in history if "validation_loss" in row),
        "validation_perplexity": math.exp(min(loss, LARGEST_EXPONENT)),
        **{f"validation_{name}": evaluated[name] for name in SCORES if name in evaluated},
        "steps": state.global_step,
        "kept_step": best or state.global_step,
        "epochs": state.epoch,
        **model_stats(
            model, max_positions_of(base) or UNKNOWN_LENGTH, rows_per_step(trainer.options, options.world_size)
        ),
    }
