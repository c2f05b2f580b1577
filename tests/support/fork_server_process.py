"""The process of the fork server: imports modules, and forks a process for each command that a shim sends.

Arguments: path of its socket, number of an open file to write a 1 to when it is ready, modules to import. It ends when its
standard input is closed.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import operator
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import types
from pathlib import Path
from typing import NamedTuple, NoReturn

# Variables that Python or a library reads while it starts, by the start of their names.
READ_AT_IMPORT = (
    *("PYTHON", "LANG", "LC_", "TZ", "LD_", "HOME", "TMP", "TEMP", "XDG_"),
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TORCH_", "PYTORCH_", "CUDA_", "OMP_", "MKL_", "OPENBLAS_", "MPL"),
)
# torchrun reads the first when it starts its workers, and sets the second for them: no import depends on either.
READ_LATER = {"PYTHON_EXEC", "TORCH_NCCL_ASYNC_ERROR_HANDLING"}
DVC = Path(sys.executable).parent / "dvc"


class Request(NamedTuple):
    """A command, and what its process takes over from the shim's."""

    name: str  # python or dvc
    arguments: list[str]  # of python: -m MODULE …
    environment: dict[str, str]
    folder: str
    umask: int
    limits: dict[str, list[int]]  # number of a resource → soft and hard limit
    ignored: list[int]  # signals


class Command(NamedTuple):
    """A running command."""

    process: int
    descriptor: int  # of the process; readable when it has ended
    connection: socket.socket  # to its shim; readable when the shim has ended


class Server:
    """Forks a process for each command that a shim sends, and reports to the shim how it ended."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.close(os.pidfd_open(os.getpid()))  # a kernel without it ends the server now, not at the first command
        self.environment = dict(os.environ)  # before the imports
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.selector = selectors.PollSelector()
        self.commands: dict[object, Command] = {}  # by the two things that the selector watches

    def serve(self, started: int) -> Request:
        """Return, in a forked process, the command that it is to run. The server itself ends with its standard input."""
        self.listener.listen(64)
        with contextlib.suppress(OSError):  # pytest has ended
            os.write(started, b"1")
        os.close(started)
        for source in (sys.stdin, self.listener):
            self.selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is sys.stdin:
                    self.end()
                elif key.fileobj is self.listener:
                    if request := self.start(self.listener.accept()[0]):
                        return request
                elif command := self.commands.get(key.fileobj):
                    self.finish(command, key.fileobj)

    def start(self, connection: socket.socket) -> Request | None:
        """Fork a process for the command of a connection. Returns the command in that process, None in the server."""
        request, streams, process = None, [], None
        try:
            request = _receive(connection, streams)
            process = os.fork() if is_supported(request, self.environment) else None
        except (OSError, ValueError, TypeError):  # an incomplete request, or no more processes
            pass
        if process == 0:
            self.close(connection)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
        for stream in streams:
            os.close(stream)
        if process == 0:
            return request
        if process is None:
            connection.close()  # the shim runs the real program
        else:
            self.watch(Command(process, os.pidfd_open(process), connection))
        return None

    def watch(self, command: Command) -> None:
        for source in (command.descriptor, command.connection):
            self.commands[source] = command
            self.selector.register(source, selectors.EVENT_READ)
        _send_number(command.connection, command.process)

    def finish(self, command: Command, source: object) -> None:
        """Report a command's status to its shim if the command has ended; kill the command if its shim has."""
        self.selector.unregister(source)
        del self.commands[source]
        if source is command.connection:
            signal.pidfd_send_signal(command.descriptor, signal.SIGKILL)
            return
        code = os.waitstatus_to_exitcode(os.waitpid(command.process, 0)[1])
        os.close(command.descriptor)
        if self.commands.pop(command.connection, None):
            self.selector.unregister(command.connection)
            _send_number(command.connection, code)
        command.connection.close()

    def close(self, connection: socket.socket) -> None:
        """Close, in a forked process, the server's files."""
        self.selector.close()
        self.listener.close()
        connection.close()
        for source, command in self.commands.items():
            if source is command.connection:
                command.connection.close()
            else:
                os.close(command.descriptor)

    def end(self) -> NoReturn:
        """Exit. The commands that still run end with the server (see _take_over)."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
            os.rmdir(os.path.dirname(self.path))
        os._exit(0)


def is_supported(request: Request, environment: dict[str, str]) -> bool:
    """Whether a fork of a server with this environment runs a command like a new interpreter."""
    names = {*request.environment, *environment}
    changed = {name for name in names if request.environment.get(name) != environment.get(name)}
    if not environment.get("PYTHONPATH"):
        changed.discard("PYTHONPATH")  # see _take_over
    changed -= READ_LATER
    is_command = DVC.is_file() if request.name == "dvc" else len(request.arguments) > 1
    return is_command and not any(name.startswith(READ_AT_IMPORT) for name in changed)


def _receive(connection: socket.socket, streams: list[int]) -> Request:
    """A shim's request; its standard streams are added to `streams`. Raises OSError or ValueError if it is incomplete."""
    connection.settimeout(10)
    header, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    streams += descriptors
    body = b""
    while len(body) < int(header):
        part = connection.recv(1 << 16)
        if not part:
            raise OSError("the shim has ended")
        body += part
    return Request(**json.loads(body))


def _send_number(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # the shim has ended
        connection.sendall(b"%d\n" % number)


# In a forked process


def run(request: Request) -> None:
    """Run a command as a new interpreter would."""
    _take_over(request)
    sys.excepthook = _print_traceback
    main_module = sys.modules["__main__"] = types.ModuleType("__main__")
    if request.name == "dvc":
        sys.orig_argv = [sys.executable, str(DVC), *request.arguments]
        sys.argv = sys.orig_argv[1:]
        sys.path.insert(0, str(DVC.parent))
        main_module.__file__ = str(DVC)
        exec(compile(DVC.read_bytes(), DVC, "exec"), main_module.__dict__)
    else:
        sys.orig_argv = ["python", *request.arguments]
        sys.argv = ["-m", *request.arguments[2:]]
        sys.path.insert(0, request.folder)
        runpy._run_module_as_main(request.arguments[1])  # what the interpreter calls for -m


def _take_over(request: Request) -> None:
    """Give this process the environment and other properties of the shim's process."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # when the server ends
    os.setpgid(0, 0)  # a signal to the command's process group must not reach the server
    os.chdir(request.folder)
    os.umask(request.umask)
    for number, limits in request.limits.items():
        if resource.getrlimit(int(number)) != tuple(limits):
            resource.setrlimit(int(number), tuple(limits))
    for number in request.ignored:
        signal.signal(number, signal.SIG_IGN)
    added = request.environment.get("PYTHONPATH")
    if added and not os.environ.get("PYTHONPATH"):
        sys.path[:0] = map(os.path.abspath, added.split(os.pathsep))
    os.environ.clear()
    os.environ.update(request.environment)
    for module, reseed in (("numpy", "random.seed"), ("torch", "default_generator.seed")):  # `random` does it itself
        if module in sys.modules:
            operator.attrgetter(reseed)(sys.modules[module])()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        _reopen(name, number)


def _reopen(name: str, number: int) -> None:
    """Open a standard stream as Python does when it starts, with the properties of the server's stream."""
    like = getattr(sys, name)
    buffering = 0 if isinstance(like.buffer, io.RawIOBase) else -1
    stream = io.TextIOWrapper(
        open(number, "rb" if name == "stdin" else "wb", buffering, closefd=False),  # noqa: SIM115
        encoding=like.encoding,
        errors=like.errors,
        newline=None if name == "stdin" else "\n",
        line_buffering=not like.write_through and (name == "stderr" or os.isatty(number)),
        write_through=like.write_through,
    )
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """Print a traceback without the calls of this file."""
    while trace and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


def main() -> None:
    del sys.path[0]  # modules of this folder must not hide libraries
    atexit.register(_spare_libraries)  # before the imports: what is registered first runs last
    server = Server(sys.argv[1])
    for name in sys.argv[3:]:
        with contextlib.suppress(ImportError):  # another version of the library
            importlib.import_module(name)
    _libraries.extend(
        name for name in sys.modules if name.partition(".")[0] not in {*sys.stdlib_module_names, "__main__"}
    )
    _skip_destructors()
    gc.collect()
    gc.freeze()  # collections in forked processes leave these objects alone, so that their memory stays shared
    run(server.serve(int(sys.argv[2])))


_libraries: list[str] = []  # preloaded modules


def _spare_libraries() -> None:
    """Keep the interpreter, when it ends, from taking the libraries apart: in a fork that copies most of their memory."""
    spared = [sys.modules.pop(name, None) for name in _libraries]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(spared))


def _skip_destructors() -> None:
    """Have exit() skip the destructors of the preloaded libraries, which take a tenth of a second in each fork."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        atexit.register(libc.fflush, None)
        libc.on_exit(libc._exit, None)  # called with the exit status


if __name__ == "__main__":
    main()
