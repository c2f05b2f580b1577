"""vLLM as the engine, against a stand-in with the interface that the project uses; a real one needs a card."""

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
    """Greedy alone; others are refused, as the stand-in cannot do them."""

    def __init__(self, *, temperature: float, max_tokens: int, stop_token_ids: list[int], detokenize: bool) -> None:
        assert temperature == 0.0
        assert not detokenize  # which skip_tokenizer_init asks for
        self.max_tokens, (self.eos,) = max_tokens, stop_token_ids


class LLM:
    """Answers one prompt after the other, with the end of text among the tokens or not, as versions of vLLM differ."""

    with_end = True

    def __init__(self, *, model: str, dtype: str, seed: int, skip_tokenizer_init: bool) -> None:
        LOADED.append({"model": Path(model), "dtype": dtype})
        assert skip_tokenizer_init
        self.model = load_model(Path(model)).to(getattr(torch, dtype))

    def generate(self, prompts: list[dict[str, list[int]]], sampling: SamplingParams) -> list[Any]:
        ending, found = StopConditions(sampling.max_tokens, sampling.eos, sampling.eos), []
        for prompt in prompts:
            (answer,) = generate_answers(self.model, [prompt["prompt_token_ids"]], ending, 1)
            end = [sampling.eos] if self.with_end and answer.finish_reason == "stop" else []
            output = SimpleNamespace(token_ids=(*answer.new_tokens, *end), finish_reason=answer.finish_reason)
            found.append(SimpleNamespace(outputs=[output]))
        return found


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    LOADED.clear()
    return module


def options(**changes: Any) -> Evaluate:
    values = {"limit": None, "max_new_tokens": 12, "batch_size": None, "precision": "fp32", "engine": "vllm"}
    return Evaluate.model_validate({**values, "semantic_model": None, "semantic_sha256": None, **changes})


@pytest.mark.parametrize("with_end", [True, False])
def test_the_answers_and_scores_are_those_of_transformers(
    in_built: Path, vllm: ModuleType, monkeypatch: pytest.MonkeyPatch, with_end: bool
) -> None:
    monkeypatch.setattr(LLM, "with_end", with_end)
    rows, cpu = read_jsonl(Path("data/formatted/test.jsonl"))[:8], torch.device("cpu")
    assert evaluate_model(rows, BASE, options(), cpu) == evaluate_model(rows, BASE, options(engine="transformers"), cpu)
    assert [{"model": in_built / "models/base", "dtype": "float32"}] == LOADED


def test_in_bf16_the_model_is_loaded_so(in_built: Path, vllm: ModuleType) -> None:
    evaluate_model(
        read_jsonl(Path("data/formatted/test.jsonl"))[:1], BASE, options(precision="bf16"), torch.device("cpu")
    )
    assert [{"model": in_built / "models/base", "dtype": "bfloat16"}] == LOADED


def test_interrupted_it_asks_what_is_not_answered_and_loads_nothing_for_none(
    in_built: Path, vllm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(BASE)
    prompts, ending = (
        encoder.prompts(["Why?", "How so?", "Who is it?"]),
        StopConditions(6, encoder.eos, encoder.padding),
    )
    kept = AnswerJournal(tmp_path / "answers.jsonl")
    kept.add({1: Answer([5], "stop")})
    monkeypatch.setattr(vllm_engine, "AT_ONCE", 1)
    found = vllm_engine.generate_with_vllm(BASE, prompts, ending, "fp32", AnswerJournal(tmp_path / "answers.jsonl"))
    assert found[1] == Answer([5], "stop")
    assert [found[0], found[2]] == generate_answers(load_model(BASE), [prompts[0], prompts[2]], ending, 1)
    LOADED.clear()
    assert (
        vllm_engine.generate_with_vllm(BASE, prompts, ending, "fp32", AnswerJournal(tmp_path / "answers.jsonl"))
        == found
    )
    assert LOADED == []


def test_where_vllm_gives_up_its_reason_is_told(in_built: Path, vllm: ModuleType) -> None:
    def refusing(**_: Any) -> None:
        raise ValueError("Model architectures ['Odd'] are not supported")

    vllm.LLM = refusing  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"vLLM cannot answer by this model here \(ValueError: Model architectures"):
        vllm_engine.generate_with_vllm(BASE, [[5, 6]], StopConditions(6, 0, 1), "fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a card")
def test_without_a_card_it_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"evaluate.engine: vllm needs a CUDA card .*; evaluate.engine=transformers"):
        compose_params("evaluate.engine=vllm")
