"""Rows as one batch: padded on the right, or packed, one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import masking_utils

from pipeline.modeling.encoding import IGNORE_INDEX, Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def collate_padded(examples: list[Example], padding: int) -> dict[str, torch.Tensor]:
    """One batch, padded on the right: input_ids and labels, each (rows, longest).

    No attention mask: a causal model's tokens never see what stands to their right, and without one attention takes the
    kernel that skips that half.
    """
    longest = max(len(each.input_ids) for each in examples)

    def padded(rows: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    return {
        "input_ids": padded([each.input_ids for each in examples], padding),
        "labels": padded([each.labels for each in examples], IGNORE_INDEX),
    }


def collate_packed(examples: list[Example]) -> dict[str, torch.Tensor]:
    """One batch without padding: the rows one after the other in a single one, input_ids, position_ids, labels (1, tokens).

    Positions begin anew with each row, by which transformers keeps the rows' attention apart. The first token of a row
    is nobody's to predict.
    """
    return {
        "input_ids": torch.tensor([[token for each in examples for token in each.input_ids]]),
        "position_ids": torch.tensor([[place for each in examples for place in range(len(each.input_ids))]]),
        "labels": torch.tensor([[label for each in examples for label in (IGNORE_INDEX, *each.labels[1:])]]),
    }


@contextmanager
def skip_packing_detection(packed: bool) -> Iterator[None]:
    """Spare transformers to look, in every batch without an attention mask, whether its rows are packed.

    It decides by the positions' values, for which the host waits until a card has done all that is queued.
    """
    looked = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda positions: (positions == 0).cumsum(-1) if packed else None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = looked


@torch.no_grad()
def supports_packing(model: "PreTrainedModel", examples: list[Example]) -> bool:
    """Whether these rows, packed, have the logits that they have alone.

    They have not where a model takes no positions or carries a state from token to token: there the rows before make a
    difference, in part or whole that which they make to one text.
    """
    tokens = [torch.tensor([each.input_ids], device=model.device) for each in examples]
    placed = {name: tensor.to(model.device) for name, tensor in collate_packed(examples).items() if name != "labels"}
    was = model.training
    model.eval()
    alone = torch.cat([model(input_ids=row, use_cache=False).logits[0] for row in tokens])
    with skip_packing_detection(packed=True):
        packed = model(**placed, use_cache=False).logits[0]
    with skip_packing_detection(packed=False):
        one_text = model(input_ids=torch.cat(tokens, dim=1), use_cache=False).logits[0]
    model.train(was)
    return bool((packed - alone).norm() <= rounding_tolerance(model) * (one_text - alone).norm())


def rounding_tolerance(model: "PreTrainedModel") -> float:
    """What part of a difference in logits is no more than rounding: with weights in float32, or in fewer bits."""
    return 1e-3 if all(weight.dtype == torch.float32 for weight in model.parameters()) else 0.05
