"""Several processes train like one, report one error when one of them fails, and resume after kill -9.

The workers of one training are new interpreters, as torchrun starts them. Those of the others come from the fork server,
which spares each the seconds of importing PyTorch (see support/torchrun_python).
"""

import csv
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.interruptions import start_stage, wait_for_line
from support.project import TINY, environment, python_in
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.compose.composition import compose_params, parse_params
from pipeline.compose.preflight import compute_errors
from pipeline.config.options import Ddp, Local
from pipeline.config.validation import validate_params
from pipeline.core.distributed import NODE_RANK
from pipeline.core.files import read_json, write_json
from pipeline.core.paths import TRAIN_STEPS
from pipeline.errors import ConfigError
from pipeline.modeling.loading import load_model
from pipeline.train import stage as train
from pipeline.train.launch import MASTER_ADDRESS, launch_if_distributed, root_cause
from pipeline.train.schedules import total_steps
from pipeline.train.step_log import LoggedStep, read_step_log

TRAIN_ROWS = Path("data/tokenized/train.parquet")
SUPPORT = Path(__file__).parents[1] / "support"
FINETUNED, METRICS = Path("models/finetuned"), Path("metrics/details/train.json")
# 14 validation rows in batches of 3: the processes' last batches are filled up with rows that must not count twice.
SHORT = ("train.max_steps=6", "train.eval_steps=3", "train.logging_steps=1", "train.eval_batch_size=3")
TWO_PROCESSES = (*SHORT, "train.batch_size=4", "compute=ddp")
STOPPED = "train stopped: "
Options = Callable[..., Any]


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun gets its workers from the fork server."""
    monkeypatch.setenv("PYTHON_EXEC", str(SUPPORT / "torchrun_python"))


@pytest.fixture
def new_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process comes from the fork server: in forked ones, six steps can be over before a kill arrives."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")


def write_params(folder: Path, *overrides: str) -> None:
    (folder / "params.yaml").write_text(compose_params(*TINY, *overrides))


def history() -> list[list[float]]:
    """The rows of a training's two history files."""
    rows = []
    for name in ("history.tsv", "validation.tsv"):
        with (Path("metrics/train") / name).open() as file:
            rows += [[float(cell) for cell in row] for row in list(csv.reader(file, delimiter="\t"))[1:]]
    return rows


def assert_same_history(rows: list[list[float]]) -> None:
    for row, expected in zip(history(), rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-5)


def assert_same_steps(steps: list[LoggedStep]) -> None:
    """The same rows in the same order; losses, gradient norms and rates equal to rounding."""
    for step, expected in zip(read_step_log(TRAIN_STEPS), steps, strict=True):
        assert step[:2] == expected[:2]
        assert step[2:] == pytest.approx(expected[2:], rel=1e-4)


def run_stage(folder: Path) -> str:
    """The output of the train stage, as DVC runs it."""
    done = python_in(folder, "pipeline.train")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def train_in_one_process(folder: Path, *overrides: str) -> list[list[float]]:
    """The history of one process that takes as many rows per step as two."""
    write_params(folder, *SHORT, "train.batch_size=8", *overrides)
    train.train(validate_params(parse_params(Path("params.yaml").read_text())).train, torch.device("cpu"))
    return history()


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kill_second_process(folder: Path, line: str, module: str, *arguments: str) -> str:
    """The error of a training whose second process is killed when the first one logs a line with this start."""
    process = start_stage(folder, module, *arguments, DVC_STAGE="train")
    wait_for_line(process, line)
    os.kill(process_of_rank(1, folder), signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode == 1
    return error


def process_of_rank(rank: int, folder: Path) -> int:
    """The process in this working directory that torchrun started with this local rank."""
    variable = f"LOCAL_RANK={rank}".encode()
    matching = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.joinpath("cwd").resolve() == folder.resolve():
                matching += [int(path.name)] * (variable in path.joinpath("environ").read_bytes().split(b"\0"))
        except OSError:  # it has ended, or is another user's
            continue
    (process,) = matching
    return process


def test_two_processes_train_like_one_with_the_same_rows_per_step(in_built: Path) -> None:
    """Workers in new interpreters; rows grouped by length, several epochs, gradients of two batches per step.

    The rows fill all steps: several processes would repeat rows in a last step that is not full.
    """
    pq.write_table(pq.read_table(TRAIN_ROWS).slice(0, 96), TRAIN_ROWS)
    expected = train_in_one_process(in_built, "train.max_steps=16", "train.gradient_accumulation=2")
    weights, steps = load_model(FINETUNED).state_dict(), read_step_log(TRAIN_STEPS)
    write_params(in_built, *TWO_PROCESSES, "train.max_steps=16", "train.gradient_accumulation=2")
    lines = run_stage(in_built).splitlines()
    assert lines[0].endswith(" rows: 16 steps of 16 rows, fp32 on cpu in 2 processes (DDP)")
    assert [line.split(" ")[0] for line in lines] == ["Training", *["step"] * 7, "Validation"]
    assert_same_history(expected)
    assert_same_steps(steps)
    model = AutoModelForCausalLM.from_pretrained(FINETUNED)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=2e-4)
    # 6 × (51,072 parameters − 400 × 32 of the embedding) × 96 tokens × 16 rows
    assert read_json(METRICS)["gflops_per_step_at_full_length"] == pytest.approx(0.352714752)


@pytest.mark.usefixtures("new_interpreters")
def test_killed_process_stops_the_others_and_the_next_run_resumes(in_built: Path) -> None:
    """LoRA with dropout, so that each process's random state matters."""
    write_params(in_built, *TWO_PROCESSES, "train/method=lora", "train.method.dropout=0.2")
    run_stage(in_built)
    undisturbed, expected, steps = files_in(FINETUNED), history(), TRAIN_STEPS.read_bytes()
    error = kill_second_process(in_built, "step 4/6", "pipeline.train", "hydra.verbose=true")
    error = error[error.index(STOPPED) :]
    assert error.startswith(STOPPED + "process 2 of 2 was killed (SIGKILL), and the others were stopped.")
    assert error.endswith("  dvc checkout\n  git restore metrics\n")
    assert "Resuming from checkpoint-3" in run_stage(in_built)
    assert files_in(FINETUNED) == undisturbed
    assert history() == expected
    assert TRAIN_STEPS.read_bytes() == steps
    assert list(Path(".checkpoints").iterdir()) == []


@pytest.mark.usefixtures("new_interpreters")
def test_fsdp_trains_like_one_process_resumes_and_saves_the_whole_model(in_built: Path) -> None:
    expected, steps = train_in_one_process(in_built), read_step_log(TRAIN_STEPS)
    write_params(in_built, *TWO_PROCESSES)
    params = parse_params(Path("params.yaml").read_text())
    params["compute"] |= {"kind": "fsdp", "reshard_after_forward": True}  # composition refuses it without a GPU
    write_json(Path("params.yaml"), params)
    (in_built / "support").mkdir()
    shutil.copy(SUPPORT / "fsdp_on_cpu.py", in_built / "support")
    error = kill_second_process(in_built, "step 4/6", "support.fsdp_on_cpu")
    assert STOPPED + "process 2 of 2 was killed (SIGKILL)" in error
    done = python_in(in_built, "support.fsdp_on_cpu")
    assert done.returncode == 0, done.stderr
    assert "fp32 on cpu in 2 processes (FSDP)" in done.stdout
    assert "Resuming from checkpoint-3" in done.stdout
    assert_same_history(expected)
    assert_same_steps(steps)
    parameters = AutoModelForCausalLM.from_pretrained(FINETUNED).num_parameters()
    assert parameters == read_json(METRICS)["parameters"] == 51_072


def train_on_two_nodes(folder: Path, *overrides_of_second: str) -> list[tuple[int, str, str]]:
    """(exit code, output, errors) of two launchers with one process each, which meet at a port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    write_params(folder, *TWO_PROCESSES, "compute.processes=1", "train.packing=true")
    processes = []
    for node, overrides in enumerate(((), overrides_of_second)):
        variables = {"PET_NODE_RANK": str(node), "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
        processes.append(start_stage(folder, "pipeline.train", "compute.nodes=2", *overrides, **variables))
    texts = [process.communicate() for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


@pytest.mark.usefixtures("forked_workers")
def test_two_nodes_train_like_one_process_and_the_first_writes(in_built: Path) -> None:
    """Packed: rows that fill up the last batch of an evaluation could not be separated from the others."""
    expected = train_in_one_process(in_built, "train.packing=true")
    first, second = train_on_two_nodes(in_built)
    assert (first[0], first[2]) == (0, "")
    assert "fp32 on cpu in 2 processes (DDP)" in first[1]
    assert second[:2] == (0, "")
    assert second[2] == "" or "TCPStore" in second[2]  # PyTorch's warning when the first node ends a moment earlier
    assert_same_history(expected)


@pytest.mark.usefixtures("forked_workers")
def test_nodes_with_different_parameters_are_refused(in_built: Path) -> None:
    first, second = train_on_two_nodes(in_built, "train.seed=1")
    assert first[0] == second[0] == 1
    assert second[2].startswith("\n" + STOPPED + "params.yaml, data/tokenized or models/base on this machine differ")
    assert first[2].count("\n") == 2
    assert "lost its connection to the others. If another node reports an error, fix that first" in first[2]
    assert not FINETUNED.exists()


@pytest.mark.usefixtures("forked_workers")
def test_error_of_every_process_is_reported_once(in_built: Path) -> None:
    write_params(in_built, *TWO_PROCESSES)
    rows = pq.read_table(TRAIN_ROWS)
    ids = pa.array([[400, *row[1:]] for row in rows["input_ids"].to_pylist()], rows["input_ids"].type)
    pq.write_table(rows.set_column(rows.column_names.index("input_ids"), "input_ids", ids), TRAIN_ROWS)
    done = python_in(in_built, "pipeline.train")
    assert done.returncode == 1
    assert done.stderr.startswith(f"\n{STOPPED}{TRAIN_ROWS}: token id 400, but models/base embeds 400 tokens")
    assert done.stderr.count("\n") == 2


def process_failure(folder: Path, rank: int, exitcode: int, time: int, **data: Any) -> ProcessFailure:
    path = folder / f"{rank}.json"
    if data:
        write_json(path, {"timestamp": time, **data})
    return ProcessFailure(local_rank=rank, pid=1, exitcode=exitcode, error_file=str(path))


def test_root_cause_is_reported_rather_than_its_consequences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = "RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4829"
    consequences = {
        0: process_failure(tmp_path, 0, 1, 100, message=connection, is_defect=True),
        1: process_failure(tmp_path, 1, -signal.SIGTERM, 101),
    }
    error = process_failure(tmp_path, 2, 1, 102, message="the rows are too long", is_defect=False)
    defect = process_failure(tmp_path, 3, 1, 101, message="Traceback: IndexError", is_defect=True)
    kill = process_failure(tmp_path, 4, -signal.SIGKILL, 103)

    def cause(*causes: ProcessFailure) -> str:
        failures = consequences | {failure.local_rank: failure for failure in causes}
        return str(root_cause(ChildFailedError("train", failures), 8))

    assert cause(defect, error, kill).startswith("process 5 of 8 was killed (SIGKILL)")
    assert cause(defect, error) == "the rows are too long"
    for signal_number in (signal.SIGTERM, signal.SIGABRT):  # killed while it ended, after it had reported its error
        killed_error = process_failure(
            tmp_path, 2, -signal_number, 102, message="the rows are too long", is_defect=False
        )
        assert cause(defect, killed_error) == "the rows are too long"
    assert cause(defect) == "process 4 of 8 failed; its traceback is above"
    assert capsys.readouterr().err == "\nTraceback: IndexError\n"
    assert cause().startswith("process 1 of 8 lost its connection to the others.")


def test_missing_gpus_and_variables_are_reported_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def errors(gpus: int, compute: dict[str, Any], **train: Any) -> list[str]:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        ddp = {"kind": "ddp", "device": "auto", "threads": None, "processes": 2, "nodes": 1}
        return compute_errors({"compute": ddp | compute, "train": train})

    fsdp = {"kind": "fsdp", "reshard_after_forward": True}
    for name in (NODE_RANK, MASTER_ADDRESS):
        monkeypatch.delenv(name, raising=False)
    assert errors(0, {}) == errors(2, {}) == errors(1, {"device": "cpu"}) == errors(2, fsdp) == []
    assert errors(0, {"device": "cuda"}) == ["compute.device: cuda, but PyTorch sees no CUDA GPU; use auto or cpu"]
    assert errors(2, {"processes": 4}) == ["compute.processes: 4 is more than this machine's 2 CUDA GPUs"]
    assert errors(0, fsdp)[0].startswith("compute: fsdp needs CUDA GPUs")
    assert errors(2, fsdp, method={"kind": "qlora"})[0].startswith("compute: fsdp cannot shard a base model in 4 bits")
    assert errors(2, fsdp, optimizer="adafactor")[0].startswith("compute: fsdp cannot shard adafactor's state")
    assert [error.split(";")[0] for error in errors(0, {"nodes": 2})] == [
        "compute.nodes: 2, but PET_NODE_RANK is not set",
        "compute.nodes: 2, but PET_MASTER_ADDR is not set",
    ]
    monkeypatch.setenv(MASTER_ADDRESS, "10.0.0.1")
    monkeypatch.setenv(NODE_RANK, "2")
    assert errors(0, {"nodes": 2}) == [
        "compute.nodes: 2, but PET_NODE_RANK is 2; expected 0 on the first node, up to 1 on the last"
    ]
    monkeypatch.setenv(NODE_RANK, "1")
    assert errors(0, {"nodes": 2}) == []


def test_number_of_started_processes_must_match_the_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    ddp = Ddp(kind="ddp", device="cpu", threads=None, processes=4, nodes=1)
    with pytest.raises(ConfigError, match="compute: expected 4 processes on each of 1 nodes, but 2 were started"):
        launch_if_distributed("pipeline.train", ddp)
    with pytest.raises(ConfigError, match="compute: local is one process, but 2 were started; use compute=ddp"):
        launch_if_distributed("pipeline.train", Local(kind="local", device="cpu", threads=None))
    assert not launch_if_distributed("pipeline.train", ddp.model_copy(update={"processes": 2}))


def test_processes_share_the_rows_of_an_epoch(train_options: Options) -> None:
    """101 rows, 2 × 4 × 3 per step: 5 steps per epoch."""
    assert total_steps(train_options(epochs=2.0, batch_size=2, gradient_accumulation=4), 101, processes=3) == 10


def test_out_of_memory_error_names_parameters_and_how_to_restore_outputs(in_built: Path) -> None:
    """The activations take over a gigabyte, in a process that may have 64 MB more than it has after the first evaluation."""
    config = AutoConfig.from_pretrained("models/base", hidden_size=512, intermediate_size=2048)
    AutoModelForCausalLM.from_config(config).save_pretrained("models/base")
    write_params(in_built, "train.batch_size=112", "train.eval_batch_size=1", "train.max_steps=1", "train.eval_steps=1")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pipeline.train"],
        cwd=in_built,
        env=environment(OMP_NUM_THREADS="1", DVC_STAGE="train"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_line(process, "step 0/1")
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 64 * 2**20
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    _, error = process.communicate()
    assert process.returncode == 1
    assert error.startswith(
        "\n"
        + STOPPED
        + "this machine's memory is too small: trained in batches of 112 rows and evaluated in batches of 1, "
        "of up to 96 tokens each. Lower train.batch_size (and raise train.gradient_accumulation by the same factor), "
    )
    assert error.endswith("To restore the last good ones:\n  dvc checkout\n  git restore metrics\n")
    assert not FINETUNED.exists()
