"""Asks the fine-tuned model as it is served, and compares the answers with those that the evaluate stage generated.

    python -m bench.served [--project FOLDER] [--model FOLDER --predictions FILE] [--ways pipeline serve lm_eval] [--rows 50]

Run it in a project whose stages have run. The first line of the table compares the prompts: those that the chat template in the
model's folder renders with those that the evaluate stage asked. The others compare the answers:

- pipeline: transformers.pipeline("text-generation")(messages)
- serve: `transformers serve` on this machine, asked by the OpenAI client with temperature 0
- lm_eval: lm-evaluation-harness with --apply_chat_template; it passes no tools, so rows with tools are left out

Each is given the messages before an answer, the row's tools and evaluate.max_new_tokens. Answers are compared without special
tokens and without whitespace around them, as predictions are stored. A server returns calls and thoughts apart from the text;
they are put back first, and spelled in one way. The table is in Markdown. The exit code is 1 if anything differs.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from contextlib import chdir
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from bench.environments import markdown_line
from bench.servers import ask_harness, ask_server
from pipeline.chat.dialogue import learned_turns
from pipeline.chat.model_template import read_model_templates
from pipeline.chat.row_format import ChatFormat, TextFormat, read_row_format
from pipeline.chat.template import UNRENDERED_KEYS
from pipeline.chat.turns import common_length
from pipeline.compose.composition import parse_params
from pipeline.config.params import Params
from pipeline.config.validation import validate_params
from pipeline.core.entrypoint import report_errors
from pipeline.core.files import read_jsonl
from pipeline.core.paths import FINETUNED, FORMATTED, PARAMS, PREDICTIONS, RECORDS_TASK, TEST_ROWS
from pipeline.errors import DataError, ModelError
from pipeline.evaluate.stage import max_prompt_tokens
from pipeline.format.conversations import read_conversations
from pipeline.modeling.encoding import Encoder, load_encoder
from pipeline.modeling.model_config import max_positions_of
from pipeline.records.tasks import read_task

CALL = re.compile(r"\s*<tool_call>\s*(.*?)\s*</tool_call>\s*", re.DOTALL)
THOUGHT = re.compile(r"^(?:<think>)?(.*?)</think>\s*", re.DOTALL)
SHOWN = 60  # characters of an answer in the table


class Request(NamedTuple):
    """What a server is asked. prompt, prediction: what the evaluate stage asked, and the answer that it generated."""

    id: int | str
    messages: list[dict[str, Any]]
    tools: list[Any]
    prompt: str
    prediction: str


Ask = Callable[[Path, list[Request], int], list[str]]  # (model, requests, max_new_tokens) → an answer for each


class Way(NamedTuple):
    ask: Ask
    packages: dict[str, str]  # module → the name to install it by
    takes_tools: bool = True


class Comparison(NamedTuple):
    """A line of the table."""

    way: str
    rows: int
    equal: int
    first_difference: str


def read_requests(predictions: Path, params: Params) -> list[Request]:
    """The messages of each prediction, from the project in the working directory. Raises DataError if a row has none."""
    row_format = read_row_format(FORMATTED)
    prompts = _chat_prompts() if isinstance(row_format, ChatFormat) else _text_prompts(row_format, params)
    requests = []
    for row in read_jsonl(predictions):
        if row["id"] not in prompts:
            raise DataError(f"{predictions}: {TEST_ROWS} has no row {row['id']}; run evaluate again: dvc repro")
        requests.append(Request(row["id"], *prompts[row["id"]], row["prompt"], row["prediction"]))
    return requests


def _chat_prompts() -> dict[int | str, tuple[list[dict[str, Any]], list[Any]]]:
    """Id of a prediction → (the messages before the answer, tools); of one turn among several, the id is "ROW/TURN"."""
    prompts: dict[int | str, tuple[list[dict[str, Any]], list[Any]]] = {}
    for row in read_jsonl(TEST_ROWS):
        messages = [{key: value for key, value in m.items() if key not in UNRENDERED_KEYS} for m in row["messages"]]
        turns = learned_turns(row["messages"], "assistant")
        asked: list[tuple[int | str, int]] = [(row["id"], turns[-1])]
        asked += [(f"{row['id']}/{number}", turn) for number, turn in enumerate(turns, start=1)]
        prompts |= {id: (messages[:turn], row.get("tools") or []) for id, turn in asked}
    return prompts


def _text_prompts(row_format: TextFormat, params: Params) -> dict[int | str, tuple[list[dict[str, Any]], list[Any]]]:
    """Row id → (the turns before the answer as messages, no tools), for rows that a prompt template rendered."""
    if row_format.prompt is None:
        raise ModelError("these rows are learned as they are, without a chat template: no server can ask by messages")
    rows = read_conversations(read_task(RECORDS_TASK), params.format.system).rows
    return {row.id: ([{"role": turn.role, "content": turn.content} for turn in row.turns], []) for row in rows}


def render_prompt(tokenizer: Any, encoder: Encoder, request: Request) -> tuple[str, int]:
    """(the prompt as the tokenizer's chat template renders it, in the form of stored ones, its number of tokens)."""
    tools = request.tools or None
    text = tokenizer.apply_chat_template(request.messages, tools=tools, add_generation_prompt=True, tokenize=False)
    ids = tokenizer.encode(text, add_special_tokens=False)
    # Prompts of a prompt template are stored as text, without the tokens that the tokenizer puts before it; those of a chat
    # template are decoded tokens.
    start = encoder.tokenizer.decode([*encoder.start_ids], skip_special_tokens=False)
    return (request.prompt if text.removeprefix(start) == request.prompt else tokenizer.decode(ids)), len(ids)


def compare_prompts(model: Path, requests: list[Request], max_tokens: int) -> tuple[Comparison, list[Request]]:
    """(the line of the prompts, the requests of at most `max_tokens` tokens); the evaluate stage shortens longer ones."""
    from transformers import AutoTokenizer

    tokenizer, encoder = AutoTokenizer.from_pretrained(model), load_encoder(model)
    prompts = [render_prompt(tokenizer, encoder, request) for request in requests]
    pairs = [(each, prompt) for each, (prompt, tokens) in zip(requests, prompts, strict=True) if tokens <= max_tokens]
    fitting = [request for request, _ in pairs]
    found = [prompt for _, prompt in pairs]
    return compare_texts("prompts", fitting, found, [request.prompt for request in fitting]), fitting


def ask_pipeline(model: Path, requests: list[Request], max_new_tokens: int) -> list[str]:
    """The answers of the text-generation pipeline of transformers."""
    from transformers import pipeline

    generator = pipeline("text-generation", str(model), device="cpu")
    options = {"max_new_tokens": max_new_tokens, "return_full_text": False}
    answers = [generator(each.messages, tools=each.tools or None, **options) for each in requests]
    return [answer[0]["generated_text"] for answer in answers]


WAYS = {
    "pipeline": Way(ask_pipeline, {"transformers": "transformers"}),
    "serve": Way(ask_server, {name: name for name in ("openai", "fastapi", "uvicorn")}),
    "lm_eval": Way(ask_harness, {"lm_eval": "lm-eval"}, takes_tools=False),
}


def compare(name: str, model: Path, requests: list[Request], max_new_tokens: int) -> Comparison:
    """Ask in this way, and compare the answers with the predictions."""
    way = WAYS[name]
    asked = [request for request in requests if way.takes_tools or not request.tools]
    answers = way.ask(model, asked, max_new_tokens) if asked else []
    return compare_texts(name, asked, answers, [request.prediction for request in asked], spell)


def compare_texts(
    name: str, requests: list[Request], found: list[str], expected: list[str], spell: Callable[[str], str] = str
) -> Comparison:
    """The line of these texts. They are equal if `spell` writes them alike."""
    differing = [
        f"row {request.id}: {_shorten(*pair)}, not {_shorten(*pair[::-1])}"
        for request, *pair in zip(requests, found, expected, strict=True)
        if spell(pair[0]) != spell(pair[1])
    ]
    return Comparison(name, len(requests), len(requests) - len(differing), next(iter(differing), ""))


def spell(answer: str) -> str:
    r"""An answer with its thought and its calls in one spelling, without whitespace around them.

    >>> spell('<think>\n</think>\n\nLet me see.\n<tool_call>\n{"name":"find"}\n</tool_call>')
    'Let me see.<tool_call>{"name": "find"}</tool_call>'
    """
    thought = THOUGHT.match(answer.strip())
    rest = answer.strip()[thought.end() if thought else 0 :]
    text = CALL.sub(lambda match: f"<tool_call>{_sorted_json(match[1])}</tool_call>", rest).strip()
    return f"<think>{thought[1].strip()}</think>{text}" if thought and thought[1].strip() else text


def _sorted_json(text: str) -> str:
    try:
        return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
    except ValueError:
        return text


def _shorten(text: str, other: str) -> str:
    """The text from shortly before the place where another one differs, for a cell of the table."""
    start = max(0, common_length(text, other) - SHOWN // 2)
    shown = ("…" if start else "") + text[start : start + SHOWN] + ("…" if len(text) > start + SHOWN else "")
    return repr(shown).replace("|", "\\|")


def missing_packages(name: str) -> list[str]:
    return [package for module, package in WAYS[name].packages.items() if find_spec(module) is None]


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.served", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--project", type=Path, default=Path(), help="a project whose stages have run (default: this one)"
    )
    parser.add_argument("--model", type=Path, help=f"default: the project's {FINETUNED}")
    parser.add_argument("--predictions", type=Path, help=f"default: the project's {PREDICTIONS / 'finetuned.jsonl'}")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS], help="default: all")
    parser.add_argument("--rows", type=int, help="predictions, from the first (default: all)")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    options = parse_arguments(words)
    model, predictions = (path and path.resolve() for path in (options.model, options.predictions))
    with report_errors("bench.served"), chdir(options.project):
        model = model or FINETUNED.resolve()
        params = validate_params(parse_params(PARAMS.read_text(encoding="utf-8")))
        requests = read_requests(predictions or PREDICTIONS / "finetuned.jsonl", params)[: options.rows]
        if read_model_templates(model) is None:
            raise ModelError(f"{model} has no chat template, so no server can ask it by messages")
    new_tokens = params.evaluate.max_new_tokens
    prompts, fitting = compare_prompts(model, requests, max_prompt_tokens(max_positions_of(model), new_tokens))
    results = [prompts]
    print(markdown_line("way", "rows", "equal", "first difference"), "|---|---:|---:|---|", sep="\n", flush=True)
    print(markdown_line(*prompts), flush=True)
    for name in options.ways:
        if missing := missing_packages(name):
            print(markdown_line(name, "", "", f"not installed: pip install {' '.join(missing)}"), flush=True)
            continue
        results.append(compare(name, model, fitting, new_tokens))
        print(markdown_line(*results[-1]), flush=True)
    if shortened := len(requests) - len(fitting):
        print(
            f"\nLeft out: {shortened} rows whose prompt is too long for the model, so that the evaluate stage shortens it"
        )
    if any(result.equal < result.rows for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
