"""Generate a model's answers to the test prompts, score them, and compute its loss on the reference answers.

    python -m pipeline.evaluate instance=base          models/base → data/predictions/base.jsonl,
                                                       metrics/evaluate/base.json
    python -m pipeline.evaluate instance=finetuned     models/finetuned → the same files of finetuned

Dialogues are asked for by the chat template that rendered the training rows, the base model's own by default.

A prediction has the fields id, prompt, reference, prediction, new_tokens, finish_reason, the scores of answer_scores.py,
looping, and for the reference answer: loss (nats per token), tokens (including the end of text) and bytes (UTF-8).
Plain text has no prompts: its predictions are id, reference and these three fields, and its metrics are the losses alone.
"""

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.chat.model_template import ModelTemplates, read_model_templates
from pipeline.chat.row_format import FILE_NAME as TEMPLATE_FILE
from pipeline.chat.row_format import PLAIN_TEXT, ChatFormat, TextFormat, read_row_format
from pipeline.config.params import Evaluate, Params
from pipeline.core.entrypoint import stage
from pipeline.core.files import atomic_write, read_jsonl, sha256_of_path, write_jsonl
from pipeline.core.metrics import write_metrics
from pipeline.core.paths import FORMATTED, MODELS, PREDICTIONS, TEST_ROWS
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.evaluate import vllm_engine
from pipeline.evaluate.questions import FormattedRow, Question, QuestionReader, TokenLimits
from pipeline.evaluate.semantic import semantic_similarities
from pipeline.modeling.answer_journal import Answer, AnswerJournal, describe_other_journals, open_answer_journal
from pipeline.modeling.devices import device_of, set_threads
from pipeline.modeling.encoding import Encoder, load_encoder
from pipeline.modeling.environment import environment_record, resumption_record
from pipeline.modeling.generation import StopConditions, generate_answers, stop_conditions
from pipeline.modeling.held_out_loss import held_out_losses
from pipeline.modeling.loading import load_model
from pipeline.modeling.memory import explain_out_of_memory
from pipeline.modeling.model_config import max_positions_of
from pipeline.modeling.resume_key import ResumeKey
from pipeline.modeling.served_template import served_template, served_tool_template
from pipeline.modeling.stage_code import stage_code_hash
from pipeline.scoring.answer_scores import is_looping, score_answer
from pipeline.scoring.metrics import Prediction, summarize_predictions

log = logging.getLogger(__name__)

UNLIMITED = 2**31  # tokens, if the model's configuration sets no limit
HEADLINE_METRICS = ("exact_match", "f1", "bleu", "loss")
# The plain names are those of the fine-tuned model, the experiment's result.
HEADLINE = {
    "base": {f"{name}.base": name for name in HEADLINE_METRICS},
    "finetuned": {name: name for name in HEADLINE_METRICS},
}
LOGGED_METRICS = ("exact_match", "f1", "bleu", "rougeL", "loss", "perplexity")


def predict_answers(
    questions: list[Question],
    model: Any,
    reader: QuestionReader,
    options: Evaluate,
    journal: AnswerJournal | None = None,
) -> list[Prediction]:
    """The predictions of the questions, without losses."""
    stop = stop_conditions(model, reader.encoder, options.max_new_tokens, reader.end_ids)
    resumed = len(journal.answers) if journal else 0
    if resumed:
        log.info(f"Resuming: {resumed:,} of {len(questions):,} answers were already generated")
    start = time.perf_counter()
    answers = answer_prompts(model, [question.prompt_ids for question in questions], stop, options, journal)
    seconds, generated = time.perf_counter() - start, len(questions) - resumed
    log.info(f"Generated {generated:,} answers in {seconds:.1f} s, {generated / seconds:.3g} per second")
    return [_prediction(*pair, reader.encoder) for pair in zip(questions, answers, strict=True)]


def _prediction(question: Question, answer: Answer, encoder: Encoder) -> Prediction:
    text = encoder.tokenizer.decode(answer.new_tokens, skip_special_tokens=True).strip()
    reference = question.reference.strip()
    return {
        "id": question.id,
        "prompt": question.prompt,
        "reference": reference,
        "prediction": text,
        "new_tokens": len(answer.new_tokens),
        "finish_reason": answer.finish_reason,
        **score_answer(text, reference),
        "looping": float(is_looping(answer.new_tokens)),
    }


def answer_prompts(
    model: Any, prompts: list[list[int]], stop: StopConditions, options: Evaluate, journal: AnswerJournal | None
) -> list[Answer]:
    """Generate answers with the configured engine. vLLM loads the model again, so this one leaves the GPU first."""
    if options.engine == "transformers":
        return generate_answers(model, prompts, stop, options.batch_size, journal)
    model.to("cpu")
    torch.cuda.empty_cache()
    return vllm_engine.generate_with_vllm(Path(model.name_or_path), prompts, stop, options.precision, journal)


def max_prompt_tokens(max_positions: int | None, max_new_tokens: int) -> int:
    """The longest prompt that leaves room for an answer. Raises ConfigError if there is room for none."""
    if max_positions is None:
        return UNLIMITED
    if max_new_tokens >= max_positions:
        raise ConfigError(
            f"evaluate.max_new_tokens: {max_new_tokens} leaves no room for a prompt: the model has {max_positions} "
            "positions"
        )
    return max_positions - max_new_tokens


def reference_losses(questions: list[Question], model: Any, reader: QuestionReader) -> list[dict[str, float]]:
    """The held-out loss on each reference answer: loss (nats per token, its end included), tokens and bytes.

    An answer that exceeds the model's positions is truncated, and its bytes are those of the truncated text.
    """
    losses = held_out_losses(model, [question.example for question in questions], reader.encoder.pad_id)
    return [
        {"loss": nats / tokens, "tokens": tokens, "bytes": reader.completion_bytes(question)}
        for question, (nats, tokens) in zip(questions, losses, strict=True)
    ]


def evaluate_model(
    rows: list[FormattedRow],
    folder: Path,
    options: Evaluate,
    device: Any,
    journal: AnswerJournal | None = None,
    row_format: TextFormat | ChatFormat = PLAIN_TEXT,
) -> tuple[list[Prediction], dict[str, Any]]:
    """(predictions, metrics) of the model in a folder. journal: answers from which an interrupted evaluation resumes."""
    if not rows:
        raise DataError(f"{TEST_ROWS} has no rows; raise format.test_fraction, or fetch more rows")
    reader = QuestionReader(row_format, folder, load_encoder(folder), options.turns)
    model = load_model(folder).to(device)
    max_positions = max_positions_of(folder)
    prompt_tokens = max_prompt_tokens(max_positions, options.max_new_tokens) if has_prompts(rows) else UNLIMITED
    questions = reader.read(rows, TokenLimits(prompt_tokens, max_positions or UNLIMITED))
    losses = reference_losses(questions, model, reader)
    if has_prompts(rows):
        model = model.to(torch.bfloat16 if options.precision == "bf16" else torch.float32)
        predictions = predict_answers(questions, model, reader, options, journal)
        if options.semantic_model:
            answers, references = ([row[name] for row in predictions] for name in ("prediction", "reference"))
            cosines = semantic_similarities(options.semantic_model, answers, references, device)
            predictions = [{**row, "semantic": cosine} for row, cosine in zip(predictions, cosines, strict=True)]
    else:
        predictions = [{"id": question.id, "reference": question.reference} for question in questions]
    predictions = [{**prediction, **loss} for prediction, loss in zip(predictions, losses, strict=True)]
    return predictions, {"rows": len(questions), **summarize_predictions(predictions)}


def has_prompts(rows: list[FormattedRow]) -> bool:
    """False for plain text."""
    return any(row.get("prompt") or row.get("messages") for row in rows)


def require_trained_template(folder: Path, row_format: TextFormat | ChatFormat) -> None:
    """Raise ModelError if the fine-tuned model has another chat template than the one that its rows were rendered by."""
    if not isinstance(row_format, ChatFormat):
        return
    trained = ModelTemplates(served_template(row_format, "", "") or "", served_tool_template(row_format))
    if read_model_templates(folder) != trained:
        raise ModelError(
            f"{folder} has another chat template than the one that rendered its training rows ({FORMATTED / TEMPLATE_FILE}), so "
            "it would be asked otherwise than it was trained. Train it again: dvc repro"
        )


def journal_key(
    rows: list[FormattedRow], row_format: TextFormat | ChatFormat, folder: Path, options: Evaluate, device: torch.device
) -> ResumeKey:
    """Everything that the answers depend on."""
    prompts = json.dumps([row_format.model_dump(), rows])
    return ResumeKey(
        {
            "prompts": hashlib.sha256(prompts.encode()).hexdigest(),
            "model": sha256_of_path(folder),
            "code": stage_code_hash("evaluate"),
            "environment": resumption_record(device),
            "parameters": options.model_dump(include={"max_new_tokens", "turns", "precision", "engine"}),
        }
    )


@stage("evaluate", instances=("base", "finetuned"))
def main(params: Params, instance: str) -> None:
    rows, row_format = read_jsonl(TEST_ROWS)[: params.evaluate.limit], read_row_format(FORMATTED)
    if params.evaluate.engine == "vllm" and (error := vllm_engine.missing_for_vllm(params.compute.device)):
        raise ConfigError(error)
    device = device_of(params.compute)
    set_threads(params.compute)
    folder, options = MODELS / instance, params.evaluate
    if instance == "finetuned":
        require_trained_template(folder, row_format)
    task = "Generating answers to {:,} test questions" if has_prompts(rows) else "Computing the loss of {:,} test texts"
    log.info(f"{task.format(len(rows))} with {folder} on {device}")
    key = journal_key(rows, row_format, folder, options, device)
    with open_answer_journal(key) as journal:
        for line in describe_other_journals(journal, key):
            log.info(line)
        with explain_out_of_memory(
            "the model needs more for its longest test row. Set evaluate.precision=bf16, lower evaluate.max_new_tokens, or "
            "use a smaller model"
        ):
            predictions, metrics = evaluate_model(rows, folder, options, device, journal, row_format)
        with atomic_write(PREDICTIONS / f"{instance}.jsonl") as temporary:
            write_jsonl(temporary, predictions)
        write_metrics(
            f"evaluate/{instance}", {**metrics, "environment": environment_record(device)}, HEADLINE[instance]
        )
    values = ", ".join(f"{name} {metrics[name]:.4g}" for name in LOGGED_METRICS if name in metrics)
    log.info(f"{values}; {'answers' if has_prompts(rows) else 'losses'} in {PREDICTIONS / instance}.jsonl")
