"""Asks a model the test questions, scores its answers, and measures its loss on the reference answers.

    python -m pipeline.evaluate instance=base          models/base → data/predictions/base.jsonl,
                                                       metrics/evaluate/base.json
    python -m pipeline.evaluate instance=finetuned     models/finetuned → the same of finetuned

A prediction: id, prompt, reference, prediction, new_tokens, finish_reason, the scores of scores.py, looping, and of the
reference answer: loss (nats a token), tokens (with the end of text), bytes (UTF-8).
Plain text has no question to answer: its rows are id, reference and these three, and the loss is all the metrics.
"""

import logging
from pathlib import Path
from typing import Any

from pipeline.devices import device_of
from pipeline.encoding import Encoder, join, load_encoder, shortened
from pipeline.errors import ConfigError
from pipeline.files import read_jsonl, whole, write_json, write_jsonl
from pipeline.generation import generate
from pipeline.likelihood import held_out_losses
from pipeline.measures import summary
from pipeline.memory import told_when_out_of_memory
from pipeline.params import Evaluate, Params
from pipeline.scores import loops, score
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
                "looping": float(loops(answer.new_tokens)),
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


def losses_of(rows: list[Row], model: Any, encoder: Encoder, positions: int | None) -> list[dict[str, float]]:
    """The held-out loss on each row's completion: loss (nats a token, the end of text included), tokens, bytes.

    Of a completion that the model has no room for, the end is left out; so it is of the bytes.
    """
    prompts = encoder.prompts(row["prompt"] for row in rows)
    completions = encoder.completions(row["completion"] for row in rows)
    longest = positions or UNLIMITED
    pairs = zip(prompts, completions, strict=True)
    examples = [join(*pair, longest, bos=encoder.bos) for pair in pairs]
    losses = held_out_losses(model, examples, encoder.padding)
    texts = [
        row["completion"] if tokens == len(completion) else encoder.tokenizer.decode(completion[:tokens])
        for row, completion, (_, tokens) in zip(rows, completions, losses, strict=True)
    ]
    return [
        {"loss": nats / tokens, "tokens": tokens, "bytes": len(text.encode())}
        for text, (nats, tokens) in zip(texts, losses, strict=True)
    ]


def evaluate(rows: list[Row], folder: Path, options: Evaluate, device: Any) -> tuple[list[Row], dict[str, Any]]:
    """(predictions, metrics) of the model in a folder."""
    encoder = load_encoder(folder)
    model = load_model(folder).to(device)
    positions = positions_of(folder)
    losses = losses_of(rows, model, encoder, positions)
    if any(row["prompt"] for row in rows):
        predictions = answered(rows, model, encoder, options, positions)
    else:
        predictions = [{"id": row["id"], "reference": row["completion"]} for row in rows]
    predictions = [{**prediction, **loss} for prediction, loss in zip(predictions, losses, strict=True)]
    return predictions, {"rows": len(rows), **summary(predictions)}


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
