"""The cross-entropy loss of a model on held-out texts, in nats per token."""

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from pipeline.errors import ModelError
from pipeline.modeling.collation import collate_padded
from pipeline.modeling.encoding import IGNORE_INDEX, Example
from pipeline.modeling.onednn import prepacked_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_LOGITS_PER_BATCH = 2**27  # tokens × vocabulary: by far the largest tensor, half a gigabyte in float32


def row_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The summed loss of each row in nats, and the number of labeled tokens in the sum: (rows, 2), in float32.

    logits: (rows, positions, vocabulary), where position i predicts label i + 1. labels: (rows, positions).
    """
    targets = labels[:, 1:]
    losses = cross_entropy(
        logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    summed = losses.view(targets.shape).sum(dim=1)
    return torch.stack([summed, (targets != IGNORE_INDEX).sum(dim=1).float()], dim=1)


@torch.inference_mode()
def held_out_losses(model: "PreTrainedModel", examples: list[Example], pad_id: int) -> list[tuple[float, int]]:
    """The summed loss in nats and the number of labeled tokens of each example, in the order of the examples.

    Raises ModelError if an example has no labeled token, or a loss is not finite.
    """
    losses: list[tuple[float, int]] = []
    vocabulary = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    batches = batches_by_length(examples, MAX_LOGITS_PER_BATCH // vocabulary)
    with prepacked_linears(model):
        for batch in tqdm(batches, desc="held-out loss", unit="batch", disable=None, leave=False):
            inputs = {name: tensor.to(model.device) for name, tensor in collate_padded(batch, pad_id).items()}
            labels = inputs.pop("labels")
            losses += [(nats, int(tokens)) for nats, tokens in row_losses(model(**inputs).logits, labels).tolist()]
    if not all(tokens for _, tokens in losses):
        raise ModelError("a test row has no labeled token to compute a loss on")
    if not all(math.isfinite(nats) for nats, _ in losses):
        raise ModelError("the model's loss on the test rows is not finite; its weights are broken: train it again")
    return [loss for _, loss in sorted(zip(longest_first_order(examples), losses, strict=True))]


def held_out_loss(model: "PreTrainedModel", examples: list[Example], pad_id: int) -> float:
    """The mean loss over the labeled tokens of all examples, in nats per token; so long answers weigh more than short ones."""
    losses = held_out_losses(model, examples, pad_id)
    return math.fsum(nats for nats, _ in losses) / sum(tokens for _, tokens in losses)


def longest_first_order(examples: list[Example]) -> list[int]:
    """The indices of the examples by decreasing length; examples of equal length keep their order."""
    return sorted(range(len(examples)), key=lambda i: -len(examples[i].input_ids))


def batches_by_length(examples: list[Example], max_tokens: int) -> list[list[Example]]:
    """The examples, longest first, in batches of at most `max_tokens` tokens including padding. A longer example is a batch
    of its own."""
    batches: list[list[Example]] = []
    for example in (examples[i] for i in longest_first_order(examples)):
        if batches and len(batches[-1][0].input_ids) * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(example)
        else:
            batches.append([example])
    return batches
