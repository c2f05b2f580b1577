"""Runs `python -m MODULE` and `dvc` as forked processes that have imported the large libraries already.

A test that runs the pipeline's commands spends most of its time on imports: PyTorch and transformers take seconds, and each
stage is a process. Here one process per pytest worker imports the libraries once. The shims in tests/support/shims stand
before the real `python` and `dvc` in PATH; they pass arguments, environment, working directory and standard streams to the
server, which forks a process for each command. The project's own modules are never preloaded: each command imports them
from its own working directory. Whatever the server cannot run faithfully runs in a new interpreter (see `is_supported`).
"""

import array
import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

SHIMS = Path(__file__).parent / "shims"
ADDRESS = "FORK_SERVER"  # environment variable with the path of the server's socket
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


class Request(NamedTuple):
    arguments: list[str]  # as the shim got them: python -m module … or dvc …
    environment: dict[str, str]
    folder: str


def is_supported(command: tuple[str, ...], changes: dict[str, str]) -> bool:
    """Whether a command would run the same in a fork: imports must not depend on the variables that it changes."""
    runs_module = command[0] in ("python", sys.executable) and command[1:2] == ("-m",)
    at_import = ("HF_", "PYTHON", "OMP_", "MKL_", "PET_", "TORCH")
    return (runs_module or command[0] == "dvc") and not any(name.startswith(at_import) for name in changes)


_servers: dict[int, tuple[subprocess.Popen[bytes], str]] = {}


def server_address(environment: dict[str, str]) -> str:
    """The socket of this process's server, which is started by the first call with the environment of the tests."""
    if os.getpid() not in _servers:
        folder = tempfile.TemporaryDirectory(prefix="fork-server-")
        path = str(Path(folder.name) / "socket")
        ready, theirs = os.pipe()
        process = subprocess.Popen(
            [sys.executable, __file__, path, str(theirs)], env=environment, pass_fds=[theirs], cwd="/"
        )
        os.close(theirs)
        assert os.read(ready, 1) == b"1", "the fork server did not start"
        os.close(ready)
        atexit.register(folder.cleanup)
        atexit.register(process.kill)
        _servers[os.getpid()] = process, path
    return _servers[os.getpid()][1]


def serve(path: str, ready: int) -> Request:
    """Accept requests for ever; return, in a forked process, the request that it is to run."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each forked process copies the pages of all objects when it collects garbage
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(32)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # handlers are not waited for
    os.write(ready, b"1")
    os.close(ready)
    parent = os.getppid()
    while True:
        if not select.select([listener], [], [], 5)[0]:
            if os.getppid() != parent:  # pytest was killed
                os._exit(0)
            continue
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _handle(connection)
        connection.close()


def _handle(connection: socket.socket) -> Request:
    """Fork the process that runs the command and return in it; pass its exit status to the shim."""
    request, streams = _receive(connection)
    worker = os.fork()
    if worker == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return request
    for stream in streams:
        os.close(stream)
    threading.Thread(target=_end_with_the_shim, args=(connection, worker), daemon=True).start()
    _, status = os.waitpid(worker, 0)
    with contextlib.suppress(OSError):
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _end_with_the_shim(connection: socket.socket, worker: int) -> None:
    """Kill the command when the shim was killed, as the shell's child would be."""
    if not connection.recv(1):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def _receive(connection: socket.socket) -> tuple[Request, list[int]]:
    header, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * 4))
    streams = array.array("i")
    for _, _, data in ancillary:
        streams.frombytes(data)
    body = b""
    while len(body) < int(header):
        body += connection.recv(1 << 16)
    return Request(**json.loads(body)), list(streams)


def prepare(request: Request) -> tuple[str, dict[str, Any]]:
    """Make this process what a new interpreter would be; return the module to run."""
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        raw = open(number, f"{mode}b", closefd=False)  # noqa: SIM115
        text = io.TextIOWrapper(
            raw,
            encoding="utf-8",
            errors="backslashreplace" if name == "stderr" else "surrogateescape",
            line_buffering=name == "stderr" or os.isatty(number),
        )
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    name, *arguments = request.arguments
    if name == "dvc":
        sys.argv = [str(Path(sys.executable).parent / "dvc"), *arguments]
        sys.path[0] = str(Path(sys.executable).parent)
        return "dvc", {}
    sys.argv = arguments[1:]  # without -m; runpy puts the module's file in the first place
    sys.path[0] = request.folder
    return arguments[1], {"alter_sys": True}


def main() -> None:
    module, options = prepare(serve(sys.argv[1], int(sys.argv[2])))
    code: object = 0
    try:
        runpy.run_module(module, run_name="__main__", **options)
    except SystemExit as error:
        code = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # waits for the threads that a program waits for at its end
    atexit._run_exitfuncs()  # and no finalization, which would copy all pages of the server and take seconds
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    main()
