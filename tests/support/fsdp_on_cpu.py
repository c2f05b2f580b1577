"""The train stage under FSDP on CPUs: `python -m support.fsdp_on_cpu` in a project's root.

Accelerate silently skips FSDP on machines without a GPU, although PyTorch supports it there. This module makes Accelerate
treat the machine as one with several GPUs.
"""

import logging
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, DistributedType, PartialState

from pipeline.compose.composition import parse_params
from pipeline.config.options import Fsdp
from pipeline.config.validation import validate_params
from pipeline.core.distributed import is_distributed, is_main_process, process_group
from pipeline.core.entrypoint import report_errors
from pipeline.core.files import write_json
from pipeline.train import stage as train
from pipeline.train.launch import launch
from pipeline.train.log_messages import report

original_init = AcceleratorState.__init__


def init_as_on_gpus(self: AcceleratorState, *arguments: Any, **options: Any) -> None:
    if not AcceleratorState._shared_state:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    original_init(self, *arguments, **options)


def main() -> None:
    params = validate_params(parse_params(Path("params.yaml").read_text(encoding="utf-8")))
    assert isinstance(params.compute, Fsdp)
    if not is_distributed():
        launch("support.fsdp_on_cpu", params.compute)
        return
    AcceleratorState.__init__ = init_as_on_gpus
    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("pipeline").setLevel(logging.DEBUG)
    with process_group(on_cpu=True):
        metrics = train.train(params.train, torch.device("cpu"), params.compute)
        if is_main_process():
            write_json(Path("metrics/details/train.json"), metrics)
            report(metrics)


if __name__ == "__main__":
    with report_errors("train"):
        main()
