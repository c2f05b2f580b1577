"""The record of the environment, and threads that are a parameter."""

import os
from pathlib import Path

import pytest
import torch
from support.project import python_in

from pipeline.core.files import read_json
from pipeline.modeling import environment
from pipeline.modeling.environment import cpu_instructions, cpu_vendor, environment_record, resumption_record

CPU = torch.device("cpu")


def test_record_names_what_changes_the_last_digits() -> None:
    record = environment_record(CPU)
    assert list(record) == ["libraries", "python", "device", "processes", "threads", "cpu", "instructions"]
    assert record["libraries"]["torch"] == torch.__version__
    assert (record["device"], record["processes"]) == ("cpu", 1)
    assert record["threads"] == torch.get_num_threads()
    assert record["instructions"].startswith(torch.backends.cpu.get_cpu_capability())


def test_a_resumed_run_may_have_another_python() -> None:
    assert set(environment_record(CPU)) - set(resumption_record(CPU)) == {"python"}


def test_instructions_that_a_variable_turns_off_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert cpu_instructions().endswith(", ONEDNN_MAX_CPU_ISA=AVX2")


@pytest.mark.parametrize(
    ("text", "vendor"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\n", "AuthenticAMD"),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", os.uname().machine),
    ],
)
def test_vendor_comes_from_the_cpu_or_else_from_the_machine(
    tmp_path: Path, text: str, vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(environment, "CPU_INFO", tmp_path / "cpuinfo")
    assert cpu_vendor() == vendor


def test_threads_of_the_parameters_take_precedence_over_the_environment(in_built: Path) -> None:
    """New interpreters: PyTorch reads OMP_NUM_THREADS when it is imported."""
    files = []
    for variable in ("1", "2"):
        done = python_in(
            in_built,
            *("pipeline.train", "compute.threads=1", "train.max_steps=4", "train.eval_steps=4"),
            fresh=True,
            OMP_NUM_THREADS=variable,
        )
        assert done.returncode == 0, done.stderr
        assert read_json(in_built / "metrics/details/train.json")["environment"]["threads"] == 1
        files.append((in_built / "models/finetuned/model.safetensors").read_bytes())
    assert files[0] == files[1]
