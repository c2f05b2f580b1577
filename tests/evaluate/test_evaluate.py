"""The evaluate stage: answers do not depend on batching, the loss is a mean over tokens, and a killed run resumes."""

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

from pipeline.chat.row_format import PLAIN_TEXT
from pipeline.config.params import Evaluate
from pipeline.core.files import read_jsonl, write_jsonl
from pipeline.errors import ConfigError, ModelError
from pipeline.evaluate.questions import QuestionReader, TokenLimits
from pipeline.evaluate.stage import evaluate_model, max_prompt_tokens, predict_answers, reference_losses
from pipeline.modeling.answer_journal import Answer, AnswerJournal, describe_other_journals, open_answer_journal
from pipeline.modeling.collation import collate_padded
from pipeline.modeling.encoding import IGNORE_INDEX, Example, load_encoder
from pipeline.modeling.generation import StopConditions, auto_batch_size, generate_answers
from pipeline.modeling.held_out_loss import batches_by_length, held_out_loss, row_losses
from pipeline.modeling.loading import load_model, load_tokenizer
from pipeline.modeling.resume_key import ResumeKey

OPTIONS: dict[str, Any] = {"turns": "last", "engine": "transformers", "semantic_model": None, "semantic_sha256": None}
EOS_ID, PAD_ID = 0, 1
STOP = StopConditions(20, EOS_ID, PAD_ID)


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


def unbatched_answers(model: Any, new_tokens: int = 20) -> list[Answer]:
    """The answers that transformers generates from one prompt at a time."""
    answers = []
    for prompt in prompts():
        output = model.generate(
            torch.tensor([prompt]), max_new_tokens=new_tokens, do_sample=False, eos_token_id=EOS_ID, pad_token_id=PAD_ID
        )
        tokens = output[0, len(prompt) :].tolist()
        answers.append(Answer(tokens[: tokens.index(EOS_ID)], "stop") if EOS_ID in tokens else Answer(tokens, "length"))
    return answers


@pytest.mark.parametrize("batch_size", [1, 7, 64, None])
def test_answers_do_not_depend_on_the_batch_size(model: GPTNeoXForCausalLM, batch_size: int | None) -> None:
    expected = unbatched_answers(model)
    assert {answer.finish_reason for answer in expected} == {"stop", "length"}
    assert len({len(answer.new_tokens) for answer in expected}) > 3  # rows leave the batch at different steps
    assert generate_answers(model, prompts(), STOP, batch_size) == expected


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
    "sliding window": MistralConfig(**WIDE, num_attention_heads=4, num_key_value_heads=2, sliding_window=8),
    "recurrent state": MambaConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, state_size=4, initializer_range=0.6
    ),
    "logits that change in a batch": RwkvConfig(vocab_size=40, hidden_size=32, num_hidden_layers=2, context_length=64),
}


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_batched_answers_of_other_architectures_are_the_unbatched_ones(config: PretrainedConfig) -> None:
    torch.manual_seed(0)
    other = AutoModelForCausalLM.from_config(config).eval()
    expected = unbatched_answers(other)
    assert len({tuple(answer.new_tokens) for answer in expected}) > 3
    for batch_size in (3, None):
        assert generate_answers(other, prompts(), STOP, batch_size) == expected


def test_generation_ignores_the_generation_config_of_the_model(model: GPTNeoXForCausalLM) -> None:
    before = generate_answers(model, prompts()[:4], StopConditions(8, EOS_ID, PAD_ID), 4)
    model.generation_config = GenerationConfig(num_beams=3, min_new_tokens=8, repetition_penalty=9.0, max_length=5)
    assert generate_answers(model, prompts()[:4], StopConditions(8, EOS_ID, PAD_ID), 4) == before


def limit_memory(model: Any, monkeypatch: pytest.MonkeyPatch, max_rows: int) -> list[int]:
    """Make a batch of more than `max_rows` rows run out of memory; the list gets the rows of every attempted batch."""
    forward, attempts = model.forward, []

    @functools.wraps(forward)
    def limited(input_ids: torch.Tensor, **inputs: Any) -> Any:
        if not attempts or attempts[-1] != len(input_ids):
            attempts.append(len(input_ids))
        return torch.empty(2**50) if len(input_ids) > max_rows else forward(input_ids=input_ids, **inputs)

    monkeypatch.setattr(model, "forward", limited)
    return attempts


def test_a_batch_that_does_not_fit_into_memory_is_halved(
    model: GPTNeoXForCausalLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = unbatched_answers(model, 1)
    attempts = limit_memory(model, monkeypatch, 5)
    assert generate_answers(model, prompts(), StopConditions(1, EOS_ID, PAD_ID), None) == expected
    assert attempts == [2, 1, 20, 10, 5]  # the first two check that logits are the same in a batch
    assert [record.getMessage() for record in caplog.records] == [
        "20 prompts together do not fit into memory; continuing with 10 at a time",
        "10 prompts together do not fit into memory; continuing with 5 at a time",
    ]


def test_a_single_prompt_that_does_not_fit_into_memory_raises(
    model: GPTNeoXForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_memory(model, monkeypatch, 0)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        generate_answers(model, prompts(), StopConditions(1, EOS_ID, PAD_ID), 2)


def test_auto_batch_size_fits_into_half_of_the_free_memory(
    model: GPTNeoXForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 34 tokens × (2 × 2 layers × 2 heads × 16 + 8 × 32) values of 4 bytes, and 3 × 40 logits of 4
    row_bytes = 34 * 384 * 4 + 480
    for free, fit in ((20 * row_bytes, 10), (20 * row_bytes - 2, 9), (row_bytes, 1), (10**12, 128)):
        monkeypatch.setattr("pipeline.modeling.generation.free_memory", lambda _, free=free: free)
        assert auto_batch_size(model, 34) == fit


def test_generation_resumes_from_the_journal(model: GPTNeoXForCausalLM, tmp_path: Path) -> None:
    expected = generate_answers(model, prompts(), STOP, 5)
    path = tmp_path / "answers.jsonl"
    generate_answers(model, prompts(), STOP, 5, AnswerJournal(path))
    lines = path.read_text().splitlines()
    assert len(lines) == 20
    path.write_text("\n".join(lines[:5]) + "\n" + lines[5][:-4])  # killed while writing the sixth
    journal = AnswerJournal(path)
    assert len(journal.answers) == 5
    batch_sizes = []
    model.register_forward_pre_hook(
        lambda _, __, inputs: batch_sizes.append(len(inputs["input_ids"])), with_kwargs=True
    )
    assert generate_answers(model, prompts(), STOP, 64, journal) == expected
    model._forward_pre_hooks.clear()
    assert max(batch_sizes) == 15
    assert AnswerJournal(path).answers == dict(enumerate(expected))
    assert generate_answers(model, prompts(), STOP, 64, AnswerJournal(path)) == expected


def test_a_journal_belongs_to_one_evaluation_and_is_removed_after_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))

    def run_interrupted() -> None:
        with open_answer_journal(key) as journal:
            journal.add({3: Answer([7, 8], "stop")})
            raise KeyboardInterrupt

    key = ResumeKey({"model": "a", "code": "1", "parameters": {"max_new_tokens": 8}})
    with pytest.raises(KeyboardInterrupt):
        run_interrupted()
    edited = ResumeKey({"model": "a", "code": "2", "parameters": {"max_new_tokens": 9}})
    with open_answer_journal(edited) as journal:
        assert journal.answers == {}
        (sentence,) = describe_other_journals(journal, edited)
        assert sentence.startswith("Not using the answers in ")
        assert (
            "which are of another evaluation of this model: other code, max_new_tokens 8 (now 9). To remove" in sentence
        )
    other_model = ResumeKey({**key.dependencies, "model": "b"})
    with open_answer_journal(other_model) as journal:
        assert (journal.answers, describe_other_journals(journal, other_model)) == ({}, [])
    with open_answer_journal(key) as journal:
        assert (journal.answers, describe_other_journals(journal, key)) == ({3: Answer([7, 8], "stop")}, [])
    assert list((tmp_path / ".checkpoints").iterdir()) == []


def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(2, 40, (4 + i,), generator=generator).tolist() for i in range(12)]
    return [Example(row, [IGNORE_INDEX, IGNORE_INDEX, *row[2:]], 0) for row in rows]


def test_held_out_loss_is_the_mean_over_labeled_tokens(model: GPTNeoXForCausalLM) -> None:
    losses = []
    for example in examples():
        logits = model(torch.tensor([example.input_ids])).logits[0].double()
        log_probabilities = torch.log_softmax(logits, dim=-1)
        losses += [-log_probabilities[i - 1, token].item() for i, token in enumerate(example.input_ids) if i >= 2]
    assert len(losses) == sum(len(example.input_ids) - 2 for example in examples())
    assert held_out_loss(model, examples(), PAD_ID) == pytest.approx(sum(losses) / len(losses), abs=1e-6)


def test_row_losses_of_uniform_logits_are_log_vocabulary_per_token() -> None:
    labels = torch.tensor([[5, 6, 7], [IGNORE_INDEX, IGNORE_INDEX, 3]])
    expected = torch.tensor([[2 * math.log(10), 2.0], [math.log(10), 1.0]])
    torch.testing.assert_close(row_losses(torch.zeros(2, 3, 10), labels), expected)


def test_collate_padded_pads_on_the_right_and_drops_first_labels() -> None:
    batch = collate_padded([Example([5, 6, 7], [IGNORE_INDEX, 6, 7], 0), Example([8], [8], 0)], PAD_ID)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 1, 1]],
        "labels": [[IGNORE_INDEX, 6, 7], [IGNORE_INDEX] * 3],
    }


def test_batches_respect_the_token_limit_and_hold_every_row_once() -> None:
    rows = [Example([0] * length, [0] * length, 0) for length in (1, 9, 3, 3, 30)]
    lengths = [[len(row.input_ids) for row in batch] for batch in batches_by_length(rows, 10)]
    assert lengths == [[30], [9], [3, 3, 1]]


def test_weights_that_are_not_finite_raise_an_error(model: GPTNeoXForCausalLM) -> None:
    broken = GPTNeoXForCausalLM(model.config).eval()
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="its weights are broken"):
        held_out_loss(broken, examples(), PAD_ID)


def test_max_new_tokens_must_leave_room_for_a_prompt() -> None:
    assert max_prompt_tokens(64, 20) == 44
    with pytest.raises(
        ConfigError, match=r"evaluate.max_new_tokens: 64 leaves no room for a prompt: the model has 64 positions"
    ):
        max_prompt_tokens(64, 64)


LIMITS = TokenLimits(prompt=84, row=96)  # of the small model, with 12 new tokens


def base_reader() -> QuestionReader:
    folder = Path("models/base")
    return QuestionReader(PLAIN_TEXT, folder, load_encoder(folder), "last")


def evaluate_base(rows: list[dict[str, Any]], **changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    options = Evaluate(limit=None, max_new_tokens=12, batch_size=5, precision="fp32", **OPTIONS)
    return evaluate_model(rows, Path("models/base"), options.model_copy(update=changes), torch.device("cpu"))


def test_predictions_have_the_documented_fields(in_built: Path) -> None:
    rows = read_jsonl(Path("data/formatted/test.jsonl"))[:6]
    predictions, metrics = evaluate_base(rows)
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


def test_precision_bf16_applies_to_answers_but_not_to_the_loss(in_built: Path) -> None:
    rows = read_jsonl(Path("data/formatted/test.jsonl"))[:3]
    predictions, metrics = evaluate_base(rows, precision="bf16")
    assert len(predictions) == 3
    assert metrics["loss"] == evaluate_base(rows)[1]["loss"]
    model = load_model(Path("models/base")).to(torch.bfloat16)
    reader = base_reader()
    options = Evaluate(limit=None, max_new_tokens=12, batch_size=5, precision="bf16", **OPTIONS)
    expected = predict_answers(reader.read(rows, LIMITS), model, reader, options)
    assert [row["prediction"] for row in predictions] == [row["prediction"] for row in expected]


def test_a_killed_evaluation_resumes_and_writes_the_same_predictions(in_built: Path) -> None:
    """The process is killed after its first batch; the next one generates only the other answers."""
    overrides = ("instance=base", "evaluate.batch_size=4")
    predictions, expected = Path("data/predictions/base.jsonl"), Path("expected.jsonl")
    write_jsonl(expected, evaluate_base(read_jsonl(Path("data/formatted/test.jsonl"))[:16], batch_size=4)[0])
    kill_after_first_batch = (
        "import os, signal\n"
        "from pipeline.evaluate.stage import main\n"
        "from pipeline.modeling.answer_journal import AnswerJournal\n"
        "add = AnswerJournal.add\n"
        "AnswerJournal.add = lambda *args: (add(*args), os.kill(os.getpid(), signal.SIGKILL))\n"
        "main()"
    )
    killed = run_in(in_built, sys.executable, "-c", kill_after_first_batch, *overrides)
    assert killed.returncode == -signal.SIGKILL
    assert not predictions.exists()
    (journal,) = Path(".checkpoints").iterdir()
    assert len(journal.read_text().splitlines()) == 1 + 4  # after the line with the key
    resumed = python_in(in_built, "pipeline.evaluate", *overrides)
    assert "Resuming: 4 of 15 answers were already generated" in resumed.stdout
    assert "Generated 11 answers in" in resumed.stdout
    assert predictions.read_bytes() == expected.read_bytes()
    assert not journal.exists()


def test_a_prompt_longer_than_the_positions_is_still_answered(in_built: Path) -> None:
    """The tutorial counts the prompt in max_length, so its answers to long questions are empty."""
    rows = [{"id": 0, "prompt": "word " * 500 + "### Answer:", "completion": "\nYes, that is so."}]
    (prediction,), metrics = evaluate_base(rows)
    assert prediction["new_tokens"] > 0
    assert math.isfinite(metrics["loss"])


def test_the_loss_includes_the_end_of_text_but_not_the_prompt(in_built: Path) -> None:
    encoder, model = load_encoder(Path("models/base")), load_model(Path("models/base"))
    row = {"id": 0, "prompt": "### Question:\nWhy?\n### Answer:", "completion": "\nSo."}
    ids = encoder.encode_prompts([row["prompt"]])[0]
    answer = encoder.encode_completions([row["completion"]])[0]
    assert answer[-1] == encoder.eos_id == load_tokenizer(Path("models/base")).eos_token_id
    log_probabilities = torch.log_softmax(model(torch.tensor([ids + answer])).logits[0].double(), dim=-1)
    expected = [-log_probabilities[len(ids) + i - 1, token].item() for i, token in enumerate(answer)]
    reader = base_reader()
    (loss,) = reference_losses(reader.read([row], LIMITS), model, reader)
    assert loss == {"loss": pytest.approx(sum(expected) / len(answer), abs=1e-6), "tokens": len(answer), "bytes": 4}


def test_a_row_scores_the_same_alone_and_in_a_batch(in_built: Path) -> None:
    rows = read_jsonl(Path("data/formatted/test.jsonl"))[:9]
    reader, model = base_reader(), load_model(Path("models/base"))
    options = Evaluate(limit=None, max_new_tokens=12, batch_size=9, precision="fp32", **OPTIONS)
    questions = reader.read(rows, LIMITS)
    batched = predict_answers(questions, model, reader, options)
    assert [predict_answers([question], model, reader, options)[0] for question in questions] == batched
