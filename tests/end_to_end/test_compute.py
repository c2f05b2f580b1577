"""Several processes train as one does, tell one message when one of them fails, and go on after kill -9."""

import csv
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.project import TINY, environment, python_in
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from transformers import AutoModelForCausalLM

from pipeline.compose.composition import compose_params, parse_params
from pipeline.compose.preflight import compute_errors
from pipeline.config.options import Ddp, Local
from pipeline.config.validation import validate_params
from pipeline.core.distributed import NODE_RANK
from pipeline.core.files import read_json, write_json
from pipeline.errors import ConfigError
from pipeline.modeling.loading import load_model
from pipeline.train import stage as train
from pipeline.train.launch import MASTER_ADDRESS, launch_if_distributed, root_cause
from pipeline.train.schedules import total_steps

FINETUNED, METRICS = Path("models/finetuned"), Path("metrics/train.json")
# 14 rows of validation in batches of 3: the processes' last batches are filled up with rows that must not count twice.
SHORT = ("train.max_steps=6", "train.eval_steps=3", "train.logging_steps=1", "train.eval_batch_size=3")
TWO = (*SHORT, "train.batch_size=4", "compute=ddp")
STOPPED = "train stopped: "
Options = Callable[..., Any]


def composed_in(folder: Path, *overrides: str) -> None:
    (folder / "params.yaml").write_text(compose_params(*TINY, *overrides))


def curves() -> list[list[float]]:
    """What a training left in its two history files, number by number."""
    rows = []
    for name in ("history.tsv", "validation.tsv"):
        with (Path("metrics/train") / name).open() as file:
            rows += [[float(cell) for cell in row] for row in list(csv.reader(file, delimiter="\t"))[1:]]
    return rows


def trained(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The train stage with these overrides of params.yaml, as DVC runs it."""
    composed_in(folder, *overrides)
    done = python_in(folder, "pipeline.train", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    return done


def alone_trained(folder: Path, *overrides: str) -> list[list[float]]:
    """The curves of one process, which takes as many rows a step as two."""
    composed_in(folder, *SHORT, "train.batch_size=8", *overrides)
    train.train(validate_params(parse_params(Path("params.yaml").read_text())).train, torch.device("cpu"))
    return curves()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def killed(folder: Path, command: list[str], line: str) -> str:
    """What is told when the second process of a training is killed as the first one logs a line that starts so."""
    process = subprocess.Popen(
        [sys.executable, "-u", *command],
        cwd=folder,
        env=environment(OMP_NUM_THREADS="1", DVC_STAGE="train"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    for shown in process.stdout:
        if shown.startswith(line):
            os.kill(child(process.pid, b"LOCAL_RANK=1"), signal.SIGKILL)
            break
    _, told = process.communicate()
    assert process.returncode == 1
    return told


def child(parent: int, variable: bytes) -> int:
    """The child process that has a variable in its environment."""
    tasks = Path(f"/proc/{parent}/task").iterdir()
    children = [int(each) for task in tasks for each in (task / "children").read_text().split()]
    (found,) = (each for each in children if variable in Path(f"/proc/{each}/environ").read_bytes().split(b"\0"))
    return found


def test_two_processes_train_as_one_with_the_same_rows_a_step(in_built: Path) -> None:
    """Rows grouped by length, several epochs, gradients of two batches a step."""
    alone = alone_trained(in_built, "train.max_steps=16", "train.gradient_accumulation=2")
    weights = load_model(FINETUNED).state_dict()
    done = trained(in_built, *TWO, "train.max_steps=16", "train.gradient_accumulation=2")
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].endswith(" rows: 16 steps of 16 rows, fp32 on cpu and 1 more, by DDP")
    assert [line.split(" ")[0] for line in lines] == ["Training", *["step"] * 7, "validation"]
    for both, one in zip(curves(), alone, strict=True):
        assert both == pytest.approx(one, rel=1e-5)
    model = AutoModelForCausalLM.from_pretrained(FINETUNED)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=2e-4)
    # 6 × (51,072 parameters − 400 × 32 of the embedding) × 96 tokens × 16 rows
    assert read_json(METRICS)["gflops_per_step_at_full_length"] == pytest.approx(0.352714752)


def test_a_killed_process_ends_the_others_and_the_next_run_ends_as_if_nothing_had_been(in_built: Path) -> None:
    """LoRA, with dropout, so that each process's random state matters."""
    overrides = (*TWO, "train/method=lora", "train.method.dropout=0.2")
    trained(in_built, *overrides)
    undisturbed, history = bytes_of(FINETUNED), curves()
    message = killed(in_built, ["-m", "pipeline.train", "hydra.verbose=true"], "step 4/6")
    message = message[message.index(STOPPED) :]
    assert message.startswith(STOPPED + "process 2 of 2 was killed (SIGKILL), and the others were ended.")
    assert message.endswith("  dvc checkout\n  git restore metrics\n")
    assert "Going on from checkpoint-3" in trained(in_built, *overrides).stdout
    assert bytes_of(FINETUNED) == undisturbed
    assert curves() == history
    assert list(Path(".checkpoints").iterdir()) == []


def test_a_model_split_by_fsdp_trains_as_one_goes_on_and_is_saved_whole(
    in_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = alone_trained(in_built)
    composed_in(in_built, *TWO)
    params = parse_params(Path("params.yaml").read_text())
    params["compute"] |= {"kind": "fsdp", "reshard_after_forward": True}  # refused where there is no card
    write_json(Path("params.yaml"), params)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(in_built), str(Path(__file__).parents[1])]))
    assert STOPPED + "process 2 of 2 was killed (SIGKILL)" in killed(
        in_built, ["-m", "support.fsdp_on_cpu"], "step 4/6"
    )
    resumed = python_in(in_built, "support.fsdp_on_cpu", OMP_NUM_THREADS="1")
    assert resumed.returncode == 0, resumed.stderr
    assert "fp32 on cpu and 1 more, by FSDP" in resumed.stdout
    assert "Going on from checkpoint-3" in resumed.stdout
    for both, one in zip(curves(), alone, strict=True):
        assert both == pytest.approx(one, rel=1e-5)
    assert (
        AutoModelForCausalLM.from_pretrained(FINETUNED).num_parameters() == read_json(METRICS)["parameters"] == 51_072
    )


def on_two_machines(folder: Path, *of_the_second: str) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of two launches of one process each, which meet at a port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    composed_in(folder, *TWO, "compute.processes=1", "train.packing=true")
    started = []
    for node, overrides in enumerate(((), of_the_second)):
        place = {"PET_NODE_RANK": str(node), "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "pipeline.train", "compute.nodes=2", *overrides],
                cwd=folder,
                env=environment(OMP_NUM_THREADS="1", **place),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    told = [process.communicate() for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, told, strict=True)]


def test_two_machines_train_as_one_and_the_first_writes(in_built: Path) -> None:
    """Packed: rows that fill up the last batch of an evaluation could not be told from the others."""
    alone = alone_trained(in_built, "train.packing=true")
    first, second = on_two_machines(in_built)
    assert (first[0], first[2]) == (0, "")
    assert "fp32 on cpu and 1 more, by DDP" in first[1]
    assert second[:2] == (0, "")
    assert (
        second[2] == "" or "TCPStore" in second[2]
    )  # PyTorch's warning where the first machine is gone a moment earlier
    for both, one in zip(curves(), alone, strict=True):
        assert both == pytest.approx(one, rel=1e-5)


def test_machines_that_would_train_different_things_are_told_apart(in_built: Path) -> None:
    first, second = on_two_machines(in_built, "train.seed=1")
    assert first[0] == second[0] == 1
    assert second[2].startswith("\n" + STOPPED + "this machine would train something else than the first one")
    assert first[2].count("\n") == 2
    assert "lost its connection to the others. If another machine says why, mend that" in first[2]
    assert not FINETUNED.exists()


def test_what_stops_every_process_is_told_once(in_built: Path) -> None:
    wild = (
        "train.max_steps=200",
        "train.eval_steps=100",
        "train.learning_rate=9.9",
        "train.optimizer=sgd",
        "train.max_grad_norm=1e9",
    )
    composed_in(in_built, *TWO, *wild, "train.warmup_steps=0")
    done = python_in(in_built, "pipeline.train", OMP_NUM_THREADS="1")
    assert done.returncode == 1
    assert done.stderr.startswith("\n" + STOPPED + "loss is ")
    assert done.stderr.endswith("training has diverged. Lower train.learning_rate, or raise train.warmup_steps\n")
    assert done.stderr.count("\n") == 2


def failure(folder: Path, rank: int, exitcode: int, time: int, **data: Any) -> ProcessFailure:
    path = folder / f"{rank}.json"
    if data:
        write_json(path, {"timestamp": time, **data})
    return ProcessFailure(local_rank=rank, pid=1, exitcode=exitcode, error_file=str(path))


def test_the_first_cause_is_told_not_what_follows_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = "RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4829"
    others = {
        0: failure(tmp_path, 0, 1, 100, message=lost, is_defect=True),
        1: failure(tmp_path, 1, -signal.SIGTERM, 101),
    }
    reason = failure(tmp_path, 2, 1, 102, message="the rows are too long", is_defect=False)
    defect = failure(tmp_path, 3, 1, 101, message="Traceback: IndexError", is_defect=True)
    kill = failure(tmp_path, 4, -signal.SIGKILL, 103)

    def first(*failures: ProcessFailure) -> str:
        found = others | {each.local_rank: each for each in failures}
        return str(root_cause(ChildFailedError("train", found), 8))

    assert first(defect, reason, kill).startswith("process 5 of 8 was killed (SIGKILL)")
    assert first(defect, reason) == "the rows are too long"
    for ended in (signal.SIGTERM, signal.SIGABRT):  # on its way out, after it had told why
        told_and_ended = failure(tmp_path, 2, -ended, 102, message="the rows are too long", is_defect=False)
        assert first(defect, told_and_ended) == "the rows are too long"
    assert first(defect) == "process 4 of 8 failed, as told above"
    assert capsys.readouterr().err == "\nTraceback: IndexError\n"
    assert first().startswith("process 1 of 8 lost its connection to the others.")


def test_what_this_machine_lacks_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def faults(cards: int, compute: dict[str, Any], **train: Any) -> list[str]:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
        ddp = {"kind": "ddp", "device": "auto", "processes": 2, "nodes": 1}
        return compute_errors({"compute": ddp | compute, "train": train})

    fsdp = {"kind": "fsdp", "reshard_after_forward": True}
    for name in (NODE_RANK, MASTER_ADDRESS):
        monkeypatch.delenv(name, raising=False)
    assert faults(0, {}) == faults(2, {}) == faults(1, {"device": "cpu"}) == faults(2, fsdp) == []
    assert faults(0, {"device": "cuda"}) == ["compute.device: cuda, but PyTorch sees no CUDA card here"]
    assert faults(2, {"processes": 4}) == ["compute.processes: 4 is more than this machine's 2 CUDA cards"]
    assert faults(0, fsdp)[0].startswith("compute: fsdp needs CUDA cards")
    assert faults(2, fsdp, method={"kind": "qlora"})[0].startswith("compute: fsdp does not split a base in 4 bits")
    assert faults(2, fsdp, optimizer="adafactor")[0].startswith("compute: fsdp does not split adafactor's state")
    assert [fault.split(";")[0] for fault in faults(0, {"nodes": 2})] == [
        "compute.nodes: 2, but PET_NODE_RANK is not set",
        "compute.nodes: 2, but PET_MASTER_ADDR is not set",
    ]
    monkeypatch.setenv(MASTER_ADDRESS, "10.0.0.1")
    monkeypatch.setenv(NODE_RANK, "2")
    assert faults(0, {"nodes": 2}) == [
        "compute.nodes: 2, but PET_NODE_RANK is 2; expected 0 on the first machine, up to 1 on the last"
    ]
    monkeypatch.setenv(NODE_RANK, "1")
    assert faults(0, {"nodes": 2}) == []


def test_processes_that_somebody_else_started_must_be_as_many_as_the_parameters_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    ddp = Ddp(kind="ddp", device="cpu", processes=4, nodes=1)
    with pytest.raises(ConfigError, match="compute: 4 processes on each of 1 machines, but 2 were started"):
        launch_if_distributed("pipeline.train", ddp)
    with pytest.raises(ConfigError, match="compute: local is one process, but 2 were started; use compute=ddp"):
        launch_if_distributed("pipeline.train", Local(kind="local", device="cpu"))
    assert not launch_if_distributed("pipeline.train", ddp.model_copy(update={"processes": 2}))


def test_processes_share_the_rows_of_an_epoch(train_options: Options) -> None:
    """101 rows, 2 × 4 × 3 a step: 5 steps an epoch."""
    assert total_steps(train_options(epochs=2.0, batch_size=2, gradient_accumulation=4), 101, processes=3) == 10


def test_out_of_memory_tells_what_to_lower_and_how_to_have_the_last_model_back(in_built: Path) -> None:
    """A model and a batch whose activations take over a gigabyte, in a process that may have 64 MB more than it has."""
    wide = ("model.hidden_size=512", "train.batch_size=112", "train.eval_batch_size=1", "train.max_steps=1")
    composed_in(in_built, *wide, "train.eval_steps=1")
    assert python_in(in_built, "pipeline.fetch", "instance=model").returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pipeline.train"],
        cwd=in_built,
        env=environment(OMP_NUM_THREADS="1", DVC_STAGE="train"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for shown in process.stdout:
        if shown.startswith("step 0/1"):
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + 64 * 2**20
            resource.prlimit(process.pid, resource.RLIMIT_AS, (most, most))
            break
    _, told = process.communicate()
    assert process.returncode == 1
    assert told.startswith(
        "\n"
        + STOPPED
        + "this machine's memory is too small: trained in batches of 112 rows, evaluated in batches of 1, "
        "of up to 96 tokens. Lower train.batch_size (and raise train.gradient_accumulation as much), "
    )
    assert told.endswith("have the last good ones back:\n  dvc checkout\n  git restore metrics\n")
    assert not FINETUNED.exists()
