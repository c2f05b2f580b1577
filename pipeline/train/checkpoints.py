"""Checkpoints from which a killed training resumes, and strict loading of their weights.

They are in .checkpoints/ of the main checkout (for experiments that run in a copy of it, too), in a folder named after the
parameters, the rows and the base model. So only the same training finds them, and it removes them when it has succeeded.
"""

import fcntl
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from transformers import PreTrainedModel, Trainer

from pipeline.core.distributed import broadcast_object, is_distributed, is_main_process, require_same_key
from pipeline.core.files import name_file_in_errors, sha256_of_path
from pipeline.core.paths import checkpoint_root
from pipeline.errors import ConfigError, ModelError
from pipeline.modeling.environment import resumption_record
from pipeline.modeling.resume_key import ResumeKey
from pipeline.modeling.stage_code import stage_code_hash
from pipeline.train.checkpoint_manifest import remove_checkpoints, write_manifest
from pipeline.train.methods import has_adapter, load_adapter

log = logging.getLogger(__name__)


def checkpoint_key(values: dict[str, Any], device: torch.device, *paths: Path) -> ResumeKey:
    """All that a training's result depends on: its parameters, the content of `paths`, code and environment."""
    return ResumeKey(
        {
            "parameters": values,
            "content": {path.as_posix(): sha256_of_path(path) for path in paths},
            "code": stage_code_hash("train"),
            "environment": resumption_record(device),
        }
    )


@contextmanager
def checkpoint_folder(key: str) -> Iterator[Path]:
    """The folder for a training's checkpoints: removed on success, left to resume from after a failure.

    If a living process already uses it (killing dvc leaves its child running), a temporary folder takes its place.
    """
    root = checkpoint_root()
    root.mkdir(exist_ok=True)
    with (root / f"{key}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning(
                "The same training is already running; this one starts from the beginning in a folder of its own."
            )
            with tempfile.TemporaryDirectory(prefix=f"{key}-", dir=root) as temporary:
                yield Path(temporary)
            return
        folder = root / key
        with name_file_in_errors(folder):
            yield folder
        shutil.rmtree(folder, ignore_errors=True)
        (root / f"{key}.lock").unlink(missing_ok=True)


@contextmanager
def shared_checkpoint_folder(key: str) -> Iterator[Path]:
    """The main process's `checkpoint_folder`, for all processes that train together.

    Raises ConfigError if a process has another key, or cannot see the folder.
    """
    require_same_key(key)
    if is_main_process():
        with checkpoint_folder(key) as folder:
            folder.mkdir(exist_ok=True)
            broadcast_object(str(folder.resolve()))
            yield folder
            _barrier()
        return
    folder = Path(broadcast_object(None))
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} exists on the first node but not on this one; run all nodes from one folder that they share"
        )
    yield folder
    _barrier()


def _barrier() -> None:
    if is_distributed():
        torch.distributed.barrier()


def load_weights(model: torch.nn.Module, checkpoint: Path) -> None:
    """Copy every tensor of a checkpoint into the model. Raises ModelError unless they match one to one.

    The Trainer's own loading matches tensors by their names on disk, which for some architectures are not those in
    memory: GPT-NeoX's output head is embed_out on disk and lm_head in memory, and was silently not loaded.
    from_pretrained translates the names, so the checkpoint is loaded through it. An adapter's checkpoint holds the
    adapter alone.
    """
    if has_adapter(model):
        load_adapter(model, checkpoint)
        return
    assert isinstance(model, PreTrainedModel)
    saved = type(model).from_pretrained(checkpoint, dtype=next(model.parameters()).dtype, local_files_only=True)
    try:
        model.load_state_dict(saved.state_dict(), strict=True)
    except RuntimeError as error:
        raise ModelError(f"{checkpoint} does not fit the model; remove it and train again: {error}") from None


class StrictTrainer(Trainer):
    """The Trainer, except that it loads checkpoints by `load_weights`, on resuming and for the best model.

    A model sharded by FSDP has sharded checkpoints beside the plain ones, with the names in memory, which the Trainer
    loads strictly.
    """

    model: PreTrainedModel  # or a PeftModel, which has the attributes of the model that it wraps

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(model or self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            assert self.state.best_model_checkpoint is not None
            load_weights(self.model, Path(self.state.best_model_checkpoint))

    has_ended = False  # whether the training had ended when the checkpoint that it resumes from was written

    def _init_training_state(self, *arguments: Any) -> Any:
        progress = super()._init_training_state(*arguments)
        self.has_ended = self.control.should_training_stop  # as the checkpoint has it; the Trainer resets it
        if self.state.global_step:  # the base model was evaluated before the first step
            self.args.eval_on_start = False
        return progress

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        """Run an epoch, unless the training had ended: the Trainer would take one more step before it notices."""
        if self.has_ended:
            self.control.should_training_stop = True
            return
        checkpoint = options["resume_from_checkpoint"]
        if checkpoint is not None and options["epoch"] == options["epochs_trained"]:
            self._load_loss_sum(Path(checkpoint))
        super()._run_epoch(*arguments, **options)  # type: ignore[no-untyped-call]  # no types there

    def _load_loss_sum(self, checkpoint: Path) -> None:
        """Continue the sum of losses of the next log entry; the Trainer would start a new one."""
        saved = torch.load(checkpoint / self._loss_sum_file(), weights_only=True)
        self._tr_loss, self._globalstep_last_logged = saved["sum"].to(self.args.device), saved["last_logged_step"]

    def _loss_sum_file(self) -> str:
        return f"loss_sum_{self.args.process_index}.pth"

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save a checkpoint; once it is complete, remove the older ones, except the best."""
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial))
            current = folder / f"checkpoint-{self.state.global_step}"
            write_manifest(current)
            best = self.state.best_model_checkpoint
            remove_checkpoints(folder, keep=[current, *([Path(best)] if best else [])])
        _barrier()

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait until all processes have saved theirs: only then may the main process write the file that completes it."""
        super()._save_rng_state(output_dir)
        loss_sum = {"sum": self._tr_loss.cpu(), "last_logged_step": self._globalstep_last_logged}
        torch.save(loss_sum, Path(output_dir) / self._loss_sum_file())
        _barrier()


def gather_model(trainer: Trainer, load_untrained: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """The trained model without wrappers; a sharded model's weights are gathered into a model from `load_untrained`.

    All processes must call it. Under FSDP only the main process's model gets the weights.
    """
    if not trainer.is_fsdp_enabled:
        unwrapped: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
        return unwrapped
    state_dict = trainer.accelerator.get_state_dict(trainer.model)
    model = load_untrained()
    if is_main_process():
        model.load_state_dict(state_dict, strict=True)
    return model
