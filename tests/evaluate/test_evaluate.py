"""Answers do not depend on how they are batched; the loss is a mean over tokens; the prompt never stands in the answer."""

import functools
import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.project import python_in, run_in
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PretrainedConfig,
    RwkvConfig,
)

from pipeline.config.params import Evaluate
from pipeline.core.files import read_jsonl
from pipeline.errors import ConfigError, ModelError
from pipeline.evaluate.stage import evaluate_model, predict_rows, reference_losses, room_for_prompt
from pipeline.modeling.answer_journal import Answer, AnswerJournal, open_answer_journal
from pipeline.modeling.batches import collate_padded
from pipeline.modeling.encoding import IGNORE_INDEX, Example, load_encoder
from pipeline.modeling.generation import StopConditions, auto_batch_size, generate_answers
from pipeline.modeling.held_out_loss import batches_by_length, held_out_loss, row_losses
from pipeline.modeling.loading import load_model, load_tokenizer

OPTIONS: dict[str, Any] = {"engine": "transformers", "semantic_model": None, "semantic_sha256": None}
EOS, PADDING = 0, 1


@pytest.fixture(scope="module")
def model() -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.6,  # wide, so that answers differ from prompt to prompt and some end
    )
    return GPTNeoXForCausalLM(config).eval()


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(2, 40, (3 + i % 11,), generator=generator).tolist() for i in range(20)]


def alone(model: Any, new_tokens: int = 20) -> list[Answer]:
    """The answers as transformers gives them, asked one at a time."""
    answers = []
    for prompt in prompts():
        output = model.generate(
            torch.tensor([prompt]), max_new_tokens=new_tokens, do_sample=False, eos_token_id=EOS, pad_token_id=1
        )
        tokens = output[0, len(prompt) :].tolist()
        answers.append(Answer(tokens[: tokens.index(EOS)], "stop") if EOS in tokens else Answer(tokens, "length"))
    return answers


@pytest.mark.parametrize("batch_size", [1, 7, 64, None])
def test_answers_are_those_of_one_prompt_at_a_time_whatever_the_batch_size(
    model: GPTNeoXForCausalLM, batch_size: int | None
) -> None:
    expected = alone(model)
    assert {answer.finish_reason for answer in expected} == {"stop", "length"}
    assert len({len(answer.new_tokens) for answer in expected}) > 3  # rows leave the batch at different steps
    assert generate_answers(model, prompts(), StopConditions(20, EOS, PADDING), batch_size) == expected


WIDE = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "initializer_range": 0.6}
FAMILIES = {
    "learned positions": GPT2Config(
        vocab_size=40,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.6,
        bos_token_id=0,
        eos_token_id=0,
    ),
    "grouped queries": LlamaConfig(**WIDE, num_attention_heads=4, num_key_value_heads=2),
    "a window": MistralConfig(**WIDE, num_attention_heads=4, num_key_value_heads=2, sliding_window=8),
    "a state": MambaConfig(vocab_size=40, hidden_size=32, num_hidden_layers=2, state_size=4, initializer_range=0.6),
    "rows that are mixed in a batch": RwkvConfig(vocab_size=40, hidden_size=32, num_hidden_layers=2, context_length=64),
}


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_other_architectures_answer_as_one_prompt_at_a_time_too(config: PretrainedConfig) -> None:
    torch.manual_seed(0)
    other = AutoModelForCausalLM.from_config(config).eval()
    expected = alone(other)
    assert len({tuple(answer.new_tokens) for answer in expected}) > 3
    for batch_size in (3, None):
        assert generate_answers(other, prompts(), StopConditions(20, EOS, PADDING), batch_size) == expected


def test_the_model_s_own_generation_configuration_is_not_used(model: GPTNeoXForCausalLM) -> None:
    before = generate_answers(model, prompts()[:4], StopConditions(8, EOS, PADDING), 4)
    model.generation_config = GenerationConfig(num_beams=3, min_new_tokens=8, repetition_penalty=9.0, max_length=5)
    assert generate_answers(model, prompts()[:4], StopConditions(8, EOS, PADDING), 4) == before


def short_of_memory(model: Any, monkeypatch: pytest.MonkeyPatch, rows: int) -> list[int]:
    """Let a batch of more than so many rows fail as on a full machine; the list tells the rows of all that were tried."""
    forward, tried = model.forward, []

    @functools.wraps(forward)
    def limited(input_ids: torch.Tensor, **inputs: Any) -> Any:
        if not tried or tried[-1] != len(input_ids):
            tried.append(len(input_ids))
        return torch.empty(2**50) if len(input_ids) > rows else forward(input_ids=input_ids, **inputs)

    monkeypatch.setattr(model, "forward", limited)
    return tried


def test_a_batch_that_does_not_fit_is_halved_and_the_answers_stay(
    model: GPTNeoXForCausalLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = alone(model, 1)
    tried = short_of_memory(model, monkeypatch, 5)
    assert generate_answers(model, prompts(), StopConditions(1, EOS, PADDING), None) == expected
    assert tried == [2, 1, 20, 10, 5]  # the first two: is it the same in a batch?
    assert [record.getMessage() for record in caplog.records] == [
        "20 prompts side by side do not fit into memory; going on with 10",
        "10 prompts side by side do not fit into memory; going on with 5",
    ]


def test_a_single_prompt_that_does_not_fit_is_an_error(
    model: GPTNeoXForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(model, monkeypatch, 0)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        generate_answers(model, prompts(), StopConditions(1, EOS, PADDING), 2)


def test_the_batch_size_is_what_fits_into_half_of_the_free_memory(
    model: GPTNeoXForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 34 tokens × (2 × 2 layers × 2 heads × 16 + 8 × 32) numbers of 4 bytes, and 3 × 40 scores of 4
    row = 34 * 384 * 4 + 480
    for free, fit in ((20 * row, 10), (20 * row - 2, 9), (row, 1), (10**12, 128)):
        monkeypatch.setattr("pipeline.modeling.generation.free_memory", lambda _, free=free: free)
        assert auto_batch_size(model, 34) == fit


def test_interrupted_it_goes_on_where_it_was(model: GPTNeoXForCausalLM, tmp_path: Path) -> None:
    expected = generate_answers(model, prompts(), StopConditions(20, EOS, PADDING), 5)
    path = tmp_path / "answers.jsonl"
    generate_answers(model, prompts(), StopConditions(20, EOS, PADDING), 5, AnswerJournal(path))
    lines = path.read_text().splitlines()
    assert len(lines) == 20
    path.write_text("\n".join(lines[:5]) + "\n" + lines[5][:-4])  # killed while it wrote the sixth
    kept = AnswerJournal(path)
    assert len(kept.answers) == 5
    asked = []
    model.register_forward_pre_hook(lambda _, __, inputs: asked.append(len(inputs["input_ids"])), with_kwargs=True)
    assert generate_answers(model, prompts(), StopConditions(20, EOS, PADDING), 64, kept) == expected
    model._forward_pre_hooks.clear()
    assert max(asked) == 15
    assert AnswerJournal(path).answers == dict(enumerate(expected))
    assert generate_answers(model, prompts(), StopConditions(20, EOS, PADDING), 64, AnswerJournal(path)) == expected


def test_kept_answers_are_of_one_evaluation_and_gone_after_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))

    def interrupted() -> None:
        with open_answer_journal({"model": "a"}) as kept:
            kept.add({3: Answer([7, 8], "stop")})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with open_answer_journal({"model": "b"}) as kept:
        assert kept.answers == {}
    with open_answer_journal({"model": "a"}) as kept:
        assert kept.answers == {3: Answer([7, 8], "stop")}
    assert list((tmp_path / ".checkpoints").iterdir()) == []


def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(2, 40, (4 + i,), generator=generator).tolist() for i in range(12)]
    return [Example(row, [IGNORE_INDEX, IGNORE_INDEX, *row[2:]], 0) for row in rows]


def test_the_held_out_loss_is_the_mean_over_all_labelled_tokens(model: GPTNeoXForCausalLM) -> None:
    losses = []
    for example in examples():
        logits = model(torch.tensor([example.input_ids])).logits[0].double()
        log_probabilities = torch.log_softmax(logits, dim=-1)
        losses += [-log_probabilities[i - 1, token].item() for i, token in enumerate(example.input_ids) if i >= 2]
    assert len(losses) == sum(len(example.input_ids) - 2 for example in examples())
    assert held_out_loss(model, examples(), PADDING) == pytest.approx(sum(losses) / len(losses), abs=1e-6)


def test_row_losses_of_a_uniform_model_are_log_vocabulary_a_token() -> None:
    labels = torch.tensor([[5, 6, 7], [IGNORE_INDEX, IGNORE_INDEX, 3]])
    expected = torch.tensor([[2 * math.log(10), 2.0], [math.log(10), 1.0]])
    torch.testing.assert_close(row_losses(torch.zeros(2, 3, 10), labels), expected)


def test_a_padded_batch_is_padded_on_the_right() -> None:
    batch = collate_padded([Example([5, 6, 7], [IGNORE_INDEX, 6, 7], 0), Example([8], [8], 0)], PADDING)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 1, 1]],
        "labels": [[IGNORE_INDEX, 6, 7], [8, IGNORE_INDEX, IGNORE_INDEX]],
    }


def test_batches_hold_no_more_tokens_than_asked_and_every_row_once() -> None:
    rows = [Example([0] * length, [0] * length, 0) for length in (1, 9, 3, 3, 30)]
    lengths = [[len(row.input_ids) for row in batch] for batch in batches_by_length(rows, 10)]
    assert lengths == [[30], [9], [3, 3, 1]]


def test_a_model_with_broken_weights_is_an_error_not_a_score(model: GPTNeoXForCausalLM) -> None:
    broken = GPTNeoXForCausalLM(model.config).eval()
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="its weights are broken"):
        held_out_loss(broken, examples(), PADDING)


def test_an_answer_must_leave_room_for_its_question() -> None:
    assert room_for_prompt(64, 20) == 44
    with pytest.raises(ConfigError, match=r"evaluate.max_new_tokens: 64 leaves no room"):
        room_for_prompt(64, 64)


def evaluated(rows: list[dict[str, Any]], **changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    options = Evaluate(limit=None, max_new_tokens=12, batch_size=5, precision="fp32", **OPTIONS)
    return evaluate_model(rows, Path("models/base"), options.model_copy(update=changes), torch.device("cpu"))


def test_a_prediction_has_the_fields_that_others_read(in_built: Path) -> None:
    rows = read_jsonl(Path("data/formatted/test.jsonl"))[:6]
    predictions, metrics = evaluated(rows)
    assert [row["id"] for row in predictions] == [row["id"] for row in rows]
    assert list(predictions[0]) == [
        *("id", "prompt", "reference", "prediction", "new_tokens", "finish_reason"),
        *("exact_match", "f1", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "rougeLsum"),
        *("distinct_1", "distinct_2", "looping", "loss", "tokens", "bytes"),
    ]
    assert all(row["new_tokens"] <= 12 and row["prompt"] not in row["prediction"] for row in predictions)
    assert all(not row["reference"].startswith("\n") for row in predictions)
    assert metrics["rows"] == 6
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    assert metrics["signature"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_in_bf16_the_answers_are_given_in_bf16_and_the_loss_in_float32(in_built: Path) -> None:
    rows = read_jsonl(Path("data/formatted/test.jsonl"))[:3]
    predictions, metrics = evaluated(rows, precision="bf16")
    assert len(predictions) == 3
    assert metrics["loss"] == evaluated(rows)[1]["loss"]
    model = load_model(Path("models/base")).to(torch.bfloat16)
    encoder = load_encoder(Path("models/base"))
    expected = predict_rows(
        rows, model, encoder, Evaluate(limit=None, max_new_tokens=12, batch_size=5, precision="bf16", **OPTIONS), 96
    )
    assert [row["prediction"] for row in predictions] == [row["prediction"] for row in expected]


def test_a_killed_evaluation_goes_on_and_writes_what_an_undisturbed_one_does(in_built: Path) -> None:
    """Its first batch answered, the process is killed; the second one answers the rest alone."""
    arguments = ("evaluate", "instance=base", "evaluate.batch_size=4")
    assert python_in(in_built, f"pipeline.{arguments[0]}", *arguments[1:]).returncode == 0
    written = Path("data/predictions/base.jsonl").read_bytes()
    Path("data/predictions/base.jsonl").unlink()
    kill = (
        "import os, signal, pipeline.kept as k; add = k.Kept.add\n"
        "k.Kept.add = lambda *a: (add(*a), os.kill(os.getpid(), signal.SIGKILL))\n"
        "from pipeline.evaluate.stage import main; main()"
    )
    assert run_in(in_built, sys.executable, "-c", kill, *arguments[1:]).returncode == -signal.SIGKILL
    (kept,) = Path(".checkpoints").iterdir()
    assert len(kept.read_text().splitlines()) == 4
    done = python_in(in_built, f"pipeline.{arguments[0]}", *arguments[1:])
    assert "12 answers in" in done.stdout
    assert "4 more were there already" in done.stdout
    assert Path("data/predictions/base.jsonl").read_bytes() == written
    assert not kept.exists()


def test_a_question_longer_than_the_model_is_still_answered(in_built: Path) -> None:
    """The tutorial counts the prompt in max_length, and answers long questions with nothing."""
    rows = [{"id": 0, "prompt": "word " * 500 + "### Answer:", "completion": "\nYes, that is so."}]
    (prediction,), metrics = evaluated(rows)
    assert prediction["new_tokens"] > 0
    assert math.isfinite(metrics["loss"])


def test_the_loss_counts_the_end_of_text_and_not_the_prompt(in_built: Path) -> None:
    encoder, model = load_encoder(Path("models/base")), load_model(Path("models/base"))
    row = {"id": 0, "prompt": "### Question:\nWhy?\n### Answer:", "completion": "\nSo."}
    ids = encoder.prompts([row["prompt"]])[0]
    answer = encoder.completions([row["completion"]])[0]
    assert answer[-1] == encoder.eos == load_tokenizer(Path("models/base")).eos_token_id
    log_probabilities = torch.log_softmax(model(torch.tensor([ids + answer])).logits[0].double(), dim=-1)
    expected = [-log_probabilities[len(ids) + i - 1, token].item() for i, token in enumerate(answer)]
    (found,) = reference_losses([row], model, encoder, 96)
    assert found == {"loss": pytest.approx(sum(expected) / len(answer), abs=1e-6), "tokens": len(answer), "bytes": 4}


def test_the_same_row_scores_the_same_in_any_company(in_built: Path) -> None:
    rows = read_jsonl(Path("data/formatted/test.jsonl"))[:9]
    encoder, model = load_encoder(Path("models/base")), load_model(Path("models/base"))
    options = Evaluate(limit=None, max_new_tokens=12, batch_size=9, precision="fp32", **OPTIONS)
    together = predict_rows(rows, model, encoder, options, 96)
    assert [predict_rows([row], model, encoder, options, 96)[0] for row in rows] == together
