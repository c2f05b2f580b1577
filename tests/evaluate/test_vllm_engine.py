"""pipeline/evaluate/vllm_engine.py with a fake of the vLLM classes that it uses; real vLLM needs a GPU."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.compose.composition import compose_params
from pipeline.config.params import Evaluate
from pipeline.core.files import read_jsonl
from pipeline.errors import ConfigError, ModelError
from pipeline.evaluate import vllm_engine
from pipeline.evaluate.stage import evaluate_model
from pipeline.modeling.answer_journal import Answer, AnswerJournal
from pipeline.modeling.encoding import load_encoder
from pipeline.modeling.generation import StopConditions, generate_answers
from pipeline.modeling.loading import load_model

BASE = Path("models/base")
LOADED: list[dict[str, Any]] = []


class SamplingParams:
    """Accepts greedy decoding only, which is all that the fake LLM can do."""

    def __init__(self, *, temperature: float, max_tokens: int, stop_token_ids: list[int], detokenize: bool) -> None:
        assert temperature == 0.0
        assert not detokenize  # required with skip_tokenizer_init
        self.max_tokens, (self.eos_id,) = max_tokens, stop_token_ids


class LLM:
    """Answers one prompt at a time. Versions of vLLM differ in whether the tokens include the end-of-text token."""

    includes_eos = True

    def __init__(self, *, model: str, dtype: str, seed: int, skip_tokenizer_init: bool) -> None:
        LOADED.append({"model": Path(model), "dtype": dtype})
        assert skip_tokenizer_init
        self.model = load_model(Path(model)).to(getattr(torch, dtype))

    def generate(self, prompts: list[dict[str, list[int]]], sampling: SamplingParams) -> list[Any]:
        stop, results = StopConditions(sampling.max_tokens, sampling.eos_id, sampling.eos_id), []
        for prompt in prompts:
            (answer,) = generate_answers(self.model, [prompt["prompt_token_ids"]], stop, 1)
            end = [sampling.eos_id] if self.includes_eos and answer.finish_reason == "stop" else []
            output = SimpleNamespace(token_ids=(*answer.new_tokens, *end), finish_reason=answer.finish_reason)
            results.append(SimpleNamespace(outputs=[output]))
        return results


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    LOADED.clear()
    return module


def options(**changes: Any) -> Evaluate:
    values = {"limit": None, "max_new_tokens": 12, "turns": "last", "batch_size": None, "precision": "fp32"}
    return Evaluate.model_validate(
        {**values, "engine": "vllm", "semantic_model": None, "semantic_sha256": None, **changes}
    )


@pytest.mark.parametrize("includes_eos", [True, False])
def test_predictions_and_metrics_equal_those_of_transformers(
    in_built: Path, vllm: ModuleType, monkeypatch: pytest.MonkeyPatch, includes_eos: bool
) -> None:
    monkeypatch.setattr(LLM, "includes_eos", includes_eos)
    rows, cpu = read_jsonl(Path("data/formatted/test.jsonl"))[:8], torch.device("cpu")
    assert evaluate_model(rows, BASE, options(), cpu) == evaluate_model(rows, BASE, options(engine="transformers"), cpu)
    assert [{"model": in_built / "models/base", "dtype": "float32"}] == LOADED


def test_precision_bf16_loads_the_model_in_bfloat16(in_built: Path, vllm: ModuleType) -> None:
    evaluate_model(
        read_jsonl(Path("data/formatted/test.jsonl"))[:1], BASE, options(precision="bf16"), torch.device("cpu")
    )
    assert [{"model": in_built / "models/base", "dtype": "bfloat16"}] == LOADED


def test_only_answers_missing_from_the_journal_are_generated(
    in_built: Path, vllm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(BASE)
    prompts = encoder.encode_prompts(["Why?", "How so?", "Who is it?"])
    stop = StopConditions(6, encoder.eos_id, encoder.pad_id)
    path = tmp_path / "answers.jsonl"
    AnswerJournal(path).add({1: Answer([5], "stop")})
    monkeypatch.setattr(vllm_engine, "PROMPTS_PER_CALL", 1)
    answers = vllm_engine.generate_with_vllm(BASE, prompts, stop, "fp32", AnswerJournal(path))
    assert answers[1] == Answer([5], "stop")
    assert [answers[0], answers[2]] == generate_answers(load_model(BASE), [prompts[0], prompts[2]], stop, 1)
    LOADED.clear()
    assert vllm_engine.generate_with_vllm(BASE, prompts, stop, "fp32", AnswerJournal(path)) == answers
    assert LOADED == []  # no answer is missing, so the model is not loaded


def test_an_error_of_vllm_is_reported_with_its_reason(in_built: Path, vllm: ModuleType) -> None:
    def raise_unsupported(**_: Any) -> None:
        raise ValueError("Model architectures ['Odd'] are not supported")

    vllm.LLM = raise_unsupported  # type: ignore[attr-defined]
    with pytest.raises(
        ModelError, match=r"vLLM cannot run this model on this machine \(ValueError: Model architectures"
    ):
        vllm_engine.generate_with_vllm(BASE, [[5, 6]], StopConditions(6, 0, 1), "fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_vllm_is_rejected_at_composition() -> None:
    with pytest.raises(ConfigError, match=r"evaluate.engine: vllm needs a CUDA GPU .*; evaluate.engine=transformers"):
        compose_params("evaluate.engine=vllm")
