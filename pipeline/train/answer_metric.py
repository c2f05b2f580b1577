"""How well a model in training answers: greedy answers to some validation questions, scored as in evaluate."""

from typing import Any

import pyarrow as pa

from pipeline.config.options import EarlyStopping
from pipeline.errors import ConfigError
from pipeline.modeling.encoding import IGNORE_INDEX, Encoder, truncate_prompt
from pipeline.modeling.generation import StopConditions, generate_answers
from pipeline.scoring.answer_scores import score_answer


class GenerationMetric:
    """The validation questions, taken from the tokenized rows: a prompt is what stands before the first label.

    ConfigError where a row has none: all of it is learned (tokenize.loss=full), or it is plain text.
    """

    def __init__(
        self, rows: pa.Table, encoder: Encoder, options: EarlyStopping, batch_size: int | None, positions: int | None
    ) -> None:
        self.encoder, self.options, self.batch_size = encoder, options, batch_size
        room = (positions or 2**31) - options.max_new_tokens
        if room < 1:
            raise ConfigError(
                f"train.early_stopping.max_new_tokens: {options.max_new_tokens} leaves no room for a question: "
                f"the model has {positions} positions"
            )
        pairs = [
            split_at_first_label(row["input_ids"], row["labels"]) for row in rows.slice(0, options.rows).to_pylist()
        ]
        if not all(self._decoded(prompt) for prompt, _ in pairs):
            raise ConfigError(
                f"train.early_stopping.metric: {options.metric} is of answers to validation questions, and these rows "
                "do not tell question from answer. Use tokenize.loss=completion; with plain text, validation_loss"
            )
        self.prompts = [truncate_prompt(prompt, room, encoder.bos) for prompt, _ in pairs]
        self.references = [self._decoded(answer) for _, answer in pairs]

    def __call__(self, model: Any) -> dict[str, float]:
        """The mean score by the configured metric, from 0 to 1; the model's generation config is left as it was."""
        kept = model.generation_config
        ending = StopConditions(self.options.max_new_tokens, self.encoder.eos, self.encoder.padding)
        answers = generate_answers(model, self.prompts, ending, self.batch_size)
        model.generation_config = kept
        name = self.options.metric
        pairs = zip(answers, self.references, strict=True)
        scores = [score_answer(self._decoded(answer.new_tokens), reference)[name] for answer, reference in pairs]
        return {name: sum(scores) / len(scores)}

    def _decoded(self, tokens: list[int]) -> str:
        return self.encoder.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def split_at_first_label(input_ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    """(prompt, answer): what stands before the first label, and the rest.

    >>> split_at_first_label([5, 6, 7, 2], [-100, -100, 7, 2])
    ([5, 6], [7, 2])
    """
    first = next(at for at, label in enumerate(labels) if label != IGNORE_INDEX)
    return input_ids[:first], input_ids[first:]
