"""Answers do not depend on how they are batched; the loss is a mean over tokens; the prompt never stands in the answer."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, GPTNeoXConfig, GPTNeoXForCausalLM

from pipeline.encoding import IGNORED, Example, load_encoder
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.evaluate import answered, evaluate, loss_of, room_for_prompt
from pipeline.files import read_jsonl
from pipeline.generation import generate
from pipeline.likelihood import batches_by_length, held_out_loss, pad, row_losses
from pipeline.params import Evaluate
from pipeline.weights import load_model, load_tokenizer

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


def test_answers_are_those_of_one_prompt_at_a_time_whatever_the_batch_size(model: GPTNeoXForCausalLM) -> None:
    alone = []
    for prompt in prompts():
        output = model.generate(
            torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=EOS, pad_token_id=1
        )
        tokens = output[0, len(prompt) :].tolist()
        alone.append((tokens[: tokens.index(EOS)], "stop") if EOS in tokens else (tokens, "length"))
    assert {reason for _, reason in alone} == {"stop", "length"}
    for batch_size in (1, 7, 64):
        assert [tuple(answer) for answer in generate(model, prompts(), 20, batch_size, EOS, PADDING)] == alone


def test_the_model_s_own_generation_configuration_is_not_used(model: GPTNeoXForCausalLM) -> None:
    before = generate(model, prompts()[:4], 8, 4, EOS, PADDING)
    model.generation_config = GenerationConfig(num_beams=3, min_new_tokens=8, repetition_penalty=9.0, max_length=5)
    assert generate(model, prompts()[:4], 8, 4, EOS, PADDING) == before


def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(2, 40, (4 + i,), generator=generator).tolist() for i in range(12)]
    return [Example(row, [IGNORED, IGNORED, *row[2:]], 0) for row in rows]


def test_the_held_out_loss_is_the_mean_over_all_labelled_tokens(model: GPTNeoXForCausalLM) -> None:
    losses = []
    for example in examples():
        logits = model(torch.tensor([example.input_ids])).logits[0].double()
        log_probabilities = torch.log_softmax(logits, dim=-1)
        losses += [-log_probabilities[i - 1, token].item() for i, token in enumerate(example.input_ids) if i >= 2]
    assert len(losses) == sum(len(example.input_ids) - 2 for example in examples())
    assert held_out_loss(model, examples(), PADDING) == pytest.approx(sum(losses) / len(losses), abs=1e-6)


def test_row_losses_of_a_uniform_model_are_log_vocabulary_a_token() -> None:
    labels = torch.tensor([[5, 6, 7], [IGNORED, IGNORED, 3]])
    expected = torch.tensor([[2 * math.log(10), 2.0], [math.log(10), 1.0]])
    torch.testing.assert_close(row_losses(torch.zeros(2, 3, 10), labels), expected)


def test_a_padded_batch_is_padded_on_the_right_and_masked() -> None:
    batch = pad([Example([5, 6, 7], [IGNORED, 6, 7], 0), Example([8], [8], 0)], PADDING)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 1, 1]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "labels": [[IGNORED, 6, 7], [8, IGNORED, IGNORED]],
    }


def test_batches_hold_no_more_tokens_than_asked_and_every_row_once() -> None:
    rows = [Example([0] * length, [0] * length, 0) for length in (1, 9, 3, 3, 30)]
    lengths = [[len(row.input_ids) for row in batch] for batch in batches_by_length(rows, 10)]
    assert lengths == [[30], [9], [3, 3, 1]]


def test_perplexity_does_not_overflow() -> None:
    assert perplexity(0.0) == 1.0
    assert math.isfinite(perplexity(1e6))


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
    options = Evaluate(limit=None, max_new_tokens=12, batch_size=5)
    return evaluate(rows, Path("models/base"), options.model_copy(update=changes), torch.device("cpu"))


def test_a_prediction_has_the_fields_that_others_read(in_built: Path) -> None:
    rows = read_jsonl(Path("data/formatted/test.jsonl"))[:6]
    predictions, metrics = evaluated(rows)
    assert [row["id"] for row in predictions] == [row["id"] for row in rows]
    assert list(predictions[0]) == [
        *("id", "prompt", "reference", "prediction", "new_tokens", "finish_reason"),
        *("exact_match", "f1", "rouge1", "rouge2", "rougeL"),
    ]
    assert all(row["new_tokens"] <= 12 and row["prompt"] not in row["prediction"] for row in predictions)
    assert all(not row["reference"].startswith("\n") for row in predictions)
    assert metrics["rows"] == 6
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    assert metrics["signature"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


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
    assert loss_of([row], model, encoder, 96) == pytest.approx(sum(expected) / len(answer), abs=1e-6)


def test_the_same_row_scores_the_same_in_any_company(in_built: Path) -> None:
    rows = read_jsonl(Path("data/formatted/test.jsonl"))[:9]
    encoder, model = load_encoder(Path("models/base")), load_model(Path("models/base"))
    options = Evaluate(limit=None, max_new_tokens=12, batch_size=9)
    together = answered(rows, model, encoder, options, 96)
    assert [answered([row], model, encoder, options, 96)[0] for row in rows] == together


def test_pairs_of_different_test_rows_are_refused() -> None:
    from pipeline.compare import paired

    with pytest.raises(DataError, match="not the same rows"):
        paired([{"id": 1}], [{"id": 2}])
