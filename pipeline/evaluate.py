"""Asks a model the test questions, scores its answers, and measures its loss on the reference answers.

    python -m pipeline.evaluate instance=base          models/base → data/predictions/base.jsonl,
                                                       metrics/evaluate/base.json
    python -m pipeline.evaluate instance=finetuned     models/finetuned → the same of finetuned

A prediction: id, prompt, reference, prediction, new_tokens, finish_reason, exact_match, f1, rouge1, rouge2, rougeL.
Plain text has no question to answer: its rows are id and reference, and loss and perplexity are all the metrics.
"""

import logging
from pathlib import Path
from typing import Any

from pipeline.devices import device_of
from pipeline.encoding import Encoder, join, load_encoder, shortened
from pipeline.errors import ConfigError
from pipeline.files import read_jsonl, whole, write_json, write_jsonl
from pipeline.generation import generate
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


def answered(rows: list[Row], model: Any, encoder: Encoder, options: Evaluate, positions: int | None) -> list[Row]:
    """The rows with the model's answers and their scores; a prompt that is too long loses its start."""
    room = room_for_prompt(positions, options.max_new_tokens)
    prompts = [shortened(prompt, room, encoder.bos) for prompt in encoder.prompts(row["prompt"] for row in rows)]
    answers = generate(model, prompts, options.max_new_tokens, options.batch_size, encoder.eos, encoder.padding)
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


def evaluate(rows: list[Row], folder: Path, options: Evaluate, device: Any) -> tuple[list[Row], dict[str, Any]]:
    """(predictions, metrics) of the model in a folder."""
    encoder = load_encoder(folder)
    model = load_model(folder).to(device)
    positions = positions_of(folder)
    loss = loss_of(rows, model, encoder, positions)
    held_out = {"loss": loss, "perplexity": perplexity(loss)}
    if not any(row["prompt"] for row in rows):
        return [{"id": row["id"], "reference": row["completion"]} for row in rows], {"rows": len(rows), **held_out}
    predictions = answered(rows, model, encoder, options, positions)
    return predictions, {"rows": len(rows), **summary(predictions), **held_out}


@stage("evaluate", instances=("base", "finetuned"))
def main(params: Params, instance: str) -> None:
    rows = read_jsonl(TEST)[: params.evaluate.limit]
    device = device_of(params.compute)
    log.info(f"Asking {MODELS / instance} the {len(rows):,} test questions, on {device}")
    with told_when_out_of_memory(
        f"{params.evaluate.batch_size} prompts were answered side by side. Lower evaluate.batch_size, which changes no answer"
    ):
        predictions, metrics = evaluate(rows, MODELS / instance, params.evaluate, device)
    with whole(PREDICTIONS / f"{instance}.jsonl") as temporary:
        write_jsonl(temporary, predictions)
    write_json(METRICS / f"{instance}.json", metrics)
    shown = ("exact_match", "f1", "bleu", "rougeL", "loss", "perplexity")
    figures = ", ".join(f"{name} {metrics[name]:.4g}" for name in shown if name in metrics)
    log.info(f"{figures} → {PREDICTIONS / instance}.jsonl")


if __name__ == "__main__":
    main()
