"""The Trainer with this project's learning rates and validation metrics."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import EvalPrediction, TrainerCallback

from pipeline.config.options import Plateau
from pipeline.config.params import Train
from pipeline.core.distributed import broadcast_object
from pipeline.modeling.held_out_loss import MAX_LOGITS_PER_BATCH, row_losses
from pipeline.modeling.memory import is_out_of_memory
from pipeline.train.answer_metric import GenerationMetric
from pipeline.train.callbacks import FollowPlateau, Patience, TimeBudget
from pipeline.train.checkpoints import StrictTrainer
from pipeline.train.history import HistoryCallback
from pipeline.train.schedules import rate_function, rows_per_step

log = logging.getLogger(__name__)

EVALUATED = {"cpu": 4096, "cuda": 2**17}  # tokens side by side; more were not faster
Collate = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]


def validation_loss(prediction: EvalPrediction) -> dict[str, float]:
    """The loss in nats a token over all validation rows; the Trainer's own mean weighs rows alike, short or long."""
    summed, tokens = prediction.predictions.astype("float64").sum(axis=0)
    return {"validation_loss": float(summed / tokens)}


class LengthGroupedSampler(Sampler[int]):
    """Rows of like length side by side, in an order that all processes share.

    `size` rows make a step. Rows are drawn at random, sorted by length 50 steps' worth at a time, and the steps then
    drawn at random again, but for the one with the longest row: it comes first, so that what does not fit fails at once.
    transformers' own sampler sorts a quarter of a small set at a time, which leaves twice the padding.
    """

    def __init__(self, lengths: list[int], size: int) -> None:
        self.lengths, self.size = lengths, size

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(broadcast_object(self.drawn()))

    def drawn(self) -> list[int]:
        """The rows' places in a new order, by torch's random numbers."""
        order, at_a_time = torch.randperm(len(self.lengths)).tolist(), 50 * self.size
        steps = [
            step
            for start in range(0, len(order), at_a_time)
            for step in self._by_length(order[start : start + at_a_time])
        ]
        drawn = [steps[place] for place in torch.randperm(len(steps)).tolist()]
        drawn.sort(key=len, reverse=True)  # the one that is not full is the epoch's last
        drawn.insert(0, drawn.pop(max(range(len(drawn)), key=lambda place: self._longest(drawn[place]))))
        return [row for step in drawn for row in step]

    def _by_length(self, rows: list[int]) -> list[list[int]]:
        rows = sorted(rows, key=lambda row: -self.lengths[row])
        return [rows[start : start + self.size] for start in range(0, len(rows), self.size)]

    def _longest(self, step: list[int]) -> tuple[bool, int]:
        return len(step) == self.size, max(self.lengths[row] for row in step)


class FineTuner(StrictTrainer):
    """Built from the train section: its schedule (pipeline/train/schedules.py), its ways to end (pipeline/train/callbacks.py), its judge."""

    def __init__(self, options: Train, judge: GenerationMetric | None, padded: Collate, **rest: Any) -> None:
        self.options, self.judge, self.padded = options, judge, padded
        stopping = options.early_stopping
        callbacks: list[TrainerCallback] = [HistoryCallback()]
        if isinstance(options.schedule, Plateau):
            callbacks.append(FollowPlateau())
        if stopping.patience is not None:
            callbacks.append(Patience(stopping.patience, stopping.threshold))
        if options.max_minutes is not None:
            callbacks.append(TimeBudget(options.max_minutes))
        super().__init__(compute_metrics=self.validation, callbacks=callbacks, **rest)
        if options.eval_batch_size is None:
            self.args.per_device_eval_batch_size = max(1, self._tokens_evaluated() // max(self.eval_dataset["length"]))

    def _tokens_evaluated(self) -> int:
        """How many tokens stand side by side in an evaluation; fewer where all their logits do."""
        tokens = EVALUATED.get(self.args.device.type, EVALUATED["cuda"])
        if self.preprocess_logits_for_metrics is not row_losses:
            return tokens
        return min(tokens, MAX_LOGITS_PER_BATCH // self.model.get_input_embeddings().num_embeddings)

    def evaluate(self, *args: Any, **rest: Any) -> dict[str, float]:
        """What an evaluation measures; where memory runs out, of half as many rows at a time.

        Not where the number of rows is given, nor with several processes, which would have to agree.
        """
        while (found := self._evaluated_if_it_fits(*args, **rest)) is None:
            rows = self.args.per_device_eval_batch_size
            self.args.per_device_eval_batch_size = (rows + 1) // 2
            log.warning(f"{rows} rows side by side do not fit into memory; evaluating {(rows + 1) // 2} at a time")
            if self.args.device.type == "cuda":
                torch.cuda.empty_cache()
        return found

    def _evaluated_if_it_fits(self, *args: Any, **rest: Any) -> dict[str, float] | None:
        try:
            return super().evaluate(*args, **rest)
        except (RuntimeError, MemoryError) as error:
            can_halve = self.options.eval_batch_size is None and self.args.per_device_eval_batch_size > 1
            if not is_out_of_memory(error) or not can_halve or self.args.world_size > 1:
                raise
        return None

    def validation(self, prediction: EvalPrediction) -> dict[str, float]:
        """What an evaluation measures: the loss, and the score of answers if that decides what is kept."""
        return {**validation_loss(prediction), **(broadcast_object(self.judge(self.model)) if self.judge else {})}

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """With several processes padded, where training is packed too.

        The last batches are filled up with rows that are there already, to be cut off again; in a packed batch they could
        not be told from the others.
        """
        if self.args.world_size == 1:
            return super().get_eval_dataloader(eval_dataset)
        collator, self.data_collator = self.data_collator, self.padded
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collator

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        """Rows of like length side by side where that is asked for, in the main process's order.

        The processes' own random states part when they drop out different activations.
        """
        if not self.options.group_by_length:
            return super()._get_train_sampler(train_dataset)
        rows = train_dataset or self.train_dataset
        return LengthGroupedSampler(list(rows["length"]), rows_per_step(self.options, self.args.world_size))

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler:
        """In their order, the longest first; the Trainer would group them anew."""
        return SequentialSampler(eval_dataset)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """The configured schedule, in the place of the Trainer's own."""
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, rate_function(self.options, num_training_steps))
        self._created_lr_scheduler = True
        return self.lr_scheduler
