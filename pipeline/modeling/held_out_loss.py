"""How probable a model holds the held-out texts: loss in nats a token."""

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from pipeline.errors import ModelError
from pipeline.modeling.batches import collate_padded
from pipeline.modeling.encoding import IGNORE_INDEX, Example
from pipeline.modeling.onednn import prepacked_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_LOGITS_PER_BATCH = 2**27  # tokens × vocabulary: by far the largest tensor, half a gigabyte in float32


def row_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Per row the summed loss in nats and the number of tokens it is summed over: (rows, 2), in float32.

    logits (rows, positions, vocabulary), of which position i predicts label i + 1; labels (rows, positions).
    """
    targets = labels[:, 1:]
    losses = cross_entropy(
        logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    summed = losses.view(targets.shape).sum(dim=1)
    return torch.stack([summed, (targets != IGNORE_INDEX).sum(dim=1).float()], dim=1)


@torch.inference_mode()
def held_out_losses(model: "PreTrainedModel", examples: list[Example], padding: int) -> list[tuple[float, int]]:
    """Of each example the summed loss in nats and the number of labelled tokens, in the examples' order.

    ModelError if an example has no such token, or a loss that is not finite.
    """
    losses: list[tuple[float, int]] = []
    budget = MAX_LOGITS_PER_BATCH // model.get_input_embeddings().num_embeddings
    batches = batches_by_length(examples, budget)
    with prepacked_linears(model):
        for batch in tqdm(batches, desc="held-out loss", unit="batch", disable=None, leave=False):
            inputs = {name: tensor.to(model.device) for name, tensor in collate_padded(batch, padding).items()}
            labels = inputs.pop("labels")
            losses += [(nats, int(tokens)) for nats, tokens in row_losses(model(**inputs).logits, labels).tolist()]
    if not all(tokens for _, tokens in losses):
        raise ModelError("the test rows hold no token to predict")
    if not all(math.isfinite(nats) for nats, _ in losses):
        raise ModelError("the model's loss on the test rows is not a number; its weights are broken: train it again")
    return [loss for _, loss in sorted(zip(longest_first(examples), losses, strict=True))]


def held_out_loss(model: "PreTrainedModel", examples: list[Example], padding: int) -> float:
    """The mean loss over all labelled tokens of all examples, in nats a token: a long answer weighs more than a short."""
    losses = held_out_losses(model, examples, padding)
    return math.fsum(nats for nats, _ in losses) / sum(tokens for _, tokens in losses)


def longest_first(examples: list[Example]) -> list[int]:
    """The places of the examples, that of the longest first; equally long ones stay in their order."""
    return sorted(range(len(examples)), key=lambda place: -len(examples[place].input_ids))


def batches_by_length(examples: list[Example], tokens: int) -> list[list[Example]]:
    """The examples, longest first, in batches of at most `tokens` tokens with padding (one row may be longer)."""
    batches: list[list[Example]] = []
    for example in (examples[place] for place in longest_first(examples)):
        if batches and len(batches[-1][0].input_ids) * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(example)
        else:
            batches.append([example])
    return batches
