"""The chunked loss against PyTorch's cross entropy and against the models' own loss."""

from typing import Any

import pytest
import torch
from support.small_models import ROWS, SMALL_CONFIGS, TOKEN_CONFIG, VOCABULARY, small_model
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.modeling.collation import collate_packed, collate_padded, skip_packing_detection
from pipeline.modeling.held_out_loss import row_losses
from pipeline.train import chunked_loss
from pipeline.train.chunked_loss import LinearCrossEntropy, install_chunked_loss, with_label_positions


def loss_inputs(bias: bool, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    torch.manual_seed(0)
    hidden, weight = torch.randn(17, 8, dtype=dtype), torch.randn(VOCABULARY, 8, dtype=dtype)
    parameters = hidden, weight, torch.randn(VOCABULARY, dtype=dtype) if bias else None
    inputs = (None if tensor is None else tensor.requires_grad_() for tensor in parameters)
    return *inputs, torch.randint(VOCABULARY, (17,))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("logits", [1, 300, 10**6], ids=["one token per chunk", "two", "all"])
def test_loss_and_gradients_match_the_full_logits(bias: bool, logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_loss, "MAX_LOGITS_PER_CHUNK", logits)
    hidden, weight, offset, targets = loss_inputs(bias, torch.float32)
    parameters = [tensor for tensor in (hidden, weight, offset) if tensor is not None]
    loss = LinearCrossEntropy.apply(hidden, weight, offset, targets)
    expected = cross_entropy(torch.nn.functional.linear(hidden, weight, offset), targets, reduction="sum")
    torch.testing.assert_close(loss, expected)
    grads, expected_grads = (torch.autograd.grad(3 * value, parameters) for value in (loss, expected))
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-5)


def test_frozen_weights_get_no_gradient() -> None:
    hidden, weight, _, targets = loss_inputs(bias=False, dtype=torch.float32)
    weight.requires_grad_(False)
    LinearCrossEntropy.apply(hidden, weight, None, targets).backward()
    assert weight.grad is None
    assert hidden.grad is not None


INPUTS = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 9], [3, 4, 2, 2, 2]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "labels": torch.tensor([[-100, -100, 7, 8, 9], [-100, 4, 2, -100, -100]]),
}


@pytest.mark.parametrize("kind", SMALL_CONFIGS)
def test_models_keep_their_loss_and_gradients(kind: str) -> None:
    model, reference = small_model(kind), small_model(kind)
    assert install_chunked_loss(model) is not row_losses
    for network in (model, reference):
        network(**INPUTS, num_items_in_batch=torch.tensor(10)).loss.backward()
    grads = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model(**INPUTS).loss, reference(**INPUTS).loss)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", SMALL_CONFIGS)
def test_training_step_never_waits_for_a_value_on_the_device(kind: str, packed: bool) -> None:
    """Tensors on the device `meta` have no values, so an operation that makes the host wait for a GPU fails on them."""
    model = small_model(
        kind, use_cache=False, pad_token_id=None
    )  # as GPT-2 has it; with one, its own code searches for it
    install_chunked_loss(model)
    batch = {
        name: tensor.to("meta")
        for name, tensor in with_label_positions(collate_packed(ROWS) if packed else collate_padded(ROWS, 2)).items()
    }
    model.to("meta")
    with skip_packing_detection(packed):
        model(**batch, num_items_in_batch=torch.tensor(7, device="meta")).loss.backward()
        assert model.get_output_embeddings().weight.grad.shape == (VOCABULARY, 32)
        with pytest.raises(NotImplementedError, match="nonzero"):
            model(**{name: tensor for name, tensor in batch.items() if name != "label_positions"})
    with pytest.raises(RuntimeError, match="item"):  # transformers checks whether the rows are packed
        model(**batch)


def test_gradients_are_computed_in_bf16_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes: list[torch.dtype] = []
    forward = LinearCrossEntropy.forward

    def spy(ctx: Any, hidden: torch.Tensor, *rest: Any) -> torch.Tensor:
        dtypes.append(hidden.dtype)
        return forward(ctx, hidden, *rest)

    monkeypatch.setattr(LinearCrossEntropy, "forward", staticmethod(spy))
    model, reference = small_model("llama"), small_model("llama")
    install_chunked_loss(model)
    for network in (model, reference):
        with torch.autocast("cpu", torch.bfloat16):
            network(**INPUTS).loss.backward()
    assert dtypes == [torch.bfloat16]
    for parameter, expected in zip(model.parameters(), reference.parameters(), strict=True):
        assert parameter.grad.dtype == torch.float32
        assert (parameter.grad - expected.grad).norm() < 0.02 * expected.grad.norm()


def test_models_return_logits_when_there_are_no_labels() -> None:
    model, reference = small_model("gpt_neox"), small_model("gpt_neox")
    install_chunked_loss(model)
    prompt = {name: INPUTS[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(model(**prompt).logits, reference(**prompt).logits)


def test_row_losses_are_sums_over_the_labels_of_each_row() -> None:
    model = small_model("gpt_neox")
    with torch.no_grad():
        output = model(**{name: INPUTS[name] for name in ("input_ids", "attention_mask")})
    assert torch.equal(row_losses(output.logits, INPUTS["labels"])[:, 1], torch.tensor([3.0, 2.0]))
    chunked_row_losses = install_chunked_loss(model)
    with torch.no_grad():
        evaluated = model(**INPUTS)
    losses = chunked_row_losses(evaluated.logits, INPUTS["labels"])
    log_p = output.logits.log_softmax(-1)
    first = -(log_p[0, 1, 7] + log_p[0, 2, 8] + log_p[0, 3, 9])
    second = -(log_p[1, 0, 4] + log_p[1, 1, 2])
    torch.testing.assert_close(losses, torch.tensor([[first, 3], [second, 2]]))
    torch.testing.assert_close(evaluated.loss, (first + second) / 5)


def test_models_that_transform_their_logits_keep_their_own_loss() -> None:
    config = AutoConfig.for_model(
        "gemma2", **TOKEN_CONFIG, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=64, head_dim=16, final_logit_softcapping=0.05,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    original_forward = model.forward
    assert install_chunked_loss(model) is row_losses
    assert model.forward == original_forward


@pytest.mark.parametrize("kind", SMALL_CONFIGS)
def test_packed_and_padded_rows_have_the_same_loss(kind: str) -> None:
    model = small_model(kind, use_cache=False)
    install_chunked_loss(model)
    losses = []
    for batch in (collate_padded(ROWS, 2), collate_packed(ROWS)):
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        losses.append((loss, model.get_output_embeddings().weight.grad.clone()))
    for padded, packed in zip(*losses, strict=True):
        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-6)
