"""Greedy answers with vLLM, an optional engine that uses a GPU better than transformers does.

vLLM requires its own version of torch (pip install vllm), so it is not a dependency of the project.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ModelError
from pipeline.modeling.answer_journal import Answer, AnswerJournal
from pipeline.modeling.generation import StopConditions, answer_of

PROMPTS_PER_CALL = 4096  # after which the journal is written; vLLM forms its own batches of them


def missing_for_vllm(device: str) -> str | None:
    """An error message about what vLLM needs and this machine, or compute.device, lacks; None if nothing."""
    gpu = "" if device != "cpu" and torch.cuda.is_available() else "a CUDA GPU (compute.device: auto or cuda)"
    library = "" if find_spec("vllm") else "the library vllm (pip install vllm)"
    if not gpu and not library:
        return None
    missing = " and ".join(filter(None, (gpu, library)))
    return (
        f"evaluate.engine: vllm needs {missing}, not available here; evaluate.engine=transformers runs on any machine"
    )


def generate_with_vllm(
    folder: Path, prompts: list[list[int]], stop: StopConditions, precision: str, journal: AnswerJournal | None = None
) -> list[Answer]:
    """Generate an answer to each prompt (token ids), in their order, with the model in a folder.

    journal: its answers are not generated again, and new answers are added to it. Raises ModelError if vLLM fails.
    """
    answers = dict(journal.answers) if journal else {}
    pending = [i for i in range(len(prompts)) if i not in answers]
    engine = _load_engine(folder, precision) if pending else None
    for start in range(0, len(pending), PROMPTS_PER_CALL):
        batch = pending[start : start + PROMPTS_PER_CALL]
        new_answers = dict(zip(batch, _generate(engine, [prompts[i] for i in batch], stop), strict=True))
        if journal:
            journal.add(new_answers)
        answers.update(new_answers)
    return [answers[i] for i in range(len(prompts))]


def _load_engine(folder: Path, precision: str) -> Any:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # vLLM reads it on import
    from vllm import LLM

    dtype = "bfloat16" if precision == "bf16" else "float32"
    try:
        return LLM(model=str(folder.resolve()), dtype=dtype, seed=0, skip_tokenizer_init=True)
    except Exception as error:  # many types, such as for an unsupported architecture or too little GPU memory
        raise _vllm_error(error) from None


def _generate(engine: Any, prompts: list[list[int]], stop: StopConditions) -> list[Answer]:
    from vllm import SamplingParams

    greedy = SamplingParams(
        temperature=0.0, max_tokens=stop.max_new_tokens, stop_token_ids=stop.end_ids, detokenize=False
    )
    try:
        results = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], greedy)
    except Exception as error:
        raise _vllm_error(error) from None
    return [_answer(result.outputs[0], stop.end_ids) for result in results]


def _answer(output: Any, end_ids: list[int]) -> Answer:
    """Only some versions of vLLM include the end-of-text token in the output, so finish_reason decides."""
    answer = answer_of(list(output.token_ids), end_ids)
    return answer._replace(finish_reason="stop") if output.finish_reason == "stop" else answer


def _vllm_error(error: Exception) -> ModelError:
    return ModelError(
        f"vLLM cannot run this model on this machine ({type(error).__name__}: {error}); use evaluate.engine=transformers"
    )
