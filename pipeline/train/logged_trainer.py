"""The Trainer with a step log, which stops at a loss or gradient norm that is not finite."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from torch.utils.data import DataLoader

from pipeline.config.params import Train
from pipeline.core.distributed import gather_objects
from pipeline.core.paths import TRAIN_STEPS
from pipeline.modeling.encoding import IGNORE_INDEX
from pipeline.train.checkpoints import StrictTrainer
from pipeline.train.nonfinite import FailedStep, failed_step_error
from pipeline.train.step_log import (
    HostCopy,
    LoggedStep,
    TakenStep,
    drawn_order,
    read_step_log,
    rows_hash,
    write_step_log,
)

Collator = Callable[[list[dict[str, Any]]], dict[str, Any]]
ROW_IDS = "row_ids"


def collate_with_ids(collate: Collator, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The collator's batch, with the ids of its rows."""
    return {**collate(rows), ROW_IDS: [row["id"] for row in rows]}


class LoggedTrainer(StrictTrainer):
    """A Trainer that keeps the step log and raises ModelError at a loss or gradient norm that is not finite.

    On a CPU, the numbers of a step are read before the optimizer applies its gradients, so the weights stay finite. A GPU
    would have to be waited for: there, the numbers are copied to the host in the background and read at the end of the next
    step. All of them are read before anything is logged, evaluated or saved, so no checkpoint comes after such a number.
    """

    train_dataset: datasets.Dataset

    def __init__(self, options: Train, padding_collator: Collator, **trainer_arguments: Any) -> None:
        self.options, self.padding_collator = options, padding_collator
        self.logged_steps: list[LoggedStep] = []  # up to the last log entry, evaluation or checkpoint
        self._taken_steps: list[TakenStep] = []  # not logged yet
        self._row_ids: list[list[int]] = []  # of the step's batches
        self._losses: list[torch.Tensor] = []  # of the step's batches so far
        super().__init__(**trainer_arguments)

    @property
    def reads_at_once(self) -> bool:
        """Whether reading a number of the present step takes no time."""
        return bool(self.args.device.type == "cpu")

    @property
    def checkpoints(self) -> Path:
        return Path(str(self.args.output_dir))

    def get_train_dataloader(self) -> "DataLoader[Any]":
        collator, self.data_collator = self.data_collator, partial(collate_with_ids, self.data_collator)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    def _init_training_state(self, *arguments: Any) -> Any:
        progress = super()._init_training_state(*arguments)
        checkpoint = arguments[3]
        self.logged_steps = read_step_log(Path(checkpoint) / TRAIN_STEPS.name) if checkpoint else []
        self._taken_steps = []
        return progress

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        batches, tokens = super().get_batch_samples(*arguments)
        self._row_ids, self._losses = [batch.pop(ROW_IDS) for batch in batches], []
        return batches, tokens

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*arguments, **options)
        self._losses.append(loss)
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """The norm; the Trainer asks for it once in each step, just before the optimizer applies the gradients."""
        norm: torch.Tensor = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]  # no types there
        whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # each process of FSDP has a part
        numbers = torch.stack([number.float() for number in (*self._losses, whole)])
        step = self.state.global_step + 1
        self._taken_steps.append(TakenStep(step, self._row_ids, HostCopy(numbers), self._get_learning_rate()))
        self._stop_if_not_finite()
        return norm

    def _stop_if_not_finite(self) -> None:
        """Read the latest step whose numbers the host need not wait for.

        All processes have the same norm, so they stop together. A loss that is not finite with a finite norm may be that of
        one process: then they stop when they log.
        """
        ready = self._taken_steps if self.reads_at_once else self._taken_steps[:-1]
        if not ready:
            return
        loss, grad_norm = ready[-1].read()
        if not math.isfinite(grad_norm) or (self.args.world_size == 1 and not math.isfinite(loss)):
            self.read_steps()

    def read_steps(self) -> list[LoggedStep]:
        """The step log so far. Collective: all processes must call it. Waits for the device.

        Raises ModelError if a loss or gradient norm is not finite.
        """
        own = [(step.row_ids, *step.read()) for step in self._taken_steps]
        for step, parts in zip(self._taken_steps, zip(*gather_objects(own), strict=True), strict=True):
            row_ids, losses, grad_norms = zip(*parts, strict=True)
            ids, loss = drawn_order(row_ids), sum(losses) / len(losses)
            logged = LoggedStep(step.step, rows_hash(ids), loss, grad_norms[0], step.learning_rate)
            if not (math.isfinite(loss) and math.isfinite(logged.grad_norm)):
                self._raise_failed_step(logged, ids)
            self.logged_steps.append(logged)
        self._taken_steps = []
        return self.logged_steps

    def _raise_failed_step(self, logged: LoggedStep, ids: list[int]) -> None:
        rows = self._rows_of(ids)
        unlabeled = [row["id"] for row in rows if all(label == IGNORE_INDEX for label in row["labels"][1:])]
        # On a GPU the weights are lost by now; a sharded model computes a loss only with all processes together.
        can_try = self.reads_at_once and not self.is_fsdp_enabled
        broken = self._ids_without_finite_loss(rows) if can_try else None
        previous = self.logged_steps[-1] if self.logged_steps else None
        failed = FailedStep(logged, ids, unlabeled, broken)
        raise failed_step_error(failed, previous, self.options, self.args.bf16, self.checkpoints)

    def _rows_of(self, ids: list[int]) -> list[dict[str, Any]]:
        """The rows with these ids. A dialogue may have several, one for each learned turn."""
        indices: dict[int, list[int]] = {}
        for index, id in enumerate(self.train_dataset["id"]):
            indices.setdefault(id, []).append(index)
        return [self.train_dataset[index] for id in dict.fromkeys(ids) for index in indices[id]]

    def _ids_without_finite_loss(self, rows: list[dict[str, Any]]) -> list[int]:
        """Of these rows, those that have no finite loss. None if a row of another step has none, either."""
        ids = {row["id"] for row in rows}
        other = next((row for row in self.train_dataset if row["id"] not in ids), None)
        if other is not None and not math.isfinite(self._loss_of(other)):
            return []
        return [row["id"] for row in rows if not math.isfinite(self._loss_of(row))]

    @torch.no_grad()
    def _loss_of(self, row: dict[str, Any]) -> float:
        """The summed loss of a row alone, with the present weights."""
        self.model.eval()
        inputs: Any = self._prepare_inputs(self.padding_collator([row]))
        return float(self.model(**inputs, **({"num_items_in_batch": 1} if self.model_accepts_loss_kwargs else {})).loss)

    def _maybe_log_save_evaluate(self, *arguments: Any, **options: Any) -> None:
        if self.control.should_log or self.control.should_evaluate or self.control.should_save:
            self.read_steps()
        super()._maybe_log_save_evaluate(*arguments, **options)

    def _save_rng_state(self, output_dir: str) -> None:
        """Save the step log, too: before the processes wait for each other, so that the checkpoint has it."""
        steps = self.read_steps()
        if self.args.should_save:
            write_step_log(Path(output_dir) / TRAIN_STEPS.name, steps)
        super()._save_rng_state(output_dir)
