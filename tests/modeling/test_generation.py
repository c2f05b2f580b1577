"""pipeline/modeling/generation.py: answers end at each of the model's end tokens, as in plain transformers."""

from typing import Any

import pytest
import torch
from support.small_models import small_model
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from transformers import GenerationConfig

from pipeline.modeling.encoding import Encoder
from pipeline.modeling.generation import StopConditions, generate_answers, stop_conditions

PROMPTS = [[1, 5, 6, 7], [1, 9], [1, 4, 4, 8, 3], [1, 50]]


def encoder_of(*added: int) -> Encoder:
    tokenizer = Tokenizer(WordLevel({f"w{number}": number for number in range(101)}, unk_token="w0"))
    tokenizer.add_special_tokens([AddedToken(f"w{number}", special=True) for number in added])
    return Encoder(tokenizer, (), eos_id=2, pad_id=2)


@pytest.mark.parametrize(
    ("listed", "end_ids"),
    [(None, [2]), (2, [2]), (9, [2, 9]), ([2, 9], [2, 9]), ([9, 11, 2, 9], [2, 9, 11]), ([9, 12, 999], [2, 9])],
)
def test_end_tokens_are_the_tokenizers_and_the_models(listed: Any, end_ids: list[int]) -> None:
    model = small_model("llama")
    model.generation_config = GenerationConfig(eos_token_id=listed)
    assert stop_conditions(model, encoder_of(2, 9, 11), 8).end_ids == end_ids
    assert stop_conditions(model, encoder_of(2), 8) == StopConditions(8, 2, 2)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_answers_end_where_plain_transformers_ends_them(kind: str) -> None:
    model = small_model(kind)
    free = generate_answers(model, PROMPTS, StopConditions(12, 2, 2), 4)
    others = tuple({answer.new_tokens[3] for answer in free} - {2})  # so that answers end early, at different tokens
    stop = StopConditions(12, 2, 2, others)
    answers = generate_answers(model, PROMPTS, stop, 4)
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert answers == generate_answers(model, PROMPTS, stop, 1)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        model.generation_config = GenerationConfig(eos_token_id=[2, *others], pad_token_id=2, do_sample=False)
        plain = model.generate(torch.tensor([prompt]), max_new_tokens=12)[0, len(prompt) :].tolist()
        assert plain[:-1] == answer.new_tokens
        assert plain[-1] in stop.end_ids
