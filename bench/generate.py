"""Generation speed: the pipeline, one prompt at a time as in the tutorial, and lm-evaluation-harness.

    python -m bench.generate --model models/base --prompts data/formatted/test.jsonl
    python -m bench.generate --model pythia-70m --tokenizer FOLDER --prompts FILE --rows 96

All generate answers to the same prompts with the same weights in float32, greedily, in one process and in turns. Loading is not
timed. Generators that take one prompt at a time answer a sample of the prompts. `tutorial` is the tutorial's inference function,
except that the limit of the length applies to the answer, as here, and not to prompt and answer together. `harness` is the
Hugging Face backend of lm-evaluation-harness (pip install lm_eval), with a batch size of 1 unless set.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from bench.pythia import write_pythia
from pipeline.modeling.encoding import load_encoder
from pipeline.modeling.generation import StopConditions, generate_answers
from pipeline.modeling.loading import load_model

Prompts = list[str]
Generator = Callable[[Prompts], list[str]]


class GeneratorRun(NamedTuple):
    generator: str
    seconds: float  # per answer
    answers: dict[int, str]  # by index of the prompt


def pipeline_generator(folder: Path, new_tokens: int, batch_size: int | None) -> Generator:
    """The generation of the evaluate stage, without reading rows and scoring."""
    model, encoder = load_model(folder), load_encoder(folder)
    stop = StopConditions(new_tokens, encoder.eos_id, encoder.pad_id)

    def generate(prompts: Prompts) -> list[str]:
        answers = generate_answers(model, encoder.encode_prompts(prompts), stop, batch_size)
        return [encoder.tokenizer.decode(answer.new_tokens, skip_special_tokens=True) for answer in answers]

    return generate


def tutorial_generator(folder: Path, new_tokens: int) -> Generator:
    """The tutorial's function, called for each prompt."""
    from transformers import AutoTokenizer

    model, tokenizer = load_model(folder), AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token

    def answer(text: str) -> str:
        input_ids = tokenizer.encode(text, return_tensors="pt", truncation=True, max_length=1000)
        attention_mask = torch.ones_like(input_ids)
        attention_mask[input_ids == tokenizer.pad_token_id] = 0
        generated = model.generate(
            input_ids,
            max_new_tokens=new_tokens,
            attention_mask=attention_mask,
            pad_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        return tokenizer.batch_decode(generated[:, input_ids.shape[1] :], skip_special_tokens=True)[0]

    return lambda prompts: [answer(prompt) for prompt in prompts]


def harness_generator(folder: Path, new_tokens: int, batch_size: int) -> Generator:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    backend = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=batch_size)
    until = {"until": [backend.tokenizer.eos_token], "max_gen_toks": new_tokens, "do_sample": False}

    def generate(prompts: Prompts) -> list[str]:
        requests = [Instance("generate_until", {}, (prompt, until), index) for index, prompt in enumerate(prompts)]
        answers: list[str] = backend.generate_until(requests, disable_tqdm=True)
        return answers

    return generate


def load_generators(options: argparse.Namespace, folder: Path) -> dict[str, Generator]:
    """Name → generator, the pipeline first, the tutorial last."""
    generators = {"pipeline": pipeline_generator(folder, options.new_tokens, options.batch_size)}
    if importlib.util.find_spec("lm_eval") is None:
        sys.stderr.write("Skipping lm-evaluation-harness, which is not installed (pip install lm_eval)\n")
    else:
        for size in options.harness_batch_sizes:
            generators[f"harness, batch {size}"] = harness_generator(folder, options.new_tokens, size)
    return {**generators, "tutorial": tutorial_generator(folder, options.new_tokens)}


def measure(generators: dict[str, Generator], prompts: Prompts, sample: list[int], rounds: int) -> list[GeneratorRun]:
    """The answers of each generator and its median time over the rounds, in which all of them take turns.

    Generators that take one prompt at a time, and so the same time for each, only answer the sample (indices of prompts).
    """
    seconds: dict[str, list[float]] = {name: [] for name in generators}
    answers: dict[str, dict[int, str]] = {}
    for _ in range(rounds):
        for name, generate in generators.items():
            indices = sample if name in ("tutorial", "harness, batch 1") else list(range(len(prompts)))
            generate(prompts[:2])  # warm up, not timed
            started = time.perf_counter()
            texts = generate([prompts[index] for index in indices])
            seconds[name].append((time.perf_counter() - started) / len(indices))
            sys.stderr.write(f"{name}: {seconds[name][-1]:.4f} s per answer\n")
            answers[name] = dict(zip(indices, (text.strip() for text in texts), strict=True))
    return [GeneratorRun(name, median(seconds[name]), answers[name]) for name in generators]


def table(runs: list[GeneratorRun]) -> str:
    """Times as multiples of the pipeline's, and how many answers differ from the tutorial's, made one at a time."""
    pipeline, tutorial = runs[0], runs[-1]
    lines = [
        "| | s per answer | answers per second | × the pipeline's time | answers that differ |",
        "|---|---:|---:|---:|---:|",
    ]
    for run in runs:
        different = sum(run.answers[index] != text for index, text in tutorial.answers.items())
        times = f"{run.seconds:.4f} | {1 / run.seconds:.3g} | {run.seconds / pipeline.seconds:.1f}"
        lines.append(f"| {run.generator} | {times} | {different} of {len(tutorial.answers)} |")
    return "\n".join(lines)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.generate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--model", required=True, help="a model folder, or pythia-70m: its configuration, random weights"
    )
    parser.add_argument("--tokenizer", type=Path, help="a folder with GPT-NeoX's tokenizer.json, for pythia-70m")
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, help="JSON Lines files with prompt")
    parser.add_argument("--rows", type=int, default=256, help="prompts, from the first")
    parser.add_argument("--new-tokens", type=int, default=100, help="greatest length of an answer")
    parser.add_argument("--batch-size", type=int, help="of the pipeline; default: automatic")
    parser.add_argument("--harness-batch-sizes", type=int, nargs="*", default=[1, 64])
    parser.add_argument("--alone-rows", type=int, default=64, help="sample for generators of one prompt at a time")
    parser.add_argument("--rounds", type=int, default=1, help="the median over the rounds is reported")
    options = parser.parse_args(arguments)
    if options.model == "pythia-70m" and options.tokenizer is None:
        parser.error("--model pythia-70m needs --tokenizer FOLDER, a folder with GPT-NeoX's tokenizer.json")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    lines = [line for path in options.prompts for line in path.read_text(encoding="utf-8").splitlines()]
    prompts = [json.loads(line)["prompt"] for line in lines[: options.rows]]
    with tempfile.TemporaryDirectory() as scratch:
        is_pythia = options.model == "pythia-70m"
        folder = write_pythia("pythia-70m", options.tokenizer, Path(scratch)) if is_pythia else Path(options.model)
        sample = list(range(0, len(prompts), max(1, len(prompts) // options.alone_rows)))
        runs = measure(load_generators(options, folder), prompts, sample, options.rounds)
    threads, instructions = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    sys.stdout.write(f"{options.model}, {len(prompts)} prompts, at most {options.new_tokens} new tokens, float32, ")
    sys.stdout.write(f"{threads} threads, {instructions}, torch {torch.__version__}\n\n{table(runs)}\n")


if __name__ == "__main__":
    main()
