"""Checkpoints that a killed training goes on from, and loading them without losing a tensor.

They live in .checkpoints/ of the main checkout (in an experiment's copy too), in a folder named after the
parameters, the rows and the base model. So only the same training finds them; they are removed when it has succeeded.
"""

import fcntl
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256 as digest_of
from pathlib import Path
from typing import Any

import torch.distributed
from transformers import PreTrainedModel, Trainer

from pipeline.core.distributed import broadcast_object, is_distributed, is_main_process, require_same_key
from pipeline.core.files import attach_path_to_os_error, sha256_of_path
from pipeline.core.paths import checkpoint_root
from pipeline.errors import ConfigError, ModelError
from pipeline.train.methods import has_adapter, load_adapter

log = logging.getLogger(__name__)


def checkpoint_key(values: dict[str, Any], *paths: Path) -> str:
    """A name for all that a training's result depends on: its parameters, and the content of some paths."""
    depends = {"values": values, "content": [sha256_of_path(path) for path in paths]}
    return digest_of(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def checkpoint_folder(key: str) -> Iterator[Path]:
    """The folder for a training's checkpoints; gone after success, there to go on from after anything else.

    If a process that is still alive uses it (killing dvc leaves its child running), a fresh one is given.
    """
    root = checkpoint_root()
    root.mkdir(exist_ok=True)
    with (root / f"{key}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("The same training is running already; this one starts afresh beside it.")
            with tempfile.TemporaryDirectory(prefix=f"{key}-", dir=root) as folder:
                yield Path(folder)
            return
        folder = root / key
        with attach_path_to_os_error(folder):
            yield folder
        shutil.rmtree(folder, ignore_errors=True)
        (root / f"{key}.lock").unlink(missing_ok=True)


@contextmanager
def shared_checkpoint_folder(key: str) -> Iterator[Path]:
    """The main process's `checkpoint_folder`, for all of those that train together; ConfigError if one cannot see it."""
    require_same_key(key)
    if is_main_process():
        with checkpoint_folder(key) as folder:
            folder.mkdir(exist_ok=True)
            broadcast_object(str(folder.resolve()))
            yield folder
            _wait_for_all()
        return
    folder = Path(broadcast_object(None))
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is on the first machine, and not to be seen here; run all from one folder that the machines share"
        )
    yield folder
    _wait_for_all()


def _wait_for_all() -> None:
    if is_distributed():
        torch.distributed.barrier()


def last_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that was written whole; those cut off are removed."""
    whole = []
    for found in folder.glob("checkpoint-*"):
        try:  # the Trainer writes this file last
            whole.append((json.loads((found / "trainer_state.json").read_text())["global_step"], found))
        except (OSError, ValueError, KeyError):
            shutil.rmtree(found)
    return max(whole)[1] if whole else None


def load_weights(model: PreTrainedModel, checkpoint: Path) -> None:
    """Copy a checkpoint's weights into the model, every tensor; ModelError if they do not match one to one.

    The Trainer's own loading matches names as they are on disk, which are not those in memory for every
    architecture: GPT-NeoX's output head is embed_out there and lm_head here, and was silently left as it was.
    from_pretrained translates names, so the checkpoint goes through it. Of a model with an adapter, that is all.
    """
    if has_adapter(model):
        load_adapter(model, checkpoint)
        return
    saved = type(model).from_pretrained(checkpoint, dtype=next(model.parameters()).dtype, local_files_only=True)
    try:
        model.load_state_dict(saved.state_dict(), strict=True)
    except RuntimeError as error:
        raise ModelError(f"{checkpoint} does not fit the model; remove it and train anew: {error}") from None


class StrictTrainer(Trainer):
    """The Trainer, with checkpoints loaded by `load_weights`: on resuming and for the best model.

    A model that is split among processes (FSDP) has checkpoints of its own beside the plain ones, with the names of
    memory, which the Trainer loads strictly.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PreTrainedModel | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(model or self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            load_weights(self.model, Path(self.state.best_model_checkpoint))

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait for each process's, so that a checkpoint with the state that is written after them has them all."""
        super()._save_rng_state(output_dir)
        _wait_for_all()


def gather_model(trainer: Trainer, plain: Callable[[], Any]) -> Any:
    """The trained model as one process would have it: itself, or gathered from the processes into a plain one."""
    if not trainer.is_fsdp_enabled:
        return trainer.accelerator.unwrap_model(trainer.model)
    gathered = trainer.accelerator.get_state_dict(trainer.model)
    model = plain()
    if is_main_process():
        model.load_state_dict(gathered, strict=True)
    return model
