"""Ways to fine-tune a model on formatted rows, each timed by itself: this project's, the tutorial's, TRL's.

    python -m bench.trainers NAME --model FOLDER --formatted FOLDER --rate 5e-4 --epochs 1

prints one JSON object: seconds of training alone (loading, evaluation and saving left out), tokens of the rows (padding
left out), the held-out loss on the completions of test.jsonl in nats a token, and the parameters but for the input
embedding. On a CUDA card where there is one, else on the CPU.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Rows = list[dict[str, str]]


def pipeline_stage(given: argparse.Namespace) -> tuple[Any, Callable[[], Any]]:
    """The train stage's Trainer, with its parameters as params.yaml has them, but for those given."""
    import torch

    from pipeline.compose.composition import compose_params, parse_params
    from pipeline.config.validation import validate_params
    from pipeline.train.build import build_trainer

    lengths = (f"tokenize.max_length={given.length}", f"model.positions={given.length}")
    values = parse_params(compose_params("model=scratch", "train.precision=auto", *lengths, *given.overrides))
    params = validate_params(values)
    options = params.train.model_copy(update={"epochs": given.epochs, "learning_rate": given.rate, "keep_best": False})
    device = torch.device("cpu" if given.cpu else "cuda")
    trainer = build_trainer(options, given.model, given.tokenized, Path(given.scratch), device)
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.eval_on_start = False
    return trainer.model, trainer.train


def tutorial(given: argparse.Namespace) -> tuple[Any, Callable[[], Any]]:
    """The tutorial's Trainer: a row at a time, four to a step, Adafactor, the loss on question and answer."""
    import datasets
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    tokenizer = _tokenizer(given.model)

    def tokenize(examples: dict[str, list[str]]) -> Any:
        text = examples["prompt"][0] + examples["completion"][0]
        found = tokenizer(text, return_tensors="np", truncation=True, max_length=given.length, padding=True)
        return {**found, "labels": found["input_ids"]}

    rows = datasets.Dataset.from_list(_rows(given.formatted / "train.jsonl"))
    tokenized = rows.map(tokenize, batched=True, batch_size=1, remove_columns=rows.column_names)
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype="float32")
    arguments = TrainingArguments(
        learning_rate=given.rate,
        num_train_epochs=given.epochs,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        gradient_checkpointing=False,
        optim="adafactor",
        warmup_steps=1,
        **_shared(given),
    )
    return model, Trainer(model=model, args=arguments, train_dataset=tokenized).train


def trl(given: argparse.Namespace, **tuned: Any) -> tuple[Any, Callable[[], Any]]:
    """TRL's SFTTrainer on the same file; without more options as it comes."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    rows = datasets.Dataset.from_list(_rows(given.formatted / "train.jsonl"))
    arguments = SFTConfig(
        learning_rate=given.rate, num_train_epochs=given.epochs, max_length=given.length, **_shared(given), **tuned
    )
    trainer = SFTTrainer(
        model=str(given.model), args=arguments, train_dataset=rows, processing_class=_tokenizer(given.model)
    )
    return trainer.model, trainer.train


def trl_tuned(given: argparse.Namespace) -> tuple[Any, Callable[[], Any]]:
    """TRL's SFTTrainer with packing and without gradient checkpointing, in bfloat16 where the machine has it."""
    import torch

    from pipeline.modeling.devices import supports_bf16

    return trl(
        given,
        bf16=supports_bf16(torch.device("cpu" if given.cpu else "cuda")),
        gradient_checkpointing=False,
        packing=True,
    )


CONTENDERS = {
    "pipeline": pipeline_stage,
    "tutorial": tutorial,
    "trl": trl,
    "trl_tuned": trl_tuned,
}


def _shared(given: argparse.Namespace) -> dict[str, Any]:
    return {
        "output_dir": given.scratch,
        "use_cpu": given.cpu,
        "seed": 0,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 10,
    }


def _rows(path: Path) -> Rows:
    with path.open(encoding="utf-8") as lines:
        return [{name: row[name] for name in ("prompt", "completion")} for row in map(json.loads, lines)]


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tokens_and_loss(model: Any, given: argparse.Namespace) -> tuple[int, float]:
    """(tokens of the training rows, the model's held-out loss on the test rows' completions)."""
    from pipeline.modeling.encoding import build_example, load_encoder
    from pipeline.modeling.held_out_loss import held_out_loss

    encoder = load_encoder(given.model)

    def examples(split: str) -> list[Any]:
        rows = _rows(given.formatted / f"{split}.jsonl")
        pairs = zip(
            encoder.prompts(r["prompt"] for r in rows), encoder.completions(r["completion"] for r in rows), strict=True
        )
        return [build_example(prompt, completion, given.length) for prompt, completion in pairs]

    tokens = sum(len(each.input_ids) for each in examples("train"))
    return tokens, held_out_loss(model.eval().float(), examples("test"), encoder.padding)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=CONTENDERS)
    for name in ("model", "formatted", "tokenized"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--length", type=int, default=1024, help="tokens a row at most")
    parser.add_argument("--overrides", nargs="*", default=[], help="of the pipeline's parameters")
    given = parser.parse_args()
    import torch

    given.cpu = not torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as given.scratch:
        model, train = CONTENDERS[given.name](given)
        started = time.perf_counter()
        train()
        seconds = time.perf_counter() - started
    tokens, loss = tokens_and_loss(model, given)
    found = {
        "seconds": seconds,
        "tokens": int(tokens * given.epochs),
        "loss": loss,
        "parameters": model.num_parameters() - model.get_input_embeddings().weight.numel(),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
