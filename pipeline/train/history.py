"""The training history, step by step: shown while training, and written to TSV files for `dvc plots` and the report."""

import csv
import logging
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.core.files import atomic_write

log = logging.getLogger(__name__)

ANSWER_METRICS = ("f1", "exact_match", "rougeL")  # of answers to validation questions, as early stopping's metric
COLUMN_OF_LOG_KEY = {
    "loss": "loss",
    "eval_validation_loss": "validation_loss",
    "learning_rate": "learning_rate",
    **{f"eval_{name}": name for name in ANSWER_METRICS},
}
# Two files, as training and validation are logged at different steps, and DVC plots an empty cell as 0.
COLUMNS_OF_FILE = {"history.tsv": ("step", "loss", "learning_rate"), "validation.tsv": ("step", "validation_loss")}
LogEntry = dict[str, Any]


class HistoryCallback(TrainerCallback):
    """Shows a progress bar with the losses in a terminal, elsewhere one line per evaluation."""

    bar: "tqdm[Any] | None" = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="train", unit="step", disable=None, leave=False
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert self.bar is not None
        self.bar.update(state.global_step - self.bar.n)
        if state.global_step == state.max_steps:
            control.should_log = True  # a short training ends before the first regular log
        self.log_at_checkpoints(control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.log_at_checkpoints(control)

    def log_at_checkpoints(self, control: TrainerControl) -> None:
        """Log with each checkpoint, as logging restarts the mean of the losses: a resumed training starts a mean there."""
        control.should_log = control.should_log or control.should_save

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: LogEntry | None = None,
        **_: Any,
    ) -> None:
        row = {name: logs[key] for key, name in COLUMN_OF_LOG_KEY.items() if logs and key in logs}
        if not row or self.bar is None:
            return
        text = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
        if not self.bar.disable:
            self.bar.set_postfix_str(text)
        # Without a terminal, a sign of life per evaluation; hydra.verbose=true shows the rest.
        elif "validation_loss" in row:
            log.info(f"step {state.global_step}/{state.max_steps}  {text}")
        else:
            log.debug(f"step {state.global_step}/{state.max_steps}  {text}")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def history_rows(log_history: list[LogEntry]) -> list[LogEntry]:
    """The Trainer's log as one row per step, without timings. Of a step evaluated twice (on resuming), the first counts.

    >>> history_rows([{"step": 0, "eval_validation_loss": 5.0, "eval_runtime": 1.2}, {"step": 2, "loss": 4.0}])
    [{'step': 0, 'validation_loss': 5.0}, {'step': 2, 'loss': 4.0}]
    """
    rows: dict[int, LogEntry] = {}
    for entry in log_history:
        row = {name: entry[key] for key, name in COLUMN_OF_LOG_KEY.items() if key in entry}
        if row:
            rows[entry["step"]] = {"step": entry["step"], **row, **rows.get(entry["step"], {})}
    return list(rows.values())


def write_history(folder: Path, rows: list[LogEntry]) -> None:
    """Write history.tsv (step, loss, learning_rate) and validation.tsv (step, validation_loss) for `dvc plots`.

    If answers were scored, validation.tsv has a column for the metric.
    """
    scored = tuple(name for name in ANSWER_METRICS if any(name in row for row in rows))
    columns_of_file = {**COLUMNS_OF_FILE, "validation.tsv": (*COLUMNS_OF_FILE["validation.tsv"], *scored)}
    for name, columns in columns_of_file.items():
        complete_rows = [{column: row[column] for column in columns} for row in rows if set(columns) <= set(row)]
        with atomic_write(folder / name) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(complete_rows)
