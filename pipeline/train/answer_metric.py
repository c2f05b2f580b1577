"""The generation metric of early stopping: greedy answers to validation questions, scored as in the evaluate stage."""

import pyarrow as pa
from transformers import PreTrainedModel

from pipeline.config.options import EarlyStopping
from pipeline.errors import ConfigError
from pipeline.modeling.encoding import IGNORE_INDEX, Encoder, truncate_prompt
from pipeline.modeling.generation import generate_answers, stop_conditions
from pipeline.scoring.answer_scores import score_answer


class GenerationMetric:
    """Answers the first validation questions and scores the answers; the prompts come from the tokenized rows.

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
    ) -> None:
        self.encoder, self.options, self.batch_size = encoder, options, batch_size
        max_prompt_tokens = (max_positions or 2**31) - options.max_new_tokens
        if max_prompt_tokens < 1:
            raise ConfigError(
                f"train.early_stopping.max_new_tokens: {options.max_new_tokens} leaves no room for a question: "
                f"the model has {max_positions} positions"
            )
        pairs = [
            split_at_first_label(row["input_ids"], row["labels"]) for row in rows.slice(0, options.rows).to_pylist()
        ]
        if not all(self._decode(prompt) for prompt, _ in pairs):
            raise ConfigError(
                f"train.early_stopping.metric: {options.metric} scores answers to validation questions, but these rows do "
                "not separate question and answer. Use tokenize.loss=completion; for plain text, use validation_loss"
            )
        self.prompts = [truncate_prompt(prompt, max_prompt_tokens, encoder.start_ids) for prompt, _ in pairs]
        self.references = [self._decode(completion) for _, completion in pairs]

    def __call__(self, model: PreTrainedModel) -> dict[str, float]:
        """The mean score by the configured metric, from 0 to 1. The model keeps its generation config."""
        original_config = model.generation_config
        stop = stop_conditions(model, self.encoder, self.options.max_new_tokens)
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


def split_at_first_label(input_ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    """(prompt, completion): the token ids before the first labeled token, and the rest.

    >>> split_at_first_label([5, 6, 7, 2], [-100, -100, 7, 2])
    ([5, 6], [7, 2])
    """
    prompt_tokens = next(position for position, label in enumerate(labels) if label != IGNORE_INDEX)
    return input_ids[:prompt_tokens], input_ids[prompt_tokens:]
