"""The generation metric of early stopping: greedy answers to validation questions, scored as in the evaluate stage."""

from collections.abc import Sequence

import pyarrow as pa
from transformers import PreTrainedModel

from pipeline.config.options import EarlyStopping
from pipeline.errors import ConfigError
from pipeline.modeling.encoding import IGNORE_INDEX, Encoder, truncate_prompt
from pipeline.modeling.generation import generate_answers, stop_conditions
from pipeline.scoring.answer_scores import score_answer


class GenerationMetric:
    """Answers the first validation questions and scores the answers; the prompts come from the tokenized rows.

    In a dialogue the question is all before the last answer. end_ids: the tokens that end an answer.

    Raises ConfigError if a row has no prompt (plain text, or tokenize.loss=full, where every token is labeled), or if
    max_new_tokens leaves no position for a prompt.
    """

    def __init__(
        self,
        rows: pa.Table,
        encoder: Encoder,
        options: EarlyStopping,
        batch_size: int | None,
        max_positions: int | None,
        end_ids: Sequence[int] = (),
    ) -> None:
        self.end_ids = end_ids
        self.encoder, self.options, self.batch_size = encoder, options, batch_size
        max_prompt_tokens = (max_positions or 2**31) - options.max_new_tokens
        if max_prompt_tokens < 1:
            raise ConfigError(
                f"train.early_stopping.max_new_tokens: {options.max_new_tokens} leaves no room for a question: "
                f"the model has {max_positions} positions"
            )
        pairs = [
            split_at_last_answer(row["input_ids"], row["labels"]) for row in rows.slice(0, options.rows).to_pylist()
        ]
        if not all(self._decode(prompt) for prompt, _ in pairs):
            raise ConfigError(
                f"train.early_stopping.metric: {options.metric} scores answers to validation questions, but these rows do "
                "not separate question and answer. Use tokenize.loss=assistant; for plain text, use validation_loss"
            )
        self.prompts = [truncate_prompt(prompt, max_prompt_tokens, encoder.start_ids) for prompt, _ in pairs]
        self.references = [self._decode(completion) for _, completion in pairs]

    def __call__(self, model: PreTrainedModel) -> dict[str, float]:
        """The mean score by the configured metric, from 0 to 1. The model keeps its generation config."""
        original_config = model.generation_config
        stop = stop_conditions(model, self.encoder, self.options.max_new_tokens, self.end_ids)
        answers = generate_answers(model, self.prompts, stop, self.batch_size)
        model.generation_config = original_config
        name = self.options.metric
        scores = [
            score_answer(self._decode(answer.new_tokens), reference)[name]
            for answer, reference in zip(answers, self.references, strict=True)
        ]
        return {name: sum(scores) / len(scores)}

    def _decode(self, token_ids: list[int]) -> str:
        return self.encoder.tokenizer.decode(token_ids, skip_special_tokens=True).strip()


def split_at_last_answer(input_ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    """(prompt, answer): the token ids before the last run of labels, and that run.

    >>> split_at_last_answer([5, 6, 7, 8, 2, 3], [-100, 6, -100, 8, 2, -100])
    ([5, 6, 7], [8, 2])
    """
    end = next(position for position in range(len(labels), 0, -1) if labels[position - 1] != IGNORE_INDEX)
    start = next((position for position in range(end, 0, -1) if labels[position - 1] == IGNORE_INDEX), 0)
    return input_ids[:start], input_ids[start:end]
