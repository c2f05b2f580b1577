"""The Trainer with this project's learning rates and validation metrics."""

from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import EvalPrediction, TrainerCallback

from pipeline.checkpoints import StrictTrainer
from pipeline.history import HistoryCallback
from pipeline.judge import Judge
from pipeline.options import Plateau
from pipeline.params import Train
from pipeline.rates import rate_of
from pipeline.stopping import Budget, FollowPlateau, Patience


def validation_loss(prediction: EvalPrediction) -> dict[str, float]:
    """The loss in nats a token over all validation rows; the Trainer's own mean weighs rows alike, short or long."""
    summed, tokens = prediction.predictions.astype("float64").sum(axis=0)
    return {"validation_loss": float(summed / tokens)}


class FineTuner(StrictTrainer):
    """Built from the train section: its schedule (pipeline/rates.py), its ways to end (pipeline/stopping.py), its judge."""

    def __init__(self, options: Train, judge: Judge | None, **rest: Any) -> None:
        self.options, self.judge = options, judge
        stopping = options.early_stopping
        callbacks: list[TrainerCallback] = [HistoryCallback()]
        if isinstance(options.schedule, Plateau):
            callbacks.append(FollowPlateau())
        if stopping.patience is not None:
            callbacks.append(Patience(stopping.patience, stopping.threshold))
        if options.max_minutes is not None:
            callbacks.append(Budget(options.max_minutes))
        super().__init__(compute_metrics=self.validation, callbacks=callbacks, **rest)

    def validation(self, prediction: EvalPrediction) -> dict[str, float]:
        """What an evaluation measures: the loss, and the score of answers if that decides what is kept."""
        return {**validation_loss(prediction), **(self.judge(self.model) if self.judge else {})}

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """The configured schedule, in the place of the Trainer's own."""
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, rate_of(self.options, num_training_steps))
        self._created_lr_scheduler = True
        return self.lr_scheduler
