"""Greedy generation in batches, with the answers of one prompt at a time (in float32, on a CPU)."""

import itertools
import logging
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm import tqdm
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from pipeline.modeling.answer_journal import Answer, AnswerJournal
from pipeline.modeling.collation import rounding_tolerance
from pipeline.modeling.encoding import Encoder
from pipeline.modeling.kv_cache import bytes_per_prompt, preallocated_cache
from pipeline.modeling.memory import free_memory, is_out_of_memory
from pipeline.modeling.onednn import prepacked_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

MAX_BATCH_SIZE = {"cpu": 128, "cuda": 512}  # prompts; larger batches were not faster
USABLE_MEMORY_SHARE = 0.5  # of the free memory
COMPACT_BELOW = 0.75  # share of a batch's answers still running, below which the ended ones leave the batch


class StopConditions(NamedTuple):
    """When an answer ends, and the token that pads a batch."""

    max_new_tokens: int
    eos_id: int
    pad_id: int
    other_end_ids: tuple[int, ...] = ()

    @property
    def end_ids(self) -> list[int]:
        """The tokens that end an answer, the tokenizer's end-of-text token first."""
        return [self.eos_id, *self.other_end_ids]


def stop_conditions(
    model: "PreTrainedModel", encoder: Encoder, max_new_tokens: int, answer_end_ids: Iterable[int] = ()
) -> StopConditions:
    """The end of an answer of this model: the tokenizer's end-of-text token, and those of its generation config.

    answer_end_ids: the tokens that end the answers of the rows, at which every model stops.
    """
    added = encoder.tokenizer.get_added_tokens_decoder()
    end_ids = end_token_ids(model, encoder.eos_id, added, answer_end_ids)
    return StopConditions(max_new_tokens, encoder.eos_id, encoder.pad_id, tuple(end_ids[1:]))


def end_token_ids(
    model: "PreTrainedModel", eos_id: int, added_tokens: Container[int], answer_end_ids: Iterable[int] = ()
) -> list[int]:
    """eos_id, then the other tokens at which the model's generation config ends a text, such as <|im_end|>, and answer_end_ids.

    Those that are not among the tokenizer's added tokens are left out: a configuration may hold the number of another
    tokenizer's end of text, which is ordinary text here.
    """
    config = getattr(model, "generation_config", None)
    listed = config.eos_token_id if config is not None else None
    ids = listed if isinstance(listed, list) else [] if listed is None else [listed]
    known = [token_id for token_id in [*ids, *answer_end_ids] if token_id != eos_id and token_id in added_tokens]
    return [eos_id, *dict.fromkeys(known)]


@torch.inference_mode()
def generate_answers(
    model: "PreTrainedModel",
    prompts: list[list[int]],
    stop: StopConditions,
    batch_size: int | None,
    journal: AnswerJournal | None = None,
) -> list[Answer]:
    """Generate an answer to each prompt (token ids), in their order.

    batch_size: prompts; None: as many as should fit into memory. A batch that does not fit is halved. If the model's
    logits change in a batch, answers are generated one at a time. Batches are formed by length, longest first, so that they need
    little padding and running out of memory shows at once.
    journal: its answers are not generated again, and new answers are added to it.
    """
    answers = dict(journal.answers) if journal else {}
    pending = sorted(set(range(len(prompts))) - set(answers), key=lambda i: (-len(prompts[i]), i))
    size = batch_size or (auto_batch_size(model, len(prompts[pending[0]]) + stop.max_new_tokens) if pending else 1)
    if pending and size > 1 and not is_batch_invariant(model, prompts[pending[-1]], stop):
        log.warning("The logits of %s change in a batch; generating one answer at a time", type(model).__name__)
        size = 1
    bar = tqdm(total=len(prompts), initial=len(answers), desc="answers", unit="answer", disable=None, leave=False)
    with prepacked_linears(model), bar:
        while pending:
            batch = pending[:size]
            batch_answers = _generate_batch_if_it_fits(model, [prompts[i] for i in batch], stop)
            if batch_answers is None:
                size = (len(batch) + 1) // 2
                log.warning(f"{len(batch)} prompts together do not fit into memory; continuing with {size} at a time")
                continue
            new_answers = dict(zip(batch, batch_answers, strict=True))
            if journal:
                journal.add(new_answers)
            answers.update(new_answers)
            pending = pending[size:]
            bar.update(len(batch))
    return [answers[i] for i in range(len(prompts))]


def is_batch_invariant(model: "PreTrainedModel", prompt: list[int], stop: StopConditions) -> bool:
    """Whether a prompt has the same logits beside a longer prompt as alone, for its first two new tokens.

    It does not in RWKV, which has no mask for its state and mixes rows in token-by-token decoding. The last 8 tokens of the
    prompt suffice to detect that, and the 16 of the longer prompt fit into any number of positions.
    """
    model.generation_config = generation_config_of(stop)
    short_prompt = prompt[-8:]
    new_token = next(
        token for token in itertools.count() if token not in stop.end_ids
    )  # any that does not end the text
    batched, alone = (
        torch.stack(
            model.generate(  # type: ignore[operator]  # models have it from GenerationMixin, unknown to PreTrainedModel
                input_ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=2,
                prefix_allowed_tokens_fn=lambda row, tokens: [new_token],
                output_logits=True,
                return_dict_in_generate=True,
            ).logits
        )[:, 0]
        for input_ids, mask in (
            _pad_left(rows, stop.pad_id) for rows in ([short_prompt, short_prompt * 2], [short_prompt])
        )
    )
    return bool((batched - alone).norm() <= rounding_tolerance(model) * alone.norm())


def generation_config_of(stop: StopConditions) -> GenerationConfig:
    """A configuration for greedy search. It must replace the model's own, which supplies every option that is not passed to
    generate and may sample, search with beams or penalize repetition."""
    return GenerationConfig(do_sample=False, eos_token_id=stop.end_ids, pad_token_id=stop.pad_id, use_cache=True)


def auto_batch_size(model: "PreTrainedModel", tokens: int) -> int:
    """The number of prompts that fit into memory together, if each has `tokens` tokens with its answer."""
    fit = int(free_memory(model.device) * USABLE_MEMORY_SHARE) // bytes_per_prompt(model, tokens)
    return max(1, min(fit, MAX_BATCH_SIZE.get(model.device.type, MAX_BATCH_SIZE["cuda"])))


def _generate_batch_if_it_fits(
    model: "PreTrainedModel", prompts: list[list[int]], stop: StopConditions
) -> list[Answer] | None:
    """None if memory runs out. Raises the error if it runs out for a single prompt."""
    try:
        return generate_batch(model, prompts, stop)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(prompts) == 1:
            raise
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def generate_batch(model: "PreTrainedModel", prompts: list[list[int]], stop: StopConditions) -> list[Answer]:
    """Generate the answers to these prompts in one batch, padded on the left and masked, so that answers follow prompts.

    transformers computes ended answers until the last one of the batch ends. So generation is interrupted whenever a quarter
    of the answers has ended, and continues with the others.
    """
    model.generation_config = generation_config_of(stop)
    input_ids, mask = (tensor.to(model.device) for tensor in _pad_left(prompts, stop.pad_id))
    width, rows = input_ids.shape[1], torch.arange(len(prompts), device=model.device)
    cache = preallocated_cache(model, width + stop.max_new_tokens)
    options: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
    answers: dict[int, Answer] = {}
    while len(rows):
        share = 1.0 if cache is None else 1 - COMPACT_BELOW
        criterion = AllEnded(stop.end_ids, len(rows), share, device=model.device)
        remaining_tokens = width + stop.max_new_tokens - input_ids.shape[1]
        output = model.generate(  # type: ignore[operator]  # as above
            input_ids,
            attention_mask=mask,
            max_new_tokens=remaining_tokens,
            stopping_criteria=StoppingCriteriaList([criterion]),
            **options,
        )
        ended = criterion.ended | (output.shape[1] - input_ids.shape[1] == remaining_tokens)
        for row, tokens in zip(rows[ended].tolist(), output[ended, width:].tolist(), strict=True):
            answers[row] = answer_of(tokens, stop.end_ids)
        running = (~ended).nonzero().flatten()
        mask = torch.cat([mask, mask.new_ones(len(rows), output.shape[1] - mask.shape[1])], dim=1)[running]
        rows, input_ids = rows[running], output[running]
        if cache is not None and len(running):
            cache.batch_select_indices(running)
    return [answers[row] for row in range(len(prompts))]


class AllEnded(StoppingCriteria):
    """Stops the whole batch once a share of its rows has ended, and records which rows have."""

    def __init__(self, end_ids: list[int], rows: int, share: float, device: torch.device) -> None:
        self.end_ids, self.share = torch.tensor(end_ids, device=device), share
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.ended |= torch.isin(input_ids[:, -1], self.end_ids)
        return torch.full_like(self.ended, bool(self.ended.sum() >= self.share * len(self.ended)))


def _pad_left(prompts: list[list[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids and attention_mask, each (prompts, longest prompt)."""
    longest = max(len(prompt) for prompt in prompts)
    gaps = [longest - len(prompt) for prompt in prompts]
    input_ids = [[pad_id] * gap + prompt for gap, prompt in zip(gaps, prompts, strict=True)]
    mask = [[0] * gap + [1] * len(prompt) for gap, prompt in zip(gaps, prompts, strict=True)]
    return torch.tensor(input_ids), torch.tensor(mask)


def answer_of(tokens: list[int], end_ids: list[int]) -> Answer:
    """The answer in generated tokens: those before the first token that ends it, or all of them.

    >>> answer_of([5, 9, 2], end_ids=[2, 9])
    Answer(new_tokens=[5], finish_reason='stop')
    >>> answer_of([5, 6], end_ids=[2, 9])
    Answer(new_tokens=[5, 6], finish_reason='length')
    """
    ends = [tokens.index(end) for end in end_ids if end in tokens]
    return Answer(tokens[: min(ends)], "stop") if ends else Answer(tokens, "length")
