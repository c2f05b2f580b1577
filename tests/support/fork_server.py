"""Runs `python -m MODULE` and `dvc` as forked processes that have imported the large libraries already.

A test that runs the pipeline's commands spends most of its time on imports: PyTorch and transformers take seconds, and each
stage is a process. Here one server per pytest process (fork_server_process.py) imports the libraries once. The shims in
tests/support/shims come before the real `python` and `dvc` in PATH. They pass arguments, environment, working directory,
standard streams and limits to the server, which forks a process for each command. The project's own modules are never
preloaded: each command imports them from its own working directory.

Only on Linux: forks of a process that has loaded Apple's frameworks may crash. Elsewhere, where the server does not start,
and for commands that a fork cannot run like a new interpreter, the shims run the real programs.
"""

import atexit
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = Path(__file__).with_name("fork_server_process.py")
SHIMS = Path(__file__).parent / "shims"
ADDRESS = "FORK_SERVER"  # environment variable with the path of the server's socket
START_SECONDS = 180  # after which a server that is still importing is given up
PRELOADED = (
    "torch",
    "torch.distributed",
    "torch._dynamo",
    "transformers",
    "transformers.trainer",
    "transformers.models.auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.gpt_neox.modeling_gpt_neox",
    "transformers.integrations.sdpa_attention",
    "accelerate",
    "peft",
    "datasets",
    "pyarrow.parquet",
    "pandas",
    "sacrebleu.metrics",
    "rouge_score.rouge_scorer",
    "matplotlib.pyplot",
    "jinja2",
    "pydantic",
    "hydra",
    "omegaconf",
    "ruamel.yaml",
    "fsspec",
    "dvc.cli",
    "dvc.repo",
    "dvc.api",
    "dvc.utils.hydra",
    "dvc.commands.repro",
    "dvc.commands.experiments.run",
)
_addresses: list[str] = []


def server_address(environment: dict[str, str]) -> str:
    """The address of this process's server, "" if there is none. The first call starts it, in this environment."""
    if not _addresses:
        _addresses.append(start_server(environment))
    return _addresses[0]


def start_server(environment: dict[str, str], modules: tuple[str, ...] = PRELOADED) -> str:
    """Start a server that has imported these modules. Returns the path of its socket, "" if it does not start."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return ""
    folder = tempfile.mkdtemp(prefix="fork-server-")
    path, (ready, started) = f"{folder}/socket", os.pipe()
    process = subprocess.Popen(
        [sys.executable, str(SERVER), path, str(started), *modules],
        env=environment,
        cwd="/",
        stdin=subprocess.PIPE,  # closed when this process ends, however it ends: the server ends then, too
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[started],
        start_new_session=True,  # Ctrl-C reaches the shims, which forward it
    )
    os.close(started)
    readable = select.select([ready], [], [], START_SECONDS)[0]
    is_ready = bool(readable) and os.read(ready, 1) == b"1"
    os.close(ready)
    atexit.register(_stop, process, folder)
    if not is_ready:
        _stop(process, folder)
    return path if is_ready else ""


def _stop(process: subprocess.Popen[bytes], folder: str) -> None:
    if process.stdin and not process.stdin.closed:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    shutil.rmtree(folder, ignore_errors=True)
