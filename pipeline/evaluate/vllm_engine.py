"""Greedy answers by vLLM, which fills a CUDA card better than transformers does: an option, installed beside the project.

vLLM brings a torch of its own (pip install vllm), so it is none of the project's dependencies.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ModelError
from pipeline.modeling.answer_journal import Answer, AnswerJournal
from pipeline.modeling.generation import StopConditions, answer_of

AT_ONCE = 4096  # prompts, after which what is answered is kept; vLLM makes its own batches of them


def missing_for_vllm(device: str) -> str | None:
    """What vLLM needs and this machine, or a device of it, has not; None if it has all."""
    card = "" if device != "cpu" and torch.cuda.is_available() else "a CUDA card (compute.device: auto or cuda)"
    library = "" if find_spec("vllm") else "the library vllm (pip install vllm)"
    if not card and not library:
        return None
    lacking = " and ".join(filter(None, (card, library)))
    return f"evaluate.engine: vllm needs {lacking}, not there; evaluate.engine=transformers runs on any machine"


def generate_with_vllm(
    folder: Path, prompts: list[list[int]], ending: StopConditions, precision: str, kept: AnswerJournal | None = None
) -> list[Answer]:
    """An answer to each prompt (token ids), in their order, by the model in a folder; ModelError where vLLM gives up."""
    answers = dict(kept.answers) if kept else {}
    left = [place for place in range(len(prompts)) if place not in answers]
    engine = _engine(folder, precision) if left else None
    for start in range(0, len(left), AT_ONCE):
        batch = left[start : start + AT_ONCE]
        new = dict(zip(batch, _answers(engine, [prompts[place] for place in batch], ending), strict=True))
        if kept:
            kept.add(new)
        answers.update(new)
    return [answers[place] for place in range(len(prompts))]


def _engine(folder: Path, precision: str) -> Any:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read when it is imported
    from vllm import LLM

    dtype = "bfloat16" if precision == "bf16" else "float32"
    try:
        return LLM(model=str(folder.resolve()), dtype=dtype, seed=0, skip_tokenizer_init=True)
    except Exception as error:  # whatever its parts raise: an architecture that it has not, a card too small
        raise _given_up(error) from None


def _answers(engine: Any, prompts: list[list[int]], ending: StopConditions) -> list[Answer]:
    from vllm import SamplingParams

    greedy = SamplingParams(
        temperature=0.0, max_tokens=ending.max_new_tokens, stop_token_ids=[ending.eos], detokenize=False
    )
    try:
        found = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], greedy)
    except Exception as error:
        raise _given_up(error) from None
    return [_answer(each.outputs[0], ending.eos) for each in found]


def _answer(output: Any, eos: int) -> Answer:
    """Versions differ in whether the end of text is among the tokens."""
    answer = answer_of(list(output.token_ids), eos)
    return answer._replace(finish_reason="stop") if output.finish_reason == "stop" else answer


def _given_up(error: Exception) -> ModelError:
    return ModelError(
        f"vLLM cannot answer by this model here ({type(error).__name__}: {error}); use evaluate.engine=transformers"
    )
