"""One of several processes that train one model: its rank, values that all ranks share, and its errors.

torchrun passes each process its rank in the environment (see pipeline/train/launch.py). A process that torchrun did not
start counts as the main process of a group of one.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.options import ComputeSection, Distributed
from pipeline.errors import ConfigError

NODE_RANK = "PET_NODE_RANK"  # torchrun's variable: the rank of this node, from 0


def is_distributed() -> bool:
    """Whether this process is one of several. RANK alone does not show that: Kubernetes sets it for a whole node."""
    return "LOCAL_RANK" in os.environ


def local_rank() -> int | None:
    """The rank of this process on its node, from 0, which is also the index of its GPU; None if it is the only process."""
    return int(os.environ["LOCAL_RANK"]) if is_distributed() else None


def is_main_process() -> bool:
    """Whether this process writes the outputs and the log lines: rank 0, or the only process."""
    return not is_distributed() or os.environ["RANK"] == "0"


def is_main_node(compute: ComputeSection) -> bool:
    """Whether this node runs the main process. The environment's node rank counts only if compute asks for several nodes."""
    return not isinstance(compute, Distributed) or compute.nodes == 1 or os.environ.get(NODE_RANK) == "0"


def broadcast_object(value: Any) -> Any:
    """Return the main process's value on every rank. Collective: every rank must call it."""
    if not is_distributed():
        return value
    import torch.distributed

    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def gather_objects(value: Any) -> list[Any]:
    """Return the values of all ranks, in their order. Collective: every rank must call it."""
    if not is_distributed():
        return [value]
    import torch.distributed

    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def require_same_key(key: str) -> None:
    """Raise ConfigError unless every rank has the main process's key, a hash of all that the training depends on."""
    if broadcast_object(key) != key:
        raise ConfigError(
            "params.yaml, data/tokenized or models/base on this machine differ from those on the first machine; start the "
            "training on all machines in one folder that they share"
        )


@contextmanager
def process_group(on_cpu: bool) -> Iterator[None]:
    """Connect the ranks by NCCL, or by gloo on CPUs. After an error the connection is not closed: it ends with the process."""
    if not is_distributed():
        yield
        return
    import torch.distributed
    from accelerate import PartialState

    PartialState(cpu=on_cpu)  # on GPUs it also selects this process's GPU
    yield
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def exit_with_error(message: str, is_defect: bool) -> None:
    """End this process with a message for torchrun, which reports only the root cause. Without torchrun, do nothing."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not is_distributed() or not path:
        return
    report = json.dumps({"message": message, "timestamp": int(time.time()), "is_defect": is_defect})
    temporary = Path(f"{path}.new")  # torchrun must not read a file that is only half written
    temporary.write_text(report, encoding="utf-8")
    temporary.replace(path)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # sys.exit would free memory that gloo's threads still use, which now and then aborts the process
