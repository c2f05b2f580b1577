"""Greedy answers in batches; the answers are those that one prompt at a time gives (in float32, on a CPU)."""

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm import tqdm
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from pipeline.modeling.answer_journal import Answer, AnswerJournal
from pipeline.modeling.batches import rounding_tolerance
from pipeline.modeling.kv_cache import bytes_per_prompt, preallocated_cache
from pipeline.modeling.memory import free_memory, is_out_of_memory
from pipeline.modeling.onednn import prepacked_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

MAX_BATCH_SIZE = {"cpu": 128, "cuda": 512}  # prompts in a batch; more were not faster
USABLE_MEMORY_SHARE = 0.5  # of the free memory
COMPACT_BELOW = 0.75  # of a batch's answers; when fewer still run, it goes on without those that have ended


class StopConditions(NamedTuple):
    """What ends an answer, and what fills up the batch."""

    max_new_tokens: int
    eos: int
    padding: int


@torch.inference_mode()
def generate_answers(
    model: "PreTrainedModel",
    prompts: list[list[int]],
    ending: StopConditions,
    batch_size: int | None,
    kept: AnswerJournal | None = None,
) -> list[Answer]:
    """An answer to each prompt (token ids), in their order. What is kept is not asked again, and what is new is kept.

    Prompts of like length share a batch, longest first: so what does not fit into memory fails at once, and little is
    padding. A batch that does not fit is halved; without a batch size, it begins with as many as should fit. A model whose
    answers are others in a batch is asked one prompt at a time.
    """
    answers = dict(kept.answers) if kept else {}
    left = sorted(set(range(len(prompts))) - set(answers), key=lambda i: (-len(prompts[i]), i))
    size = batch_size or (auto_batch_size(model, len(prompts[left[0]]) + ending.max_new_tokens) if left else 1)
    if left and size > 1 and not is_batch_invariant(model, prompts[left[-1]], ending):
        log.warning("%s computes other logits in a batch; going on with one prompt at a time", type(model).__name__)
        size = 1
    counted = {"total": len(prompts), "initial": len(answers), "desc": "answers", "unit": "answer"}
    with prepacked_linears(model), tqdm(**counted, disable=None, leave=False) as bar:
        while left:
            batch = left[:size]
            found = _answers_if_they_fit(model, [prompts[i] for i in batch], ending)
            if found is None:
                size = (len(batch) + 1) // 2
                log.warning(f"{len(batch)} prompts side by side do not fit into memory; going on with {size}")
                continue
            new = dict(zip(batch, found, strict=True))
            if kept:
                kept.add(new)
            answers.update(new)
            left = left[size:]
            bar.update(len(batch))
    return [answers[i] for i in range(len(prompts))]


def is_batch_invariant(model: "PreTrainedModel", prompt: list[int], ending: StopConditions) -> bool:
    """Whether a prompt beside a longer one gets the logits that it gets alone, for its first new token and the second.

    Not from RWKV, whose state takes no mask, and mixes rows where it goes on token by token. The prompt's last tokens
    are enough to see that, and twice as many fit whatever number of positions the model has.
    """
    model.generation_config = generation_config_of(ending)
    few, new = prompt[-8:], int(ending.eos == 0)  # any token that does not end the text
    beside, alone = (
        torch.stack(
            model.generate(
                input_ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=2,
                prefix_allowed_tokens_fn=lambda row, tokens: [new],
                output_logits=True,
                return_dict_in_generate=True,
            ).logits
        )[:, 0]
        for input_ids, mask in (_left_padded(rows, ending.padding) for rows in ([few, few * 2], [few]))
    )
    return bool((beside - alone).norm() <= rounding_tolerance(model) * alone.norm())


def generation_config_of(ending: StopConditions) -> GenerationConfig:
    """Greedy; in the place of the model's own: what a configuration leaves open is taken from that, and it might sample,
    search with beams or punish repetition."""
    return GenerationConfig(do_sample=False, eos_token_id=ending.eos, pad_token_id=ending.padding, use_cache=True)


def auto_batch_size(model: "PreTrainedModel", tokens: int) -> int:
    """How many prompts are answered side by side, if each takes so many tokens with its answer."""
    fit = int(free_memory(model.device) * USABLE_MEMORY_SHARE) // bytes_per_prompt(model, tokens)
    return max(1, min(fit, MAX_BATCH_SIZE.get(model.device.type, MAX_BATCH_SIZE["cuda"])))


def _answers_if_they_fit(
    model: "PreTrainedModel", prompts: list[list[int]], ending: StopConditions
) -> list[Answer] | None:
    """None if memory ran out; of a single prompt, the error."""
    try:
        return generate_batch(model, prompts, ending)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(prompts) == 1:
            raise
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def generate_batch(model: "PreTrainedModel", prompts: list[list[int]], ending: StopConditions) -> list[Answer]:
    """The prompts' answers, from one batch. Padding stands on the left, masked, so that each answer follows its prompt.

    transformers computes an ended answer on until the last of the batch ends. So it is stopped when a quarter has ended,
    and goes on with the others.
    """
    model.generation_config = generation_config_of(ending)
    input_ids, mask = (tensor.to(model.device) for tensor in _left_padded(prompts, ending.padding))
    width, rows = input_ids.shape[1], torch.arange(len(prompts), device=model.device)
    cache = preallocated_cache(model, width + ending.max_new_tokens)
    options: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
    answers: dict[int, Answer] = {}
    while len(rows):
        ended = AllEnded(ending.eos, len(rows), until=1.0 if cache is None else 1 - COMPACT_BELOW, device=model.device)
        room = width + ending.max_new_tokens - input_ids.shape[1]
        output = model.generate(
            input_ids,
            attention_mask=mask,
            max_new_tokens=room,
            stopping_criteria=StoppingCriteriaList([ended]),
            **options,
        )
        finished = ended.rows | (output.shape[1] - input_ids.shape[1] == room)
        for row, tokens in zip(rows[finished].tolist(), output[finished, width:].tolist(), strict=True):
            answers[row] = answer_of(tokens, ending.eos)
        running = (~finished).nonzero().flatten()
        grown = mask.new_ones(len(rows), output.shape[1] - mask.shape[1])
        rows, input_ids, mask = rows[running], output[running], torch.cat([mask, grown], dim=1)[running]
        if cache is not None and len(running):
            cache.batch_select_indices(running)
    return [answers[row] for row in range(len(prompts))]


class AllEnded(StoppingCriteria):
    """Which rows have ended; stops all of them when a share has."""

    def __init__(self, eos: int, rows: int, until: float, device: torch.device) -> None:
        self.eos, self.until = eos, until
        self.rows = torch.zeros(rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.rows |= input_ids[:, -1] == self.eos
        return torch.full_like(self.rows, bool(self.rows.sum() >= self.until * len(self.rows)))


def _left_padded(prompts: list[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids and attention_mask, each (prompts, longest)."""
    longest = max(len(prompt) for prompt in prompts)
    gaps = [longest - len(prompt) for prompt in prompts]
    input_ids = [[padding] * gap + prompt for gap, prompt in zip(gaps, prompts, strict=True)]
    mask = [[0] * gap + [1] * len(prompt) for gap, prompt in zip(gaps, prompts, strict=True)]
    return torch.tensor(input_ids), torch.tensor(mask)


def answer_of(tokens: list[int], eos: int) -> Answer:
    """What a model wrote up to the end of text, or all of it if there is none."""
    if eos in tokens:
        return Answer(tokens[: tokens.index(eos)], "stop")
    return Answer(tokens, "length")
