"""Asks a model the test questions, scores its answers, and measures its loss on the reference answers.

    python -m pipeline.evaluate instance=base          models/base → data/predictions/base.jsonl,
                                                       metrics/evaluate/base.json
    python -m pipeline.evaluate instance=finetuned     models/finetuned → the same of finetuned

A prediction: id, prompt, reference, prediction, new_tokens, finish_reason, the scores of scores.py, looping, and of the
reference answer: loss (nats a token), tokens (with the end of text), bytes (UTF-8).
Plain text has no question to answer: its rows are id, reference and these three, and the loss is all the metrics.
"""

import logging
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.config.params import Evaluate, Params
from pipeline.core.entrypoint import stage
from pipeline.core.files import atomic_write, read_jsonl, sha256_of_path, write_json, write_jsonl
from pipeline.core.paths import METRICS, MODELS, PREDICTIONS, TEST_ROWS
from pipeline.errors import ConfigError, DataError
from pipeline.evaluate import vllm_engine
from pipeline.evaluate.semantic import semantic_similarities
from pipeline.modeling.answer_journal import Answer, AnswerJournal, open_answer_journal
from pipeline.modeling.devices import device_of
from pipeline.modeling.encoding import Encoder, build_example, load_encoder, truncate_prompt
from pipeline.modeling.generation import StopConditions, generate_answers
from pipeline.modeling.held_out_loss import held_out_losses
from pipeline.modeling.loading import load_model, max_positions_of
from pipeline.modeling.memory import explain_out_of_memory
from pipeline.scoring.answer_scores import is_looping, score_answer
from pipeline.scoring.metrics import summarize_predictions

log = logging.getLogger(__name__)

UNLIMITED = 2**31  # tokens, where the model's configuration names no limit
FormattedRow = dict[str, Any]


def predict_rows(
    rows: list[FormattedRow],
    model: Any,
    encoder: Encoder,
    options: Evaluate,
    positions: int | None,
    kept: AnswerJournal | None = None,
) -> list[FormattedRow]:
    """The rows with the model's answers and their scores; a prompt that is too long loses its start."""
    room = room_for_prompt(positions, options.max_new_tokens)
    prompts = [truncate_prompt(prompt, room, encoder.bos) for prompt in encoder.prompts(row["prompt"] for row in rows)]
    ending = StopConditions(options.max_new_tokens, encoder.eos, encoder.padding)
    started, before = time.perf_counter(), len(kept.answers) if kept else 0
    answers = answer_prompts(model, prompts, ending, options, kept)
    seconds = time.perf_counter() - started
    went_on = f", {before:,} more were there already" if before else ""
    log.info(
        f"{len(rows) - before:,} answers in {seconds:.1f} s, {(len(rows) - before) / seconds:.3g} a second{went_on}"
    )
    predictions = []
    for row, answer in zip(rows, answers, strict=True):
        prediction = encoder.tokenizer.decode(answer.new_tokens, skip_special_tokens=True).strip()
        reference = row["completion"].strip()
        predictions.append(
            {
                "id": row["id"],
                "prompt": row["prompt"],
                "reference": reference,
                "prediction": prediction,
                "new_tokens": len(answer.new_tokens),
                "finish_reason": answer.finish_reason,
                **score_answer(prediction, reference),
                "looping": float(is_looping(answer.new_tokens)),
            }
        )
    return predictions


def answer_prompts(
    model: Any, prompts: list[list[int]], ending: StopConditions, options: Evaluate, kept: AnswerJournal | None
) -> list[Answer]:
    """The answers by the engine that the parameters name; vLLM loads the model anew, and gets the card's memory for it."""
    if options.engine == "transformers":
        return generate_answers(model, prompts, ending, options.batch_size, kept)
    model.to("cpu")
    torch.cuda.empty_cache()
    return vllm_engine.generate_with_vllm(Path(model.name_or_path), prompts, ending, options.precision, kept)


def room_for_prompt(positions: int | None, max_new_tokens: int) -> int:
    """The longest prompt, in tokens, that leaves room for an answer; ConfigError if that is none."""
    if positions is None:
        return UNLIMITED
    if max_new_tokens >= positions:
        raise ConfigError(
            f"evaluate.max_new_tokens: {max_new_tokens} leaves no room for a question: the model has {positions} positions"
        )
    return positions - max_new_tokens


def reference_losses(
    rows: list[FormattedRow], model: Any, encoder: Encoder, positions: int | None
) -> list[dict[str, float]]:
    """The held-out loss on each row's completion: loss (nats a token, the end of text included), tokens, bytes.

    Of a completion that the model has no room for, the end is left out; so it is of the bytes.
    """
    prompts = encoder.prompts(row["prompt"] for row in rows)
    completions = encoder.completions(row["completion"] for row in rows)
    longest = positions or UNLIMITED
    pairs = zip(prompts, completions, strict=True)
    examples = [build_example(*pair, longest, bos=encoder.bos) for pair in pairs]
    losses = held_out_losses(model, examples, encoder.padding)
    texts = [
        row["completion"] if tokens == len(completion) else encoder.tokenizer.decode(completion[:tokens])
        for row, completion, (_, tokens) in zip(rows, completions, losses, strict=True)
    ]
    return [
        {"loss": nats / tokens, "tokens": tokens, "bytes": len(text.encode())}
        for text, (nats, tokens) in zip(texts, losses, strict=True)
    ]


def require_references(rows: list[FormattedRow]) -> None:
    """DataError if there is no row, or one without an answer to score by."""
    if not rows:
        raise DataError(f"{TEST_ROWS} holds no row; raise format.test_fraction, or fetch more rows")
    for row in rows:
        if not row["completion"].strip():
            raise DataError(
                f"{TEST_ROWS}: test row {row['id']} has no answer to score by; see what data.columns and format.template make of it"
            )


def evaluate_model(
    rows: list[FormattedRow], folder: Path, options: Evaluate, device: Any, kept: AnswerJournal | None = None
) -> tuple[list[FormattedRow], dict[str, Any]]:
    """(predictions, metrics) of the model in a folder; with the answers that are kept already."""
    require_references(rows)
    encoder = load_encoder(folder)
    model = load_model(folder).to(device)
    positions = max_positions_of(folder)
    losses = reference_losses(rows, model, encoder, positions)
    if any(row["prompt"] for row in rows):
        model = model.to(torch.bfloat16 if options.precision == "bf16" else torch.float32)
        predictions = predict_rows(rows, model, encoder, options, positions, kept)
        if options.semantic_model:
            texts = ([row[name] for row in predictions] for name in ("prediction", "reference"))
            meant = semantic_similarities(options.semantic_model, *texts, device)
            predictions = [{**row, "semantic": cosine} for row, cosine in zip(predictions, meant, strict=True)]
    else:
        predictions = [{"id": row["id"], "reference": row["completion"]} for row in rows]
    predictions = [{**prediction, **loss} for prediction, loss in zip(predictions, losses, strict=True)]
    return predictions, {"rows": len(rows), **summarize_predictions(predictions)}


def journal_key(rows: list[FormattedRow], folder: Path, options: Evaluate, device: torch.device) -> dict[str, Any]:
    """What the answers depend on."""
    return {
        "prompts": [row["prompt"] for row in rows],
        "model": sha256_of_path(folder),
        "device": device.type,
        **options.model_dump(include={"max_new_tokens", "precision", "engine"}),
    }


@stage("evaluate", instances=("base", "finetuned"))
def main(params: Params, instance: str) -> None:
    rows = read_jsonl(TEST_ROWS)[: params.evaluate.limit]
    if params.evaluate.engine == "vllm" and (lacking := vllm_engine.missing_for_vllm(params.compute.device)):
        raise ConfigError(lacking)
    device = device_of(params.compute)
    folder, options = MODELS / instance, params.evaluate
    asked = any(row["prompt"] for row in rows)
    what = (
        f"Asking {folder} the {len(rows):,} test questions"
        if asked
        else f"Reading {len(rows):,} test texts by {folder}"
    )
    log.info(f"{what}, on {device}")
    with open_answer_journal(journal_key(rows, folder, options, device)) as kept:
        with explain_out_of_memory(
            "the model needs more for its longest test row. Set evaluate.precision=bf16, lower evaluate.max_new_tokens, or "
            "take a smaller model"
        ):
            predictions, metrics = evaluate_model(rows, folder, options, device, kept)
        with atomic_write(PREDICTIONS / f"{instance}.jsonl") as temporary:
            write_jsonl(temporary, predictions)
        write_json(METRICS / "evaluate" / f"{instance}.json", metrics)
    shown = ("exact_match", "f1", "bleu", "rougeL", "loss", "perplexity")
    figures = ", ".join(f"{name} {metrics[name]:.4g}" for name in shown if name in metrics)
    log.info(f"{figures} → {PREDICTIONS / instance}.jsonl")
