"""Commands that the fork server runs behave as in a new interpreter, and end with their shims, their server and pytest."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import fork_server
from support.fork_server import ADDRESS, SHIMS
from support.project import environment, forking_environment, run_in

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, there is no fork server")

MODULES = {
    # What a command can know about its process; `_` and SHLVL are the shell's.
    "probe": """
        import os, resource, signal, sys
        ours = ("PATH", "FORK_SERVER", "PYTEST_CURRENT_TEST", "_", "SHLVL")
        print("\\n".join(f"{key}: {value}" for key, value in {
            "argv": [sys.argv, sys.orig_argv[1:]], "path": sys.path, "folder": os.getcwd(), "flags": str(sys.flags),
            "environment": {name: value for name, value in sorted(os.environ.items()) if name not in ours},
            "main": sorted(name for name in vars(sys.modules["__main__"]) if name[:2] != "__"), "umask": os.umask(0),
            "limits": [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")],
            "streams": [
                (each.encoding, each.errors, each.line_buffering, each.write_through, each.isatty(), type(each.buffer).__name__)
                for each in (sys.stdin, sys.stdout, sys.stderr)
            ],
            "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, []),
            "ignored": sorted(n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN),
            "files": len(os.listdir("/proc/self/fd")),
        }.items()))
    """,
    "forked": """
        import os, sys
        from pathlib import Path
        print("support/fork_server_process" in Path(f"/proc/{os.getppid()}/cmdline").read_text(), *sorted(sys.modules))
    """,
    "exits": "import sys; print('out'); print('err', file=sys.stderr); sys.exit(int(sys.argv[1]))",
    "message": "import sys; sys.exit('bye')",
    "fails": "import sys\ndef fail():\n    raise ValueError('ä')\nprint('before')\nfail()",
    "interrupted": "raise KeyboardInterrupt",
    "broken": "x = = 1",
    "large": "import sys; sys.stdout.write('x' * 20_000_000); sys.stderr.write('y' * 2_000_000)",
    "reads": "import sys; print(repr(sys.stdin.read()))",
    "unflushed": """
        import atexit, threading
        file = open("file.txt", "w")
        file.write("written")
        class Last:
            def __del__(self): print("deleted")
        last = Last()
        atexit.register(print, "at exit")
        threading.Timer(0.2, print, ["thread"]).start()
    """,
    "spawns": """
        import multiprocessing
        def work(): print("in", __name__, flush=True)
        if __name__ == "__main__":
            process = multiprocessing.get_context("spawn").Process(target=work)
            process.start()
            process.join()
            print(process.exitcode)
    """,
    "dies": "import os, sys; os.kill(os.getpid(), int(sys.argv[1]))",
    "waits": "import os, time; print(os.getpid(), flush=True); time.sleep(60)",
    "handles": """
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
        print(os.getpid(), flush=True)
        time.sleep(60)
    """,
}

COMMANDS = {
    "probe": "python -m probe",
    "arguments": """python -m probe ä 日本 "a b" "" $'\\xff' "'" '"' $'\\n' --""",
    "umask and limits": "umask 027; ulimit -f 100; ulimit -n 200; python -m probe",
    "ignored signals": "trap '' INT HUP; python -m probe",
    "variables": "DVC_STAGE=ä EMPTY= python -m probe",
    "large variable": "LARGE=$(head -c 100000 /dev/zero | tr '\\0' x) python -m probe",
    "module search path": "PYTHONPATH=..:/tmp python -m probe",
    "working directory that is a link": "ln -sfn . link && cd link && python -m probe",
    "deleted working directory": "mkdir gone && cd gone && rmdir ../gone && python -m json.tool --help",
    "closed standard streams": "python -m exits 0 <&-; python -m exits 0 >&-; python -m exits 0 2>&-",
    "another open file": "exec 9>/dev/null; python -m probe",
    "exit code": "python -m exits 3",
    "exit message": "python -m message",
    "traceback": "python -m fails",
    "interrupt": "python -m interrupted",
    "syntax error": "python -m broken",
    "no such module": "python -m nowhere",
    "no module": "python -m",
    "large output": "python -m large",
    "large input": "head -c 3000000 /dev/zero | python -m reads",
    "end of the interpreter": "python -m unflushed && cat file.txt",
    "spawned process": "python -m spawns",
    "code": "python -c 'print(5)'",
    "script": "echo 'print(6)' | python -",
    "reader that stops": "python -m large 2>/dev/null | head -c 5",
    "dvc": "dvc --version; dvc nonsense",
    "without a server": f"{ADDRESS}=/nowhere python -m probe",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the modules."""
    folder = tmp_path_factory.mktemp("modules")
    for name, code in MODULES.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(code), encoding="utf-8")
    return folder


def start(folder: Path, *command: str, **options: bool) -> tuple[subprocess.Popen[str], int]:
    """A shim of a forked command, and the command's process, which has printed its number."""
    shim = subprocess.Popen(
        ["python", "-m", *command],
        cwd=folder,
        env=forking_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert shim.stdout is not None
    return shim, int(shim.stdout.readline())


def is_running(process: int) -> bool:
    """Whether a process runs; one that has ended may still be waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@linux_only
def test_the_server_starts_and_preloads_no_module_of_the_project(folder: Path) -> None:
    is_forked, *modules = run_in(folder, "python", "-m", "forked").stdout.split()
    assert is_forked == "True"
    assert {"torch", "transformers", "dvc.cli"} <= set(modules)
    assert not {name.partition(".")[0] for name in modules} & {
        "pipeline",
        "hydra_plugins",
        "bench",
        "support",
        "conftest",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_a_forked_command_behaves_as_in_a_new_interpreter(name: str, folder: Path) -> None:
    forked, fresh = (run_in(folder, "bash", "-c", COMMANDS[name], fresh=fresh) for fresh in (False, True))
    assert (forked.returncode, forked.stdout, forked.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)


@linux_only
@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "HF_HOME", "PYTHONHASHSEED", "TZ", "LC_ALL"])
def test_a_variable_that_libraries_read_at_import_needs_a_new_interpreter(variable: str, folder: Path) -> None:
    is_forked = run_in(folder, "python", "-m", "forked", **{variable: "7"}).stdout.split()[0]
    assert is_forked == "False"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT])
def test_a_killed_command_reports_its_signal(number: int, folder: Path) -> None:
    assert run_in(folder, "python", "-m", "dies", str(int(number))).returncode == -number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_shim_reaches_the_command(number: int, folder: Path) -> None:
    shim, process = start(folder, "waits")
    shim.send_signal(number)
    _, error = shim.communicate(timeout=60)
    assert shim.returncode == -number
    assert ("KeyboardInterrupt" in error) == (number == signal.SIGINT)
    wait_until(lambda: not is_running(process))


def test_a_command_may_handle_a_signal_to_the_shim(folder: Path) -> None:
    shim, _ = start(folder, "handles")
    shim.terminate()
    assert shim.communicate(timeout=60) == ("", "")
    assert shim.returncode == 9


def test_killing_the_shim_ends_the_command(folder: Path) -> None:
    shim, process = start(folder, "waits")
    shim.kill()
    assert shim.communicate(timeout=60) == ("", "")
    assert shim.returncode == -signal.SIGKILL
    wait_until(lambda: not is_running(process))


def test_killing_the_process_group_ends_the_command(folder: Path) -> None:
    shim, process = start(folder, "waits", start_new_session=True)
    os.killpg(shim.pid, signal.SIGKILL)
    shim.communicate(timeout=60)
    wait_until(lambda: not is_running(process))


def test_many_commands_run_side_by_side(folder: Path) -> None:
    shims = [start(folder, "waits") for _ in range(8)]
    assert len({process for _, process in shims}) == 8
    for shim, process in shims:
        os.kill(process, signal.SIGKILL)
        shim.communicate(timeout=60)
        assert shim.returncode == -signal.SIGKILL


STARTER = """
import os, sys, time
from support.fork_server import start_server
print(start_server(dict(os.environ), ()), flush=True)
time.sleep(float(sys.argv[1]))
"""


@linux_only
@pytest.mark.parametrize("end", ["kill", "exit"])
def test_server_and_commands_end_with_the_process_that_started_the_server(end: str, folder: Path) -> None:
    tests = str(Path(__file__).parents[1])
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, "60" if end == "kill" else "2"],
        env=environment(PYTHONPATH=tests),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    address = starter.stdout.readline().strip()
    shim = subprocess.Popen(
        ["python", "-m", "waits"],
        cwd=folder,
        env=environment(PYTHONPATH=tests, PATH=f"{SHIMS}{os.pathsep}{environment()['PATH']}", **{ADDRESS: address}),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert shim.stdout is not None
    process = int(shim.stdout.readline())
    if end == "kill":
        starter.kill()
    starter.communicate(timeout=60)
    wait_until(lambda: not Path(address).parent.exists() and not is_running(process))
    shim.communicate(timeout=60)
    assert shim.returncode == -signal.SIGKILL


@linux_only
def test_incomplete_requests_do_not_stop_the_server(folder: Path) -> None:
    address = forking_environment()[ADDRESS]
    for data in (b"", b"12", b"nonsense", b"00000099{}", b"00000002{}", b"00000005[1,2]"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            connection.sendall(data)
    assert run_in(folder, "python", "-m", "forked").stdout.startswith("True")


@pytest.mark.parametrize("reason", ["platform", "address"])
def test_without_a_server_commands_run_in_new_interpreters(
    reason: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "_addresses", [])
    if reason == "platform":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:  # too long for a socket
        long = tmp_path / ("x" * 120)
        long.mkdir()
        monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(long))
    assert run_in(folder, "python", "-m", "exits", "4").returncode == 4
    assert fork_server._addresses == [""]
