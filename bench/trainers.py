"""Trainers that fine-tune a model on formatted rows, each timed alone: this project's, the tutorial's, TRL's.

    python -m bench.trainers NAME --model FOLDER --formatted FOLDER --tokenized FOLDER --rate 5e-4 --epochs 1

Prints one JSON object: seconds of training alone (without loading, evaluation and saving), tokens of the rows (without
padding), the held-out loss on the completions of test.jsonl in nats per token, and the number of parameters without the input
embedding. Runs on a CUDA GPU if there is one, else on the CPU.
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
Prepared = tuple[Any, Callable[[], Any]]  # the model, and the function that trains it


def pipeline_stage(args: argparse.Namespace) -> Prepared:
    """The train stage's Trainer, with the parameters of conf/ and the given overrides, rate and epochs."""
    import torch

    from pipeline.compose.composition import compose_params, parse_params
    from pipeline.config.validation import validate_params
    from pipeline.train.build_trainer import build_trainer

    lengths = (f"tokenize.max_length={args.length}", f"model.positions={args.length}")
    values = parse_params(compose_params("model=scratch", "train.precision=auto", *lengths, *args.overrides))
    params = validate_params(values)
    options = params.train.model_copy(update={"epochs": args.epochs, "learning_rate": args.rate, "keep_best": False})
    device = torch.device("cpu" if args.cpu else "cuda")
    trainer = build_trainer(options, args.model, args.tokenized, Path(args.scratch), device)
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.eval_on_start = False
    return trainer.model, trainer.train


def tutorial(args: argparse.Namespace) -> Prepared:
    """The tutorial's Trainer: batches of one row, four to a step, Adafactor, the loss on question and answer."""
    import datasets
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    tokenizer = _tokenizer(args.model)

    def tokenize(examples: dict[str, list[str]]) -> Any:
        text = examples["prompt"][0] + examples["completion"][0]
        encoding = tokenizer(text, return_tensors="np", truncation=True, max_length=args.length, padding=True)
        return {**encoding, "labels": encoding["input_ids"]}

    rows = datasets.Dataset.from_list(_rows(args.formatted / "train.jsonl"))
    tokenized = rows.map(tokenize, batched=True, batch_size=1, remove_columns=rows.column_names)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="float32")
    arguments = TrainingArguments(
        learning_rate=args.rate,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        gradient_checkpointing=False,
        optim="adafactor",
        warmup_steps=1,
        **_training_arguments(args),
    )
    return model, Trainer(model=model, args=arguments, train_dataset=tokenized).train


def trl(args: argparse.Namespace, **tuned: Any) -> Prepared:
    """TRL's SFTTrainer on the same file, with its defaults except for `tuned`."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    rows = datasets.Dataset.from_list(_rows(args.formatted / "train.jsonl"))
    arguments = SFTConfig(
        learning_rate=args.rate,
        num_train_epochs=args.epochs,
        max_length=args.length,
        **_training_arguments(args),
        **tuned,
    )
    trainer = SFTTrainer(
        model=str(args.model), args=arguments, train_dataset=rows, processing_class=_tokenizer(args.model)
    )
    return trainer.model, trainer.train


def trl_tuned(args: argparse.Namespace) -> Prepared:
    """TRL's SFTTrainer with packing and without gradient checkpointing, in bfloat16 where the machine has it."""
    import torch

    from pipeline.modeling.devices import supports_bf16

    return trl(
        args,
        bf16=supports_bf16(torch.device("cpu" if args.cpu else "cuda")),
        gradient_checkpointing=False,
        packing=True,
    )


TRAINERS = {
    "pipeline": pipeline_stage,
    "tutorial": tutorial,
    "trl": trl,
    "trl_tuned": trl_tuned,
}


def _training_arguments(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "output_dir": args.scratch,
        "use_cpu": args.cpu,
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


def tokens_and_loss(model: Any, args: argparse.Namespace) -> tuple[int, float]:
    """(tokens of the training rows, held-out loss on the completions of the test rows)."""
    from pipeline.modeling.encoding import build_example, load_encoder
    from pipeline.modeling.held_out_loss import held_out_loss

    encoder = load_encoder(args.model)

    def examples(split: str) -> list[Any]:
        rows = _rows(args.formatted / f"{split}.jsonl")
        prompts = encoder.encode_prompts(row["prompt"] for row in rows)
        completions = encoder.encode_completions(row["completion"] for row in rows)
        pairs = zip(prompts, completions, strict=True)
        return [build_example(prompt, completion, args.length) for prompt, completion in pairs]

    tokens = sum(len(example.input_ids) for example in examples("train"))
    return tokens, held_out_loss(model.eval().float(), examples("test"), encoder.pad_id)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.trainers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=TRAINERS)
    for name in ("model", "formatted", "tokenized"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rate", type=float, required=True, help="learning rate")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--length", type=int, default=1024, help="greatest number of tokens in a row")
    parser.add_argument("--overrides", nargs="*", default=[], help="Hydra overrides of the pipeline's parameters")
    args = parser.parse_args()
    import torch

    args.cpu = not torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as args.scratch:
        model, train = TRAINERS[args.name](args)
        started = time.perf_counter()
        train()
        seconds = time.perf_counter() - started
    tokens, loss = tokens_and_loss(model, args)
    result = {
        "seconds": seconds,
        "tokens": int(tokens * args.epochs),
        "loss": loss,
        "parameters": model.num_parameters() - model.get_input_embeddings().weight.numel(),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
