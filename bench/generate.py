"""Answers a second: the pipeline's generation against one prompt at a time, and against lm-evaluation-harness.

    python -m bench.generate --model models/base --prompts data/formatted/test.jsonl
    python -m bench.generate --model pythia-70m --tokenizer FOLDER --prompts FILE --rows 96

All answer the same prompts with the same weights in float32, greedily, in one process, taking turns; loading is not timed.
Who takes one prompt at a time answers a sample of them. `tutorial` is the tutorial's inference function with the length
limit put on the answer, as here, in the place of prompt and answer together. `harness` is the Hugging Face backend of
lm-evaluation-harness, for which: pip install lm_eval (its batch size is 1 unless it is told another).
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
Answering = Callable[[Prompts], list[str]]


class Measured(NamedTuple):
    contender: str
    seconds: float  # an answer
    answers: dict[int, str]  # by the place of the prompt


def pipeline(folder: Path, new_tokens: int, batch_size: int | None) -> Answering:
    """What the evaluate stage does between reading its rows and scoring them."""
    model, encoder = load_model(folder), load_encoder(folder)
    ending = StopConditions(new_tokens, encoder.eos, encoder.padding)

    def answer(prompts: Prompts) -> list[str]:
        answers = generate_answers(model, encoder.prompts(prompts), ending, batch_size)
        return [encoder.tokenizer.decode(each.new_tokens, skip_special_tokens=True) for each in answers]

    return answer


def tutorial(folder: Path, new_tokens: int) -> Answering:
    """The tutorial's function, prompt for prompt."""
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


def harness(folder: Path, new_tokens: int, batch_size: int) -> Answering:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    backend = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=batch_size)
    end = {"until": [backend.tokenizer.eos_token], "max_gen_toks": new_tokens, "do_sample": False}

    def answer(prompts: Prompts) -> list[str]:
        asked = [Instance("generate_until", {}, (prompt, end), at) for at, prompt in enumerate(prompts)]
        return backend.generate_until(asked, disable_tqdm=True)

    return answer


def contenders_of(given: argparse.Namespace, folder: Path) -> dict[str, Answering]:
    """The pipeline first, the tutorial last."""
    contenders = {"pipeline": pipeline(folder, given.new_tokens, given.batch_size)}
    if importlib.util.find_spec("lm_eval") is None:
        sys.stderr.write("lm-evaluation-harness is left out: it is not installed (pip install lm_eval)\n")
    else:
        for size in given.harness_batch_sizes:
            contenders[f"harness, batch {size}"] = harness(folder, given.new_tokens, size)
    return {**contenders, "tutorial": tutorial(folder, given.new_tokens)}


def measure(contenders: dict[str, Answering], prompts: Prompts, sample: list[int], rounds: int) -> list[Measured]:
    """Each contender's answers and its median time over the rounds, in which all of them take turns.

    Those that take one prompt at a time answer the sample (places of prompts) alone: they need as long for each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    answers: dict[str, dict[int, str]] = {}
    for _ in range(rounds):
        for name, answer in contenders.items():
            places = sample if name in ("tutorial", "harness, batch 1") else list(range(len(prompts)))
            answer(prompts[:2])  # what is set up once is not timed
            started = time.perf_counter()
            texts = answer([prompts[place] for place in places])
            seconds[name].append((time.perf_counter() - started) / len(places))
            sys.stderr.write(f"{name}: {seconds[name][-1]:.4f} s an answer\n")
            answers[name] = dict(zip(places, (text.strip() for text in texts), strict=True))
    return [Measured(name, median(seconds[name]), answers[name]) for name in contenders]


def table(measured: list[Measured]) -> str:
    """Against the pipeline's time; answers that differ are those that are not the tutorial's, one at a time."""
    ours, alone = measured[0], measured[-1]
    lines = [
        "| | s an answer | answers a second | × the pipeline's time | answers that differ |",
        "|---|---:|---:|---:|---:|",
    ]
    for each in measured:
        differ = sum(each.answers[place] != text for place, text in alone.answers.items())
        figures = f"{each.seconds:.4f} | {1 / each.seconds:.3g} | {each.seconds / ours.seconds:.1f}"
        lines.append(f"| {each.contender} | {figures} | {differ} of {len(alone.answers)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--model", required=True, help="a model folder, or pythia-70m: its configuration, random weights"
    )
    parser.add_argument("--tokenizer", type=Path, help="folder of GPT-NeoX's tokenizer, for pythia-70m")
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, help="JSON Lines with prompt")
    parser.add_argument("--rows", type=int, default=256, help="prompts, from the first")
    parser.add_argument("--new-tokens", type=int, default=100)
    parser.add_argument("--batch-size", type=int, help="of the pipeline; found by itself if not given")
    parser.add_argument("--harness-batch-sizes", type=int, nargs="*", default=[1, 64])
    parser.add_argument(
        "--alone-rows", type=int, default=64, help="prompts of those who answer one at a time, a sample"
    )
    parser.add_argument("--rounds", type=int, default=1, help="the median of so many is told")
    given = parser.parse_args(arguments)
    if given.model == "pythia-70m" and given.tokenizer is None:
        parser.error("--model pythia-70m needs --tokenizer FOLDER, that of GPT-NeoX")
    lines = [line for path in given.prompts for line in path.read_text(encoding="utf-8").splitlines()]
    prompts = [json.loads(line)["prompt"] for line in lines[: given.rows]]
    with tempfile.TemporaryDirectory() as scratch:
        pythia = given.model == "pythia-70m"
        folder = write_pythia("pythia-70m", given.tokenizer, Path(scratch)) if pythia else Path(given.model)
        step = max(1, len(prompts) // given.alone_rows)
        measured = measure(contenders_of(given, folder), prompts, list(range(0, len(prompts), step)), given.rounds)
    threads, instructions = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    sys.stdout.write(f"{given.model}, {len(prompts)} prompts, at most {given.new_tokens} new tokens, float32, ")
    sys.stdout.write(f"{threads} threads, {instructions}, torch {torch.__version__}\n\n{table(measured)}\n")


if __name__ == "__main__":
    main()
