"""The train stage under FSDP on processors, as one of several processes: `python -m fsdp_on_cpu` in a project's root.

Accelerate leaves FSDP out where there is no card, without a word, though PyTorch has it there. What it asks the machine
is answered here as a machine with cards would.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, DistributedType, PartialState

from pipeline import train
from pipeline.compose import read
from pipeline.faults import check
from pipeline.ranks import is_main, joined
from pipeline.stage import faults_as_messages

init = AcceleratorState.__init__


def as_on_cards(self: AcceleratorState, *arguments: Any, **options: Any) -> None:
    if not AcceleratorState._shared_state:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    init(self, *arguments, **options)


AcceleratorState.__init__ = as_on_cards

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    params = check(read(Path("params.yaml").read_text(encoding="utf-8")))
    with faults_as_messages("train"), joined(on_cpu=True):
        metrics = train.train(params.train, torch.device("cpu"), params.compute)
        if is_main():
            train.tell(metrics)
