"""Asks a model the test questions, scores its answers, and measures its loss on the reference answers.

    python -m pipeline.evaluate instance=base          models/base → data/predictions/base.jsonl,
                                                       metrics/evaluate/base.json
    python -m pipeline.evaluate instance=finetuned     models/finetuned → the same of finetuned

A prediction: id, prompt, reference, prediction, new_tokens, finish_reason, exact_match, f1, rouge1, rouge2, rougeL.
Plain text has no question to answer: its rows are id and reference, and loss and perplexity are all the metrics.
"""

import logging
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.devices import device_of
from pipeline.encoding import Encoder, join, load_encoder, shortened
from pipeline.errors import ConfigError
from pipeline.files import read_jsonl, sha256, whole, write_json, write_jsonl
from pipeline.generation import Ending, generate
from pipeline.kept import Kept, kept_answers
from pipeline.likelihood import held_out_loss, perplexity
from pipeline.memory import told_when_out_of_memory
from pipeline.params import Evaluate, Params
from pipeline.scores import score, summary
from pipeline.stage import stage
from pipeline.weights import load_model, positions_of

log = logging.getLogger(__name__)

TEST, MODELS, PREDICTIONS, METRICS = (
    Path("data/formatted/test.jsonl"),
    Path("models"),
    Path("data/predictions"),
    Path("metrics/evaluate"),
)
UNLIMITED = 2**31  # tokens, where the model's configuration names no limit
Row = dict[str, Any]


def answered(
    rows: list[Row], model: Any, encoder: Encoder, options: Evaluate, positions: int | None, kept: Kept | None = None
) -> list[Row]:
    """The rows with the model's answers and their scores; a prompt that is too long loses its start."""
    room = room_for_prompt(positions, options.max_new_tokens)
    prompts = [shortened(prompt, room, encoder.bos) for prompt in encoder.prompts(row["prompt"] for row in rows)]
    ending = Ending(options.max_new_tokens, encoder.eos, encoder.padding)
    started, before = time.perf_counter(), len(kept.answers) if kept else 0
    answers = generate(model, prompts, ending, options.batch_size, kept)
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
                **score(prediction, reference),
            }
        )
    return predictions


def room_for_prompt(positions: int | None, max_new_tokens: int) -> int:
    """The longest prompt, in tokens, that leaves room for an answer; ConfigError if that is none."""
    if positions is None:
        return UNLIMITED
    if max_new_tokens >= positions:
        raise ConfigError(
            f"evaluate.max_new_tokens: {max_new_tokens} leaves no room for a question: the model has {positions} positions"
        )
    return positions - max_new_tokens


def loss_of(rows: list[Row], model: Any, encoder: Encoder, positions: int | None) -> float:
    """The held-out loss on the rows' completions, in nats a token, the end of text included."""
    prompts = encoder.prompts(row["prompt"] for row in rows)
    completions = encoder.completions(row["completion"] for row in rows)
    longest = positions or UNLIMITED
    pairs = zip(prompts, completions, strict=True)
    return held_out_loss(model, [join(*pair, longest, bos=encoder.bos) for pair in pairs], encoder.padding)


def evaluate(
    rows: list[Row], folder: Path, options: Evaluate, device: Any, kept: Kept | None = None
) -> tuple[list[Row], dict[str, Any]]:
    """(predictions, metrics) of the model in a folder; with the answers that are kept already."""
    encoder = load_encoder(folder)
    model = load_model(folder).to(device)
    positions = positions_of(folder)
    loss = loss_of(rows, model, encoder, positions)
    held_out = {"loss": loss, "perplexity": perplexity(loss)}
    if not any(row["prompt"] for row in rows):
        return [{"id": row["id"], "reference": row["completion"]} for row in rows], {"rows": len(rows), **held_out}
    if options.precision == "bf16":
        model = model.to(torch.bfloat16)
    predictions = answered(rows, model, encoder, options, positions, kept)
    return predictions, {"rows": len(rows), **summary(predictions), **held_out}


def all_that_matters(rows: list[Row], folder: Path, options: Evaluate, device: torch.device) -> dict[str, Any]:
    """What the answers depend on."""
    return {
        "prompts": [row["prompt"] for row in rows],
        "model": sha256(folder),
        "device": device.type,
        **options.model_dump(include={"max_new_tokens", "precision"}),
    }


@stage("evaluate", instances=("base", "finetuned"))
def main(params: Params, instance: str) -> None:
    rows = read_jsonl(TEST)[: params.evaluate.limit]
    device = device_of(params.compute)
    log.info(f"Asking {MODELS / instance} the {len(rows):,} test questions, on {device}")
    folder, options = MODELS / instance, params.evaluate
    with kept_answers(all_that_matters(rows, folder, options, device)) as kept:
        with told_when_out_of_memory(
            "the model needs more for its longest test row. Set evaluate.precision=bf16, lower evaluate.max_new_tokens, or "
            "take a smaller model"
        ):
            predictions, metrics = evaluate(rows, folder, options, device, kept)
        with whole(PREDICTIONS / f"{instance}.jsonl") as temporary:
            write_jsonl(temporary, predictions)
        write_json(METRICS / f"{instance}.json", metrics)
    shown = ("exact_match", "f1", "bleu", "rougeL", "loss", "perplexity")
    figures = ", ".join(f"{name} {metrics[name]:.4g}" for name in shown if name in metrics)
    log.info(f"{figures} → {PREDICTIONS / instance}.jsonl")


if __name__ == "__main__":
    main()
