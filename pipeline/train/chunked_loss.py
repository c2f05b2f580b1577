"""The training loss without the logits that nobody needs: at labelled positions alone, and a few million at a time.

Most of a small model's work is its vocabulary: 50,000 logits a token, their softmax and both gradients. Prompts and
padding have no label, so their logits are not computed; those of the others become the loss and its gradients at once,
and never stand in memory together. The method is that of Liger Kernel's fused linear
cross entropy (Hsu et al. 2024, https://arxiv.org/abs/2410.10989), in plain PyTorch.
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
# At a time: 128 MiB in float32; with fewer, adding up the output layer's gradient takes longer than all else.
MAX_LOGITS = 2**25
ALIKE = 1e-3  # nats a token by which the loss may differ from the model's own


class LinearCrossEntropy(torch.autograd.Function):
    """The summed cross entropy in nats of `hidden @ weight.T + bias` against the targets.

    hidden (tokens, features), weight (vocabulary, features), bias (vocabulary,) or None, targets (tokens,). The gradients
    are computed with the loss, where the logits are at hand, in one pass over them: in hidden's type, in which the
    products are.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad
        total = torch.zeros((), device=hidden.device)
        matrix = weight.to(hidden.dtype)
        for_hidden = torch.empty_like(hidden) if wanted[0] else None
        for_weight = for_bias = None
        for part in chunks(len(hidden), len(weight)):
            logits = _logits(hidden[part], matrix, bias)
            at_target = torch.arange(len(logits), device=logits.device), targets[part]
            picked, top = logits[at_target].float(), logits.amax(1).float()
            slope = torch.softmax(logits, 1, out=logits)
            # the likeliest token's probability is never near 0, so that its logarithm is exact to the type
            total += (top - picked - slope.amax(1).float().log()).sum()
            if not any(wanted):
                continue
            slope[at_target] -= 1
            if for_hidden is not None:
                torch.mm(slope, matrix, out=for_hidden[part])
            if wanted[1]:
                for_weight = _added(for_weight, slope.T @ hidden[part], weight.dtype)
            if wanted[2]:
                for_bias = _added(for_bias, slope.sum(0, dtype=torch.float32), weight.dtype)
        ctx.grads = for_hidden, for_weight, for_bias
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None  # changed in place: there is no second backward pass
        return *(None if grad is None else grad.mul_(slope) for grad in grads), None


def _added(to: Tensor | None, found: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum in that type; the first part needs no zeros to be added to."""
    return found.to(dtype) if to is None else to.add_(found)


def chunks(tokens: int, vocabulary: int) -> Iterator[slice]:
    """So many tokens at a time that their logits are at most LOGITS."""
    size = max(1, MAX_LOGITS // vocabulary)
    return (slice(start, start + size) for start in range(0, tokens, size))


def _logits(hidden: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    return hidden @ matrix.T if bias is None else torch.addmm(bias.to(hidden.dtype), hidden, matrix.T)


def with_label_positions(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch, and as `label_places` where in its flattened labels the tokens to predict are: (tokens,).

    Found before the batch goes to a card: their number is a shape, for which the host would wait at each step.
    """
    return {**batch, "label_places": label_positions_of(batch["labels"])}


def label_positions_of(labels: Tensor) -> Tensor:
    """Where in the flattened labels (rows, positions) the tokens to predict are; nothing predicts the first of a row."""
    is_label = labels != IGNORE_INDEX
    is_label[:, 0] = False
    return is_label.flatten().nonzero()[:, 0]


def select_labelled(hidden: Tensor, labels: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """(hidden states at the positions that predict a label, those labels).

    hidden (rows, positions, features), of which position i predicts label i + 1; labels (rows, positions).
    """
    states, targets = hidden.flatten(0, 1).index_select(0, places - 1), labels.flatten().index_select(0, places)
    return cast_to_autocast_dtype(states), targets  # norms give float32; the gradients would be computed in it


def cast_to_autocast_dtype(states: Tensor) -> Tensor:
    """The same in the type that autocast computes in, where it is on."""
    where = states.device.type
    is_on = torch.amp.is_autocast_available(where) and torch.is_autocast_enabled(where)
    return states.to(torch.get_autocast_dtype(where)) if is_on else states


@torch.no_grad()
def hidden_row_losses(hidden: Tensor, labels: Tensor, places: Tensor, head: nn.Module) -> Tensor:
    """Per row the summed loss in nats and the number of tokens it is summed over: (rows, 2), in float32."""
    states, targets = select_labelled(hidden, labels, places)
    rows = places // labels.shape[1]
    matrix, bias = head.weight.to(states.dtype), getattr(head, "bias", None)
    found = torch.zeros(len(labels), 2, device=hidden.device)
    for part in chunks(len(states), len(matrix)):
        losses = nn.functional.cross_entropy(
            _logits(states[part], matrix, bias).float(), targets[part], reduction="none"
        )
        found.index_add_(0, rows[part], torch.stack([losses, torch.ones_like(losses)], dim=1))
    return found


def install_chunked_loss(model: PreTrainedModel) -> RowLosses:
    """Have the model compute its loss this way when it is given labels; what makes its output the losses of the rows.

    In place of the logits it then gives its last hidden states, or without gradients the losses of the rows, at once with
    the loss. A model that does more after its output layer than to
    multiply (soft caps, scales) is left as it is: its own loss on a few tokens is compared.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:  # an adapter, or 4 bits
        return row_losses
    own = model.forward

    @functools.wraps(own)
    def forward(
        *args: Any,
        labels: Tensor | None = None,
        label_places: Tensor | None = None,
        num_items_in_batch: Any = None,
        **rest: Any,
    ) -> Any:
        if labels is None:
            return own(*args, **rest)
        with _passed_through(head):
            output = own(*args, **rest)
        places = label_positions_of(labels) if label_places is None else label_places
        if torch.is_grad_enabled():
            hidden, targets = select_labelled(output.logits, labels, places)
            summed, tokens = LinearCrossEntropy.apply(hidden, head.weight, head.bias, targets), len(targets)
        else:
            output["logits"] = hidden_row_losses(output.logits, labels, places, head)
            summed, tokens = output.logits.sum(dim=0)
        output["loss"] = summed / (tokens if num_items_in_batch is None else num_items_in_batch)
        return output

    if not _is_alike(own, forward, model):
        log.debug("the model's own loss is kept: it does more after its output layer than to multiply")
        return row_losses
    model.forward = forward
    return lambda found, labels: found


@contextmanager
def _passed_through(head: nn.Module) -> Iterator[None]:
    head.forward = lambda hidden: hidden
    try:
        yield
    finally:
        del head.forward


@torch.no_grad()
def _is_alike(own: Any, other: Any, model: PreTrainedModel) -> bool:
    was, size = model.training, min(64, model.get_input_embeddings().num_embeddings)
    ids = torch.arange(size, device=model.device)[None]
    model.eval()
    losses = [each(input_ids=ids, labels=ids).loss.item() for each in (own, other)]
    model.train(was)
    return abs(losses[0] - losses[1]) <= ALIKE
