"""The outputs of a training: models/finetuned/ and the values of metrics/details/train.json."""

import math
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from pipeline.chat.model_template import TOOL_TEMPLATE, end_ids_of
from pipeline.chat.row_format import PLAIN_TEXT, ChatFormat, TextFormat
from pipeline.core.files import atomic_write
from pipeline.modeling.encoding import load_encoder
from pipeline.modeling.generation import end_token_ids
from pipeline.modeling.loading import load_tokenizer
from pipeline.modeling.model_config import max_positions_of
from pipeline.modeling.served_template import served_template, served_tool_template
from pipeline.train.history import ANSWER_METRICS, LogEntry
from pipeline.train.methods import finalize_model
from pipeline.train.nonfinite import require_finite_weights
from pipeline.train.schedules import rows_per_step
from pipeline.train.trainer import FineTuner

MAX_EXPONENT = 709.0  # the exponential of more overflows
DEFAULT_MAX_POSITIONS = 2048  # where the model's configuration has no limit


def export_model(
    trained: PreTrainedModel, base: Path, target: Path, row_format: TextFormat | ChatFormat = PLAIN_TEXT
) -> None:
    """Write the weights in safetensors, the tokenizer, and a generation config for greedy answers that stop.

    The chat template is the one that rendered the rows, or one that renders messages as the prompt template did. The tokenizer
    is saved to pad on the left, as generation in batches needs; whatever trains the model sets its own side.
    Raises ModelError, and writes nothing, if a weight is not finite.
    """
    tokenizer, encoder = load_tokenizer(base, padding_side="left"), load_encoder(base)
    start_tokens = encoder.tokenizer.decode([*encoder.start_ids], skip_special_tokens=False)
    if (template := served_template(row_format, start_tokens, tokenizer.eos_token)) is not None:
        set_chat_template(tokenizer, template, served_tool_template(row_format))
    with atomic_write(target) as folder:
        model = finalize_model(trained, tokenizer, base, folder)
        require_finite_weights(model, "the trained model", "Nothing was saved. Lower train.learning_rate")
        added, answer_end_ids = tokenizer.added_tokens_decoder, end_ids_of(row_format, encoder)
        end_ids = end_token_ids(model, tokenizer.eos_token_id, added, answer_end_ids)
        model.config.pad_token_id = tokenizer.pad_token_id
        model.config.use_cache = True
        # A new config: the base's may hold sampling options, which save_pretrained refuses beside greedy decoding.
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=end_ids if len(end_ids) > 1 else tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            do_sample=False,
        )
        model.save_pretrained(folder)
        flag_as_special(tokenizer, end_ids)
        tokenizer.save_pretrained(folder)


def flag_as_special(tokenizer: Any, token_ids: list[int]) -> None:
    """Flag added tokens as special, so that servers leave out an answer's end as they do others' special tokens."""
    added = tokenizer.added_tokens_decoder
    tokens = [added[token_id] for token_id in token_ids if token_id in added and not added[token_id].special]
    for token in tokens:
        token.special = True
    if tokens:
        tokenizer.add_tokens(tokens, special_tokens=True)


def set_chat_template(tokenizer: Any, template: str, tool_template: str | None = None) -> None:
    """Make `template` the tokenizer's chat template; others that it has under a name stay.

    tool_template: the one for requests with tools. Without it, they are rendered by `template`, whatever the base has for them.
    """
    named = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
    others = {name: text for name, text in named.items() if name not in ("default", TOOL_TEMPLATE)}
    if tool_template is not None:
        others[TOOL_TEMPLATE] = tool_template
    tokenizer.chat_template = {"default": template, **others} if others else template


def model_stats(model: Any, row_tokens: int, rows: int) -> dict[str, Any]:
    """Size and cost of a model, an adapter's parameters included.

    FLOPs of one optimizer step on `rows` rows of `row_tokens` tokens: 6 × parameters without the input embedding × tokens
    (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", and what transformers 4 computed as
    floating_point_ops). Of the 6, 2 are for the gradients of the weights, which frozen weights do not have.
    """
    embedding = model.get_input_embeddings().weight
    total, trainable = model.num_parameters(), model.num_parameters(only_trainable=True)
    frozen = total - trainable - (0 if embedding.requires_grad else embedding.numel())
    flops = (6 * (total - embedding.numel()) - 2 * frozen) * row_tokens * rows
    return {
        "parameters": total,
        "trainable_parameters": trainable,
        "memory_gb": model.get_memory_footprint() / 1e9,
        "gflops_per_step_at_full_length": flops / 1e9,
    }


def training_metrics(
    trainer: FineTuner, model: PreTrainedModel, evaluation: dict[str, Any], history: list[LogEntry], base: Path
) -> dict[str, Any]:
    """The values of metrics/details/train.json. `evaluation` holds the metrics of the final weights on the validation rows."""
    arguments, state = trainer.args, trainer.state
    best = state.best_global_step if arguments.load_best_model_at_end else None
    losses = [row["loss"] for row in history if "loss" in row]  # none if training stopped before the first log
    loss = evaluation["validation_loss"]
    return {
        **({"loss": losses[-1]} if losses else {}),
        "validation_loss": loss,
        "validation_loss_before": next(row["validation_loss"] for row in history if "validation_loss" in row),
        "validation_perplexity": math.exp(min(loss, MAX_EXPONENT)),
        **{f"validation_{name}": evaluation[name] for name in ANSWER_METRICS if name in evaluation},
        "steps": state.global_step,
        "kept_step": best or state.global_step,
        "epochs": state.epoch,
        **model_stats(
            model, max_positions_of(base) or DEFAULT_MAX_POSITIONS, rows_per_step(trainer.options, arguments.world_size)
        ),
    }
