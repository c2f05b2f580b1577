"""One process among several that train one model: which it is, what all of them agree on, and how it tells what went wrong.

torchrun gives each process its rank in the environment (see pipeline/train/launch.py). Where there is one process alone, it is
the main one, and agrees with itself.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.options import Distributed, Machine
from pipeline.errors import ConfigError

NODE_RANK = "PET_NODE_RANK"  # torchrun's: which machine this is, from 0


def is_distributed() -> bool:
    """Whether this process was started as one of several (k8s sets RANK for a whole machine, so that does not tell)."""
    return "LOCAL_RANK" in os.environ


def local_rank() -> int | None:
    """The number of this process on this machine, from 0, which is also its card's; None if it is alone."""
    return int(os.environ["LOCAL_RANK"]) if is_distributed() else None


def is_main_process() -> bool:
    """Whether this process writes what all of them have trained, and speaks for them."""
    return not is_distributed() or os.environ["RANK"] == "0"


def is_main_node(compute: Machine) -> bool:
    """Whether the first process is on this machine; with one machine, whatever the environment says of others."""
    return not isinstance(compute, Distributed) or compute.nodes == 1 or os.environ.get(NODE_RANK) == "0"


def broadcast_object(value: Any) -> Any:
    """The main process's value, on all processes; each has to ask."""
    if not is_distributed():
        return value
    import torch.distributed

    shared = [value]
    torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]


def require_same_key(key: str) -> None:
    """Raise ConfigError unless all processes have this key, which names all that the training's result depends on."""
    if broadcast_object(key) != key:
        raise ConfigError(
            "this machine would train something else than the first one: its params.yaml, data/tokenized or models/base "
            "differs. Run all from one folder that the machines share"
        )


@contextmanager
def process_group(on_cpu: bool) -> Iterator[None]:
    """Connect the processes, by NCCL or gloo; after a failure the connection is left to end with the process."""
    if not is_distributed():
        yield
        return
    import torch.distributed
    from accelerate import PartialState

    PartialState(cpu=on_cpu)  # on cards it sets this process's, too
    yield
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def exit_with_error(message: str, is_defect: bool) -> None:
    """End this process and leave a message for whoever started it, who tells the first alone; no-op if nobody reads it."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not is_distributed() or not path:
        return
    Path(path).write_text(
        json.dumps({"message": message, "timestamp": int(time.time()), "is_defect": is_defect}), encoding="utf-8"
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # Python's own way out frees what threads of gloo still use, and now and then that aborts the process
