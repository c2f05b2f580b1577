"""Starts the processes that train one model on this machine, by torchrun, and tells in one message what they failed of.

The stage's command is the same for one process and for many, so that DVC's cache knows no difference but the parameters:
the stage starts itself anew as `compute.processes` processes, which Trainer and Accelerate bring together. With several
machines the stage is run on each.
"""

import logging
import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING

from pipeline.config.options import Distributed, Local, Machine
from pipeline.core.distributed import NODE_RANK, is_distributed, is_main_node
from pipeline.errors import ConfigError, ModelError, PipelineError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

MASTER_ADDRESS = "PET_MASTER_ADDR"  # torchrun's, as NODE: where the first machine can be reached
# What gloo and NCCL say when a process at the other end has gone.
LOST_CONNECTION = re.compile(
    r"gloo|NCCL|Connection (closed|reset|refused)|TCPStore|DistNetworkError|DistBackendError", re.I
)


def launch_if_distributed(module: str, compute: Machine) -> bool:
    """Run a module as several processes, if the parameters want that and this is not one of them; True if it was done."""
    if is_distributed():
        require_process_count(compute)
        return False
    if isinstance(compute, Local):
        return False
    assert isinstance(compute, Distributed)
    from pipeline.modeling.devices import gpu_errors

    if faults := node_errors(compute.nodes) + gpu_errors(compute):
        raise ConfigError("\n".join(faults))
    launch(module, compute)
    return True


def require_process_count(compute: Machine) -> None:
    """Raise ConfigError unless there are as many processes as the parameters say: their number changes the result."""
    there = int(os.environ["WORLD_SIZE"])
    if isinstance(compute, Local):
        raise ConfigError(f"compute: local is one process, but {there} were started; use compute=ddp or compute=fsdp")
    if there != compute.world_size:
        raise ConfigError(
            f"compute: {compute.processes} processes on each of {compute.nodes} machines, but {there} were started; "
            "start the stage by itself, without torchrun or accelerate launch"
        )


def node_errors(nodes: int) -> list[str]:
    """What the environment lacks for a training on so many machines, one line each."""
    if nodes == 1:
        return []
    rank, faults = os.environ.get(NODE_RANK, ""), []
    if not rank.isdigit() or int(rank) >= nodes:
        faults.append(
            f"compute.nodes: {nodes}, but {NODE_RANK} is {rank or 'not set'}; expected 0 on the first machine, up to "
            f"{nodes - 1} on the last"
        )
    if MASTER_ADDRESS not in os.environ:
        faults.append(
            f"compute.nodes: {nodes}, but {MASTER_ADDRESS} is not set; expected the first machine's address, on each of them"
        )
    return faults


def launch(module: str, compute: Distributed) -> None:
    """Run `python -m module` as so many processes, with this one's arguments; PipelineError if one of them fails.

    The first process alone has the console; what the others print is kept until the end, for a defect to be seen.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # they would tell a failure three times
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // compute.processes)))
    where = ["--standalone"] if compute.nodes == 1 else []
    quiet = range(1 if is_main_node(compute) else 0, compute.processes)
    with tempfile.TemporaryDirectory() as logs:
        redirects = ["--redirects", ",".join(f"{rank}:3" for rank in quiet)] if quiet else []
        size = ["--nnodes", str(compute.nodes), "--nproc-per-node", str(compute.processes), "--max-restarts", "0"]
        arguments = [*where, *size, *redirects, "--log-dir", logs, "--module", module, *sys.argv[1:]]
        sys.stdout.flush()
        try:
            torchrun.run(torchrun.parse_args(arguments))
        except ChildFailedError as error:
            raise root_cause(error, compute.world_size) from None
        except SignalException:
            raise KeyboardInterrupt from None


def root_cause(error: "ChildFailedError", processes: int) -> PipelineError:
    """What went wrong first: a process that was killed makes the others lose their connection, as one that stopped does."""
    rank, failure = min(error.failures.items(), key=lambda each: (_rank_of(each[1]), each[1].timestamp))
    process = f"process {rank + 1} of {processes}"
    if was_killed(failure):
        return ModelError(
            f"{process} was killed ({failure.signal_name()}), and the others were ended. If nobody did that, the system "
            "ran out of memory: lower train.batch_size or compute.processes. Run it again to go on from the last checkpoint"
        )
    data = failure.error_file_data
    if not data.get("is_defect", True):
        return PipelineError(str(failure.message))
    if LOST_CONNECTION.search(str(failure.message)):
        return ModelError(
            f"{process} lost its connection to the others. If another machine says why, mend that; see also that "
            f"{MASTER_ADDRESS} can be reached from here. Run it again to go on from the last checkpoint"
        )
    sys.stderr.write(f"\n{failure.message}\n")
    return PipelineError(f"{process} failed, as told above")


def was_killed(failure: "ProcessFailure") -> bool:
    """Whether a signal ended the process before it could say what was wrong."""
    return failure.exitcode < 0 and "is_defect" not in failure.error_file_data


def _rank_of(failure: "ProcessFailure") -> int:
    """Killed before told before broken before cut off."""
    if was_killed(failure) and failure.signal_name() != "SIGTERM":  # that is how the others are ended
        return 0
    if not failure.error_file_data.get("is_defect", True):
        return 1
    return 3 if was_killed(failure) or LOST_CONNECTION.search(str(failure.message)) else 2
