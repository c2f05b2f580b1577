"""The Trainer with this project's schedules, callbacks, row order and validation metrics."""

import logging
import math
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
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
from pipeline.train.callbacks import PlateauCallback, ResumableEarlyStoppingCallback, TimeBudgetCallback
from pipeline.train.history import HistoryCallback
from pipeline.train.loader_workers import follow_training
from pipeline.train.logged_trainer import Collator, LoggedTrainer
from pipeline.train.nonfinite import validation_error
from pipeline.train.sample_order import sample_order
from pipeline.train.schedules import rate_function, rows_per_step

log = logging.getLogger(__name__)

EVALUATION_TOKENS = {"cpu": 4096, "cuda": 2**17}  # in a batch; larger batches were not faster


def validation_loss(prediction: EvalPrediction) -> dict[str, float]:
    """The loss in nats per token over all validation rows. The Trainer's own mean gives short and long rows equal weight.

    prediction.predictions: (rows, 2), the summed loss and the number of tokens of each row.
    """
    rows: Any = prediction.predictions
    total, tokens = rows.astype("float64").sum(axis=0)
    return {"validation_loss": float(total / tokens)}


class LengthGroupedSampler(Sampler[int]):
    """The order of `sample_order`, a function of the seed and the epoch alone.

    So a resumed training draws the same order, whatever its random state is, and so does every process.
    """

    def __init__(self, lengths: list[int], rows_per_step: int, seed: int) -> None:
        self.lengths, self.rows_per_step, self.seed, self.epoch = lengths, rows_per_step, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        return iter(sample_order(self.lengths, self.rows_per_step, lambda count: generator.permutation(count).tolist()))


class FineTuner(LoggedTrainer):
    """The Trainer as the train section configures it.

    It follows the configured schedule (pipeline/train/schedules.py), adds callbacks (pipeline/train/callbacks.py), and
    evaluates with the validation loss and, if there is one, the generation metric. `padding_collator` makes padded batches
    for evaluations where the training batches are packed.
    """

    eval_dataset: datasets.Dataset
    length_sampler: LengthGroupedSampler | None = None

    def __init__(
        self,
        options: Train,
        generation_metric: GenerationMetric | None,
        padding_collator: Collator,
        **trainer_arguments: Any,
    ) -> None:
        self.generation_metric = generation_metric
        own_arguments = {"compute_metrics": self.validation_metrics, "callbacks": callbacks_of(options)}
        super().__init__(options, padding_collator, **own_arguments, **trainer_arguments)
        if options.eval_batch_size is None:
            max_length = max(self.eval_dataset["length"])
            self.args.per_device_eval_batch_size = max(1, self._evaluation_tokens() // max_length)

    def _evaluation_tokens(self) -> int:
        """The tokens of an evaluation batch; fewer where all their logits are in memory together."""
        tokens = EVALUATION_TOKENS.get(self.args.device.type, EVALUATION_TOKENS["cuda"])
        if self.preprocess_logits_for_metrics is not row_losses:
            return tokens
        embedding: Any = self.model.get_input_embeddings()
        return min(tokens, MAX_LOGITS_PER_BATCH // int(embedding.num_embeddings))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The metrics of an evaluation. The batch size is halved until an evaluation fits in memory.

        Not if train.eval_batch_size is set, nor with several processes, which would have to agree on it.
        """
        while (metrics := self._evaluate_if_it_fits(*args, **kwargs)) is None:
            batch_size = self.args.per_device_eval_batch_size
            self.args.per_device_eval_batch_size = (batch_size + 1) // 2
            log.warning(
                f"Evaluation batches of {batch_size} rows do not fit in memory; trying {(batch_size + 1) // 2} rows"
            )
            if self.args.device.type == "cuda":
                torch.cuda.empty_cache()
        return metrics

    def _evaluate_if_it_fits(self, *args: Any, **kwargs: Any) -> dict[str, float] | None:
        try:
            return super().evaluate(*args, **kwargs)
        except (RuntimeError, MemoryError) as error:
            can_halve = self.options.eval_batch_size is None and self.args.per_device_eval_batch_size > 1
            if not is_out_of_memory(error) or not can_halve or self.args.world_size > 1:
                raise
        return None

    def validation_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """The validation loss and, if early stopping uses one, the generation metric.

        Raises ModelError if the loss is not finite.
        """
        losses = validation_loss(prediction)
        if not math.isfinite(loss := losses["validation_loss"]):
            self._raise_validation_error(loss, prediction)
        scores = broadcast_object(self.generation_metric(self.model)) if self.generation_metric else {}
        return {**losses, **scores}

    def _raise_validation_error(self, loss: float, prediction: EvalPrediction) -> None:
        is_broken = ~np.isfinite(np.asarray(prediction.predictions)[:, 0])
        ids = self.eval_dataset["id"] if len(is_broken) == len(self.eval_dataset) else []  # else batches were packed
        broken = [] if is_broken.all() else [id for id, broken in zip(ids, is_broken, strict=False) if broken]
        last = self.logged_steps[-1] if self.logged_steps else None
        raise validation_error(loss, broken, last, self.options, self.args.bf16, self.checkpoints)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> "DataLoader[Any]":
        """With several processes, batches are padded even if training batches are packed.

        The last batches are filled up with repeated rows, whose losses are removed afterwards; in a packed batch, they could
        not be separated from the others.
        """
        if self.args.world_size == 1:
            return super().get_eval_dataloader(eval_dataset)
        collator, self.data_collator = self.data_collator, self.padding_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collator

    def _get_dataloader(self, *arguments: Any, **options: Any) -> "DataLoader[Any]":
        """The loader, whose workers neither end before the training nor outlive it."""
        loader: Any = super()._get_dataloader(*arguments, **options)
        loader.base_dataloader.worker_init_fn = follow_training  # Accelerate has wrapped it
        return loader  # type: ignore[no-any-return]

    def _get_train_sampler(self, train_dataset: Any = None) -> "Sampler[Any] | None":
        """With group_by_length, rows of similar length next to each other."""
        if not self.options.group_by_length:
            return super()._get_train_sampler(train_dataset)
        rows, step_rows = train_dataset or self.train_dataset, rows_per_step(self.options, self.args.world_size)
        self.length_sampler = LengthGroupedSampler(list(rows["length"]), step_rows, self.options.seed)
        return self.length_sampler

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        if self.length_sampler is not None:  # Accelerate does not pass the epoch on to samplers of several processes
            self.length_sampler.epoch = options["epoch"]
        super()._run_epoch(*arguments, **options)

    def _get_eval_sampler(self, eval_dataset: Any) -> "Sampler[Any]":
        """The rows in their order, longest first; the Trainer would group them by length again."""
        return SequentialSampler(eval_dataset)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """The configured schedule instead of the Trainer's own."""
        optimizer = optimizer or self.optimizer
        assert optimizer is not None
        self.lr_scheduler = LambdaLR(optimizer, rate_function(self.options, num_training_steps))
        self._created_lr_scheduler = True
        return self.lr_scheduler


def callbacks_of(options: Train) -> list[TrainerCallback]:
    """The callbacks that the train section configures."""
    stopping = options.early_stopping
    callbacks: list[TrainerCallback] = [HistoryCallback()]
    if isinstance(options.schedule, Plateau):
        callbacks.append(PlateauCallback())
    if stopping.patience is not None:
        callbacks.append(ResumableEarlyStoppingCallback(stopping.patience, stopping.threshold))
    if options.max_minutes is not None:
        callbacks.append(TimeBudgetCallback(options.max_minutes))
    return callbacks
