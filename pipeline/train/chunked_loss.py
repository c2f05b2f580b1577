"""The training loss, computed from a few million logits at a time, at labeled positions only.

Most of a small model's work is its vocabulary: 50,000 logits per token, their softmax and two gradients. Prompts and
padding have no labels, so their logits are never computed; the others become the loss and its gradients at once, and are
never in memory together. The method is that of Liger Kernel's fused linear cross entropy (Hsu et al. 2024,
https://arxiv.org/abs/2410.10989), in plain PyTorch.
"""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.modeling.encoding import IGNORE_INDEX
from pipeline.modeling.held_out_loss import row_losses

log = logging.getLogger(__name__)

RowLosses = Callable[[Tensor, Tensor], Tensor]
# 128 MiB in float32; with fewer, accumulating the output layer's gradient takes longer than everything else.
MAX_LOGITS_PER_CHUNK = 2**25
COMPARED_TOKENS = 64  # with which the loss is compared with the model's own
LOSS_TOLERANCE = 1e-3  # nats per token by which the loss may differ from the model's own


class LinearCrossEntropy(torch.autograd.Function):
    """The summed cross entropy, in nats, of the logits `hidden @ weight.T + bias` against the targets.

    hidden (tokens, features), weight (vocabulary, features), bias (vocabulary,) or None, targets (tokens,). The forward
    pass computes the gradients, too, while it has the logits; they are products in hidden's type.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        needs_hidden, needs_weight, needs_bias, _ = ctx.needs_input_grad
        total = torch.zeros((), device=hidden.device)
        matrix = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = grad_bias = None
        for chunk in chunk_slices(len(hidden), len(weight)):
            logits = _logits(hidden[chunk], matrix, bias)
            at_target = torch.arange(len(logits), device=logits.device), targets[chunk]
            target_logits, max_logits = logits[at_target].float(), logits.amax(1).float()
            probabilities = torch.softmax(logits, 1, out=logits)
            # the highest probability is never near 0, so its logarithm is as precise as the type
            total += (max_logits - target_logits - probabilities.amax(1).float().log()).sum()
            if not (needs_hidden or needs_weight or needs_bias):
                continue
            probabilities[at_target] -= 1
            grad_logits = probabilities
            if grad_hidden is not None:
                torch.mm(grad_logits, matrix, out=grad_hidden[chunk])
            if needs_weight:
                grad_weight = _accumulate(grad_weight, grad_logits.T @ hidden[chunk], weight.dtype)
            if needs_bias:
                grad_bias = _accumulate(grad_bias, grad_logits.sum(0, dtype=torch.float32), weight.dtype)
        ctx.grads = grad_hidden, grad_weight, grad_bias
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None  # scaled in place: there is no second backward pass
        return *(None if grad is None else grad.mul_(grad_output) for grad in grads), None


def _accumulate(total: Tensor | None, part: Tensor, dtype: torch.dtype) -> Tensor:
    """Add to the total in place; the first part becomes the total, in that type."""
    return part.to(dtype) if total is None else total.add_(part)


def chunk_slices(tokens: int, vocabulary: int) -> Iterator[slice]:
    """Slices of the tokens with at most MAX_LOGITS_PER_CHUNK logits each."""
    size = max(1, MAX_LOGITS_PER_CHUNK // vocabulary)
    return (slice(start, start + size) for start in range(0, tokens, size))


def _logits(hidden: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    return hidden @ matrix.T if bias is None else torch.addmm(bias.to(hidden.dtype), hidden, matrix.T)


def with_label_positions(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with `label_positions`: (tokens,), the indices of the tokens to predict in its flattened labels.

    Computed before the batch moves to a GPU: their number is a shape, for which the host would have to wait in each step.
    """
    return {**batch, "label_positions": label_positions_of(batch["labels"])}


def label_positions_of(labels: Tensor) -> Tensor:
    """The indices of the tokens to predict in the flattened labels (rows, positions); no position predicts a row's first."""
    is_label = labels != IGNORE_INDEX
    is_label[:, 0] = False
    return is_label.flatten().nonzero()[:, 0]


def select_labeled(hidden: Tensor, labels: Tensor, label_positions: Tensor) -> tuple[Tensor, Tensor]:
    """(hidden states at the positions that predict a label, those labels).

    hidden (rows, positions, features), where position i predicts label i + 1; labels (rows, positions).
    """
    states = hidden.flatten(0, 1).index_select(0, label_positions - 1)
    targets = labels.flatten().index_select(0, label_positions)
    return cast_to_autocast_dtype(states), targets  # norms return float32, in which the gradients would be computed


def cast_to_autocast_dtype(states: Tensor) -> Tensor:
    """The tensor in the type that autocast computes in; unchanged where autocast is off."""
    device = states.device.type
    is_enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return states.to(torch.get_autocast_dtype(device)) if is_enabled else states


@torch.no_grad()
def hidden_row_losses(hidden: Tensor, labels: Tensor, label_positions: Tensor, head: nn.Linear) -> Tensor:
    """Per row the summed loss in nats and the number of tokens it is summed over: (rows, 2), in float32."""
    states, targets = select_labeled(hidden, labels, label_positions)
    rows = label_positions // labels.shape[1]
    matrix = head.weight.to(states.dtype)
    sums = torch.zeros(len(labels), 2, device=hidden.device)
    for chunk in chunk_slices(len(states), len(matrix)):
        losses = nn.functional.cross_entropy(
            _logits(states[chunk], matrix, head.bias).float(), targets[chunk], reduction="none"
        )
        sums.index_add_(0, rows[chunk], torch.stack([losses, torch.ones_like(losses)], dim=1))
    return sums


def install_chunked_loss(model: PreTrainedModel) -> RowLosses:
    """Make the model compute its loss in chunks when it gets labels; return a function from its output to row losses.

    The output then has no logits: `output.logits` holds the last hidden states, or, without gradients, the row losses. A
    model that does more after its output layer than the product (soft caps, scales) keeps its own loss; the two are
    compared on a few tokens.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:  # an adapter, or 4 bits
        return row_losses
    original_forward = model.forward

    @functools.wraps(original_forward)
    def forward(
        *args: Any,
        labels: Tensor | None = None,
        label_positions: Tensor | None = None,
        num_items_in_batch: Any = None,
        **kwargs: Any,
    ) -> Any:
        if labels is None:
            return original_forward(*args, **kwargs)
        with _identity_forward(head):
            output = original_forward(*args, **kwargs)
        positions = label_positions_of(labels) if label_positions is None else label_positions
        if torch.is_grad_enabled():
            hidden, targets = select_labeled(output.logits, labels, positions)
            inputs = hidden, head.weight, head.bias, targets
            total = LinearCrossEntropy.apply(*inputs)  # type: ignore[no-untyped-call]  # torch's apply has no types
            tokens = len(targets)
        else:
            output["logits"] = hidden_row_losses(output.logits, labels, positions, head)
            total, tokens = output.logits.sum(dim=0)
        output["loss"] = total / (tokens if num_items_in_batch is None else num_items_in_batch)
        return output

    if not _has_same_loss(original_forward, forward, model):
        log.debug("the model keeps its own loss: it does more after its output layer than the product")
        return row_losses
    model.forward = forward
    return lambda losses, labels: losses


@contextmanager
def _identity_forward(head: nn.Module) -> Iterator[None]:
    """Let a layer return its input."""
    head.forward = lambda hidden: hidden
    try:
        yield
    finally:
        del head.forward


@torch.no_grad()
def _has_same_loss(original: Callable[..., Any], chunked: Callable[..., Any], model: PreTrainedModel) -> bool:
    embedding: Any = model.get_input_embeddings()
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or COMPARED_TOKENS
    input_ids = torch.arange(min(COMPARED_TOKENS, positions, embedding.num_embeddings), device=model.device)[None]
    was_training = model.training
    model.eval()
    expected, loss = (forward(input_ids=input_ids, labels=input_ids).loss.item() for forward in (original, chunked))
    model.train(was_training)
    return bool(abs(expected - loss) <= LOSS_TOLERANCE)
