"""Collate rows into one batch: padded on the right, or packed one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import masking_utils

from pipeline.modeling.encoding import IGNORE_INDEX, Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def collate_padded(examples: list[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """A batch padded on the right: input_ids and labels, each (rows, longest row).

    It has no attention mask: the tokens of a causal model never attend to the padding on their right, and without a mask
    attention uses the kernel that skips that half. The first token of a row has no label: nothing predicts it, but the
    Trainer would count it for GPT-2, and divide the loss by too many tokens.
    """
    longest = max(len(example.input_ids) for example in examples)

    def pad(rows: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    return {
        "input_ids": pad([example.input_ids for example in examples], pad_id),
        "labels": pad([[IGNORE_INDEX, *example.labels[1:]] for example in examples], IGNORE_INDEX),
    }


def collate_packed(examples: list[Example]) -> dict[str, torch.Tensor]:
    """A batch without padding, its rows joined into one: input_ids, position_ids and labels, each (1, tokens).

    Positions restart at 0 with each row, from which transformers knows to mask attention between the rows. The first token
    of a row has no label, because the token before it belongs to another row.
    """
    return {
        "input_ids": torch.tensor([[token for example in examples for token in example.input_ids]]),
        "position_ids": torch.tensor([[i for example in examples for i in range(len(example.input_ids))]]),
        "labels": torch.tensor([[label for example in examples for label in (IGNORE_INDEX, *example.labels[1:])]]),
    }


@contextmanager
def skip_packing_detection(packed: bool) -> Iterator[None]:
    """Inside the block, transformers takes `packed` for granted instead of detecting it in every batch without a mask.

    Detection looks at the values of the positions, for which the host must wait until the GPU has finished all queued work.
    """
    original = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: (position_ids == 0).cumsum(-1) if packed else None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = original


@torch.no_grad()
def supports_packing(model: "PreTrainedModel", examples: list[Example]) -> bool:
    """Whether these rows have the same logits packed as they have alone.

    They do not if the model ignores position_ids or carries a state from token to token. Then the preceding rows change the
    logits as much as if all rows were one text, or part of it, so the deviation is measured relative to that case.
    """
    rows = [torch.tensor([example.input_ids], device=model.device) for example in examples]
    batch = {name: tensor.to(model.device) for name, tensor in collate_packed(examples).items() if name != "labels"}
    was_training = model.training
    model.eval()
    alone = torch.cat([model(input_ids=row, use_cache=False).logits[0] for row in rows])
    with skip_packing_detection(packed=True):
        packed = model(**batch, use_cache=False).logits[0]
    with skip_packing_detection(packed=False):
        one_text = model(input_ids=torch.cat(rows, dim=1), use_cache=False).logits[0]
    model.train(was_training)
    return bool((packed - alone).norm() <= rounding_tolerance(model) * (one_text - alone).norm())


def rounding_tolerance(model: "PreTrainedModel") -> float:
    """The relative difference in logits that rounding explains, for float32 weights and for narrower types."""
    return 1e-3 if all(weight.dtype == torch.float32 for weight in model.parameters()) else 0.05
