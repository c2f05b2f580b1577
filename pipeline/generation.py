"""Greedy answers in batches; the answers are those that one prompt at a time gives."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from tqdm import tqdm
from transformers import GenerationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Answer(NamedTuple):
    new_tokens: list[int]  # without prompt, padding and end of text
    finish_reason: str  # stop: the model ended the answer; length: max_new_tokens did


@torch.inference_mode()
def generate(
    model: "PreTrainedModel", prompts: list[list[int]], max_new_tokens: int, batch_size: int, eos: int, padding: int
) -> list[Answer]:
    """An answer to each prompt (token ids), in their order.

    Prompts of like length share a batch, longest first: so what does not fit into memory fails at once, and little is
    padding. Padding stands on the left, masked, so that each answer follows its prompt.
    """
    # In the place of the model's own: what a configuration leaves open is taken from that, and it might sample, search
    # with beams or punish repetition.
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=eos, pad_token_id=padding, use_cache=True
    )
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers: dict[int, Answer] = {}
    with tqdm(total=len(prompts), desc="answers", unit="answer", disable=None, leave=False) as bar:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            input_ids, mask = _left_padded([prompts[i] for i in batch], padding)
            output = model.generate(input_ids=input_ids.to(model.device), attention_mask=mask.to(model.device))
            for i, tokens in zip(batch, output[:, input_ids.shape[1] :].tolist(), strict=True):
                answers[i] = _answer(tokens, eos)
            bar.update(len(batch))
    return [answers[i] for i in range(len(prompts))]


def _left_padded(prompts: list[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids and attention_mask, each (prompts, longest)."""
    longest = max(len(prompt) for prompt in prompts)
    gaps = [longest - len(prompt) for prompt in prompts]
    input_ids = [[padding] * gap + prompt for gap, prompt in zip(gaps, prompts, strict=True)]
    mask = [[0] * gap + [1] * len(prompt) for gap, prompt in zip(gaps, prompts, strict=True)]
    return torch.tensor(input_ids), torch.tensor(mask)


def _answer(tokens: list[int], eos: int) -> Answer:
    if eos in tokens:
        return Answer(tokens[: tokens.index(eos)], "stop")
    return Answer(tokens, "length")
