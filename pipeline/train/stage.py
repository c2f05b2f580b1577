"""Fine-tunes the base model on the tokenized rows with the Hugging Face Trainer.

    python -m pipeline.train     data/tokenized/, models/base/ → models/finetuned/, metrics/train.json,
                                 metrics/train/{history,validation}.tsv

models/finetuned/ holds safetensors, tokenizer and generation config: from_pretrained("models/finetuned") just works. With
train/method=lora an adapter is trained (pipeline/train/methods.py): it is merged into the model, and lies in adapter/ besides.
A training that was killed goes on from its last checkpoint (see pipeline/train/checkpoints.py) and ends as if it had not been.
With compute=ddp or compute=fsdp several processes train (see pipeline/train/launch.py); the first of them writes.
"""

import logging
from typing import Any

import torch

from pipeline.config.options import Machine
from pipeline.config.params import Params, Train
from pipeline.core.distributed import broadcast_object, is_main_process, local_rank, process_group
from pipeline.core.entrypoint import stage
from pipeline.core.files import write_json
from pipeline.core.paths import BASE, FINETUNED, METRICS, TOKENIZED, TRAIN_HISTORY
from pipeline.modeling.batches import skip_packing_detection
from pipeline.modeling.devices import device_of
from pipeline.modeling.loading import load_tokenizer
from pipeline.modeling.memory import explain_out_of_memory
from pipeline.train.build import build_trainer
from pipeline.train.checkpoints import checkpoint_key, gather_model, last_checkpoint, shared_checkpoint_folder
from pipeline.train.export import export_model, training_metrics
from pipeline.train.history import history_rows, write_history
from pipeline.train.launch import launch_if_distributed
from pipeline.train.messages import describe_run, oom_hint, report
from pipeline.train.methods import load_trainable

log = logging.getLogger(__name__)


def train(options: Train, device: torch.device, compute: Machine | None = None) -> dict[str, Any]:
    """Train, write the model and its history; return the metrics. Of several processes, the main one writes."""
    where = {**(compute.model_dump() if compute else {}), "device": device.type}
    with shared_checkpoint_folder(
        checkpoint_key({**options.model_dump(), "compute": where}, TOKENIZED, BASE)
    ) as folder:
        checkpoint = broadcast_object(last_checkpoint(folder) if is_main_process() else None)
        trainer = build_trainer(options, BASE, TOKENIZED, folder, device, compute)
        log.info(describe_run(options, trainer))
        log.debug(f"checkpoints in {folder}")
        if checkpoint:
            log.info(f"Going on from {checkpoint.name}, which an interrupted training left")
        with explain_out_of_memory(oom_hint(options, trainer)), skip_packing_detection(options.packing):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            kept = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
        model = gather_model(trainer, lambda: load_trainable(BASE, options, device))
        history = history_rows(trainer.state.log_history)
        metrics = training_metrics(trainer, model, kept, history, BASE)
        if is_main_process():
            write_history(TRAIN_HISTORY, history)
            export_model(model.cpu(), load_tokenizer(BASE), BASE, FINETUNED)
        return metrics


@stage("train")
def main(params: Params) -> None:
    if launch_if_distributed("pipeline.train", params.compute):
        return
    device = device_of(params.compute, local_rank())
    with process_group(on_cpu=device.type == "cpu"):
        metrics = train(params.train, device, params.compute)
        if is_main_process():
            write_json(METRICS / "train.json", metrics)
            report(metrics)
