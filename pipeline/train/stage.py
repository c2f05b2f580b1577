"""Fine-tunes the base model on the tokenized rows with the Hugging Face Trainer.

    python -m pipeline.train     data/tokenized/, models/base/ → models/finetuned/, metrics/train.json,
                                 metrics/train/{history,validation}.tsv, metrics/details/train_steps.tsv

models/finetuned/ holds the safetensors, the tokenizer and a generation config: from_pretrained("models/finetuned") just
works. With train/method=lora, an adapter is trained (pipeline/train/methods.py); it is merged into the model and also
written to models/finetuned/adapter/. A training that was killed resumes from its last checkpoint
(pipeline/train/checkpoints.py) and ends with the same result as without the interruption. With compute=ddp or
compute=fsdp, several processes train (pipeline/train/launch.py), and the main process writes the outputs.
"""

import logging
from typing import Any

import torch

from pipeline.chat.row_format import read_row_format
from pipeline.config.options import Compute
from pipeline.config.params import Params, Train
from pipeline.core.distributed import broadcast_object, is_main_process, local_rank, process_group
from pipeline.core.entrypoint import stage
from pipeline.core.metrics import write_metrics
from pipeline.core.paths import BASE, FINETUNED, TOKENIZED, TRAIN_HISTORY, TRAIN_STEPS
from pipeline.modeling.collation import skip_packing_detection
from pipeline.modeling.devices import device_of, set_threads
from pipeline.modeling.environment import environment_record
from pipeline.modeling.memory import explain_out_of_memory
from pipeline.train.build_trainer import build_trainer
from pipeline.train.callbacks import checkpoint_on_sigterm
from pipeline.train.checkpoint_manifest import last_checkpoint
from pipeline.train.checkpoints import checkpoint_key, gather_model, shared_checkpoint_folder
from pipeline.train.export import export_model, training_metrics
from pipeline.train.history import history_rows, write_history
from pipeline.train.launch import launch_if_distributed
from pipeline.train.loader_workers import explain_worker_errors, too_many_workers
from pipeline.train.log_messages import describe_run, oom_hint, report
from pipeline.train.methods import load_trainable
from pipeline.train.other_checkpoints import start_checkpoints
from pipeline.train.step_log import write_step_log
from pipeline.train.warnings import training_warnings

log = logging.getLogger(__name__)

HEADLINE = {
    "training_loss": "loss",
    "validation_loss_before": "validation_loss_before",
    "validation_loss": "validation_loss",
    "steps": "steps",
}


def train(options: Train, device: torch.device, compute: Compute | None = None) -> dict[str, Any]:
    """Train, write the model and the training history, and return the metrics. Only the main process writes."""
    machine = {**(compute.model_dump() if compute else {}), "device": device.type}
    values = options.model_dump(exclude={"dataloader_workers"})  # their number does not change the result
    key = checkpoint_key({**values, "compute": machine}, device, TOKENIZED, BASE)
    with shared_checkpoint_folder(key.digest) as folder:
        checkpoint = broadcast_object(last_checkpoint(folder) if is_main_process() else None)
        others = start_checkpoints(folder, key) if is_main_process() and not checkpoint else []
        trainer = build_trainer(options, BASE, TOKENIZED, folder, device, compute)
        log.info(describe_run(options, trainer))
        for warning in (warnings := training_warnings(options, len(trainer.train_dataset), trainer.args.world_size)):
            log.warning(f"Warning: {warning}.")
        if excess := too_many_workers(options.dataloader_workers):  # not a metric: it depends on the machine
            log.warning(f"Warning: {excess}.")
        log.debug(f"checkpoints in {folder}")
        for line in [f"Resuming from {checkpoint.name}"] if checkpoint else others:
            log.info(line)
        with (
            explain_out_of_memory(oom_hint(options, trainer)),
            skip_packing_detection(options.packing),
            explain_worker_errors(),
        ):
            with checkpoint_on_sigterm(trainer):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            evaluation = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
        model = gather_model(trainer, lambda: load_trainable(BASE, options, device))
        history = history_rows(trainer.state.log_history)
        metrics = training_metrics(trainer, model, evaluation, history, BASE)
        steps = trainer.read_steps()
        if is_main_process():
            write_history(TRAIN_HISTORY, history)
            write_step_log(TRAIN_STEPS, steps)
            export_model(model.cpu(), BASE, FINETUNED, read_row_format(TOKENIZED))
        return {**metrics, "warnings": warnings, "environment": environment_record(device)}


@stage("train")
def main(params: Params) -> None:
    if launch_if_distributed("pipeline.train", params.compute):
        return
    device = device_of(params.compute, local_rank())
    set_threads(params.compute)
    with process_group(on_cpu=device.type == "cpu"):
        metrics = train(params.train, device, params.compute)
        if is_main_process():
            write_metrics("train", metrics, HEADLINE)
            report(metrics)
