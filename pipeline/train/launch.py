"""Launches the processes that train one model on this node by torchrun, and reports one error if they fail.

The stage's command is the same for one process and for several, so for DVC's cache only the parameters differ: the stage
starts itself again as `compute.processes` processes, which the Trainer and Accelerate connect. With several nodes, the
stage is run on each. Workers report errors to the launcher, which prints only the root cause.
"""

import json
import logging
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.options import Compute, Distributed, Local
from pipeline.core.console import printable
from pipeline.core.distributed import NODE_RANK, is_distributed, is_main_node
from pipeline.core.interruption import SignalReceived
from pipeline.errors import ConfigError, ModelError, PipelineError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

MASTER_ADDRESS = "PET_MASTER_ADDR"  # torchrun's variable for the first node's address
# Parts of gloo's and NCCL's messages when a process at the other end has ended.
LOST_CONNECTION = re.compile(
    r"gloo|NCCL|Connection (closed|reset|refused)|TCPStore|DistNetworkError|DistBackendError", re.I
)


def launch_if_distributed(module: str, compute: Compute) -> bool:
    """Run a module as several processes if `compute` asks for them and this process is not one of them.

    Returns whether it did. Raises ConfigError if this machine or its environment lacks what `compute` needs.
    """
    if is_distributed():
        require_process_count(compute)
        return False
    if isinstance(compute, Local):
        return False
    from pipeline.modeling.devices import gpu_errors

    if errors := node_errors(compute.nodes) + gpu_errors(compute):
        raise ConfigError("\n".join(errors))
    launch(module, compute)
    return True


def require_process_count(compute: Compute) -> None:
    """Raise ConfigError unless as many processes run as the parameters ask for: their number changes the result."""
    processes = int(os.environ["WORLD_SIZE"])
    if isinstance(compute, Local):
        raise ConfigError(
            f"compute: local is one process, but {processes} were started; use compute=ddp or compute=fsdp"
        )
    if processes != compute.world_size:
        raise ConfigError(
            f"compute: expected {compute.processes} processes on each of {compute.nodes} nodes, but {processes} were "
            "started; run the stage directly, without torchrun or accelerate launch"
        )


def node_errors(nodes: int) -> list[str]:
    """The problems of this node's environment for a training on several nodes, one line each."""
    if nodes == 1:
        return []
    rank, errors = os.environ.get(NODE_RANK, ""), []
    if not rank.isdigit() or int(rank) >= nodes:
        errors.append(
            f"compute.nodes: {nodes}, but {NODE_RANK} is {rank or 'not set'}; expected 0 on the first node, up to "
            f"{nodes - 1} on the last"
        )
    if MASTER_ADDRESS not in os.environ:
        errors.append(
            f"compute.nodes: {nodes}, but {MASTER_ADDRESS} is not set; expected the first node's address, on every node"
        )
    return errors


def launch(module: str, compute: Distributed) -> None:
    """Run `python -m module` with this process's arguments in `compute.processes` processes.

    Only the first process writes to the console; the output of the others goes to temporary files. Raises a PipelineError
    with the root cause if a process fails.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # they would report a failure three times
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // compute.processes)))
    rendezvous = ["--standalone"] if compute.nodes == 1 else []
    size = ["--nnodes", str(compute.nodes), "--nproc-per-node", str(compute.processes), "--max-restarts", "0"]
    silent_ranks = range(1 if is_main_node(compute) else 0, compute.processes)
    redirects = ["--redirects", ",".join(f"{rank}:3" for rank in silent_ranks)] if silent_ranks else []
    with tempfile.TemporaryDirectory() as logs:
        arguments = [*rendezvous, *size, *redirects, "--log-dir", logs, "--module", module, *sys.argv[1:]]
        sys.stdout.flush()
        try:
            torchrun.run(torchrun.parse_args(arguments))
        except ChildFailedError as error:
            raise root_cause(error, compute.world_size) from None
        except SignalException as error:
            raise stop_error(Path(logs), error.sigval) from None


def stop_error(logs: Path, number: int) -> BaseException:
    """The error of a training that a signal ended: what its processes reported, such as the last checkpoint, or the signal."""
    for file in sorted(logs.rglob("error.json")):
        report = json.loads(file.read_text(encoding="utf-8"))
        if not report.get("is_defect", True):
            return PipelineError(str(report["message"]))
    return SignalReceived(number)


def root_cause(error: "ChildFailedError", processes: int) -> PipelineError:
    """The error that came first: when one process is killed or fails, the others lose their connection to it.

    The traceback of a defect is written to standard error.
    """
    rank, failure = min(error.failures.items(), key=lambda item: (_precedence(item[1]), item[1].timestamp))
    process = f"process {rank + 1} of {processes}"
    if was_killed(failure):
        return ModelError(
            f"{process} was killed ({failure.signal_name()}), and the others were stopped. Unless someone killed it, the "
            "system ran out of memory: lower train.batch_size or compute.processes. "
            "Run it again to resume from the last checkpoint"
        )
    data = failure.error_file_data
    if not data.get("is_defect", True):
        return PipelineError(str(failure.message))
    if LOST_CONNECTION.search(str(failure.message)):
        return ModelError(
            f"{process} lost its connection to the others. If another node reports an error, fix that first; also check "
            f"that {MASTER_ADDRESS} can be reached from this node. Run it again to resume from the last checkpoint"
        )
    sys.stderr.write(printable(f"\n{failure.message}\n"))
    return PipelineError(f"{process} failed; its traceback is above")


def was_killed(failure: "ProcessFailure") -> bool:
    """Whether a signal ended the process before it reported an error."""
    return failure.exitcode < 0 and "is_defect" not in failure.error_file_data


def _precedence(failure: "ProcessFailure") -> int:
    """The rank of a failure as root cause: killed (0), reported by us (1), a defect (2), a consequence of others (3)."""
    if was_killed(failure) and failure.signal_name() != "SIGTERM":  # torchrun stops the other processes by SIGTERM
        return 0
    if not failure.error_file_data.get("is_defect", True):
        return 1
    return 3 if was_killed(failure) or LOST_CONNECTION.search(str(failure.message)) else 2
