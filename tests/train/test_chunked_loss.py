"""pipeline/train/chunked_loss.py against PyTorch's own cross entropy, and against the models' own loss."""

from typing import Any

import pytest
import torch
from support.small_models import PLAIN, ROWS, SMALL, VOCABULARY, small
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.modeling.batches import collate_packed, collate_padded, skip_packing_detection
from pipeline.modeling.held_out_loss import row_losses
from pipeline.train import chunked_loss
from pipeline.train.chunked_loss import LinearCrossEntropy, install_chunked_loss, with_label_positions


def tensors(bias: bool, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    torch.manual_seed(0)
    hidden, weight = torch.randn(17, 8, dtype=dtype), torch.randn(VOCABULARY, 8, dtype=dtype)
    each = hidden, weight, torch.randn(VOCABULARY, dtype=dtype) if bias else None
    return *(None if one is None else one.requires_grad_() for one in each), torch.randint(VOCABULARY, (17,))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("logits", [1, 300, 10**6], ids=["a token at a time", "two", "all"])
def test_loss_and_gradients_are_those_of_the_logits(bias: bool, logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_loss, "MAX_LOGITS", logits)
    hidden, weight, offset, targets = tensors(bias, torch.float32)
    found = LinearCrossEntropy.apply(hidden, weight, offset, targets)
    (3 * found).backward()
    mine = [each.grad for each in (hidden, weight, offset) if each is not None]
    for each in (hidden, weight, offset):
        if each is not None:
            each.grad = None
    expected = cross_entropy(torch.nn.functional.linear(hidden, weight, offset), targets, reduction="sum")
    (3 * expected).backward()
    torch.testing.assert_close(found, expected)
    for grad, each in zip(mine, [each for each in (hidden, weight, offset) if each is not None], strict=True):
        torch.testing.assert_close(grad, each.grad, rtol=1e-4, atol=1e-5)


def test_what_is_frozen_gets_no_gradient() -> None:
    hidden, weight, _, targets = tensors(bias=False, dtype=torch.float32)
    weight.requires_grad_(False)
    LinearCrossEntropy.apply(hidden, weight, None, targets).backward()
    assert weight.grad is None
    assert hidden.grad is not None


INPUTS = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 9], [3, 4, 2, 2, 2]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "labels": torch.tensor([[-100, -100, 7, 8, 9], [-100, 4, 2, -100, -100]]),
}


@pytest.mark.parametrize("kind", SMALL)
def test_a_model_has_the_same_loss_and_gradients_as_by_itself(kind: str) -> None:
    model, own = small(kind), small(kind)
    assert install_chunked_loss(model) is not row_losses
    for each in (model, own):
        each(**INPUTS, num_items_in_batch=torch.tensor(10)).loss.backward()
    grads = {name: each.grad for name, each in own.named_parameters()}
    for name, each in model.named_parameters():
        torch.testing.assert_close(each.grad, grads[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model(**INPUTS).loss, own(**INPUTS).loss)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", SMALL)
def test_a_step_is_queued_without_waiting_for_a_number(kind: str, packed: bool) -> None:
    """Tensors on the device `meta` hold no numbers: what would make the host wait for a card cannot be done with them."""
    model = small(kind, use_cache=False, pad_token_id=None)  # as GPT-2 comes; with one, its own code looks for it
    install_chunked_loss(model)
    batch = {
        name: each.to("meta")
        for name, each in with_label_positions(collate_packed(ROWS) if packed else collate_padded(ROWS, 2)).items()
    }
    model.to("meta")
    with skip_packing_detection(packed):
        model(**batch, num_items_in_batch=torch.tensor(7, device="meta")).loss.backward()
        assert model.get_output_embeddings().weight.grad.shape == (VOCABULARY, 32)
        with pytest.raises(NotImplementedError, match="nonzero"):
            model(**{name: each for name, each in batch.items() if name != "label_places"})
    with pytest.raises(RuntimeError, match="item"):  # transformers looks whether the rows are packed
        model(**batch)


def test_in_bf16_the_products_for_the_gradients_are_in_bf16_too(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.dtype] = []
    forward = LinearCrossEntropy.forward

    def noting(ctx: Any, hidden: torch.Tensor, *rest: Any) -> torch.Tensor:
        taken.append(hidden.dtype)
        return forward(ctx, hidden, *rest)

    monkeypatch.setattr(LinearCrossEntropy, "forward", staticmethod(noting))
    model, own = small("llama"), small("llama")
    install_chunked_loss(model)
    for each in (model, own):
        with torch.autocast("cpu", torch.bfloat16):
            each(**INPUTS).loss.backward()
    assert taken == [torch.bfloat16]
    for mine, its in zip(model.parameters(), own.parameters(), strict=True):
        assert mine.grad.dtype == torch.float32
        assert (mine.grad - its.grad).norm() < 0.02 * its.grad.norm()


def test_without_labels_a_model_gives_logits_as_ever() -> None:
    model, own = small("gpt_neox"), small("gpt_neox")
    install_chunked_loss(model)
    prompt = {name: INPUTS[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(model(**prompt).logits, own(**prompt).logits)


def test_row_losses_are_summed_over_the_labels_of_each_row() -> None:
    model = small("gpt_neox")
    with torch.no_grad():
        output = model(**{name: INPUTS[name] for name in ("input_ids", "attention_mask")})
    assert torch.equal(row_losses(output.logits, INPUTS["labels"])[:, 1], torch.tensor([3.0, 2.0]))
    of_rows = install_chunked_loss(model)
    with torch.no_grad():
        evaluated = model(**INPUTS)
    found = of_rows(evaluated.logits, INPUTS["labels"])
    log_p = output.logits.log_softmax(-1)
    first = -(log_p[0, 1, 7] + log_p[0, 2, 8] + log_p[0, 3, 9])
    second = -(log_p[1, 0, 4] + log_p[1, 1, 2])
    torch.testing.assert_close(found, torch.tensor([[first, 3], [second, 2]]))
    torch.testing.assert_close(evaluated.loss, (first + second) / 5)


def test_a_model_that_does_more_after_its_output_layer_keeps_its_own_loss() -> None:
    config = AutoConfig.for_model(
        "gemma2", **PLAIN, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=64, head_dim=16, final_logit_softcapping=0.05,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    own = model.forward
    assert install_chunked_loss(model) is row_losses
    assert model.forward == own


@pytest.mark.parametrize("kind", SMALL)
def test_the_loss_of_packed_rows_is_that_of_padded_ones(kind: str) -> None:
    model = small(kind, use_cache=False)
    install_chunked_loss(model)
    losses = []
    for batch in (collate_padded(ROWS, 2), collate_packed(ROWS)):
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        losses.append((loss, model.get_output_embeddings().weight.grad.clone()))
    for padded, packed in zip(*losses, strict=True):
        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-6)
