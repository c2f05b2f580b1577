"""The benchmarks run for real, on few rows; their results are not judged here."""

import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.fork_server import ADDRESS, SHIMS, server_address
from support.project import ROOT, TINY, environment, python_in
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench import data, environments, kills, train
from bench.data import curve_table, plot, table, total, write_generated_rows
from bench.pythia import write_pythia
from bench.stages import StageFailed, StageRun, checkout, copy_tokenizer, run_stages
from pipeline.errors import ModelError
from pipeline.modeling.encoding import load_encoder

RUNS = [
    StageRun("fetch", 2.0, 1.0, 1.5, 3e8, 1000),
    StageRun("clean", 1.0, 0.5, 1.0, 2e8, 1000),
    StageRun("format", 4.0, 3.0, 3.5, 5e8, 600),
    StageRun("tokenize", 3.0, 2.5, 6.0, 4e8, 500),
]


@pytest.fixture
def forked_trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of the benchmarks that train are forked with imports done. (The data stages import little and are not.)"""
    monkeypatch.setenv(ADDRESS, server_address(environment()))
    monkeypatch.setenv("PATH", f"{SHIMS}{os.pathsep}{environment()['PATH']}")
    for module in (train, kills, environments):
        monkeypatch.setattr(module, "sys", SimpleNamespace(executable=str(SHIMS / "python"), stderr=sys.stderr))


@pytest.fixture
def bare_tokenizer(tmp_path: Path) -> Path:
    """A folder with tokenizer.json alone."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    shutil.copy(ROOT / "models/nano/tokenizer.json", folder)
    return folder


def test_data_prints_the_stages_and_both_comparisons(bare_tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.main(["--rows", "300", "--tutorial-rows", "40", "--tokenizer", str(bare_tokenizer)])
    printed = capsys.readouterr().out
    assert re.findall(r"^(fetch|clean|format|tokenize|total) +([\d,]+) ", printed, re.MULTILINE)[0] == ("fetch", "300")
    assert "the tutorial, on 40 rows" in printed
    assert "the bare Rust tokenizer, median of 3" in printed


def test_bare_tokenizer_gets_a_known_end_of_text(bare_tokenizer: Path, tmp_path: Path) -> None:
    copied, original = copy_tokenizer(bare_tokenizer, tmp_path / "copied"), load_encoder(ROOT / "models/nano")
    assert load_encoder(copied).eos_id == original.eos_id
    assert AutoTokenizer.from_pretrained(copied).eos_token == "<|endoftext|>"
    assert [path.name for path in bare_tokenizer.iterdir()] == ["tokenizer.json"]
    with_config = copy_tokenizer(ROOT / "models/nano", tmp_path / "with_config") / "tokenizer_config.json"
    assert with_config.read_bytes() == (ROOT / "models/nano/tokenizer_config.json").read_bytes()


def test_unknown_end_of_text_is_reported(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "source/tokenizer.json"))
    with pytest.raises(ModelError, match="no end-of-text token; name one as eos_token"):
        load_encoder(copy_tokenizer(tmp_path / "source", tmp_path / "copied"))


def test_curve_is_printed_and_plotted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages are not run: test_data_prints_the_stages_and_both_comparisons does that."""
    overrides: list[list[str]] = []
    monkeypatch.setattr(data, "run_stages", lambda project, given: overrides.append(given) or RUNS)
    rows, columns = tmp_path / "rows.jsonl", "{question: q, answer: a}"
    plotted = str(tmp_path / "c.png")
    data.main(["--curve", "200", "300", "--rows-from", str(rows), "--columns", columns, "--plot", plotted])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["rows", "200", "300", "→"]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    source = ["data=file", f"data.path='{rows}'", f"data.columns={columns}"]
    patterns = "clean/preset=medical"
    assert overrides == [[*source, "data.limit=200", patterns], [*source, "data.limit=300", patterns]]


def test_table_has_seconds_microseconds_per_row_and_memory() -> None:
    assert table(RUNS).splitlines()[1:] == [
        "fetch            1,000      2.00      2000.0       1.00     1.50      0.30",
        "clean            1,000      1.00      1000.0       0.50     1.00      0.20",
        "format             600      4.00      6666.7       3.00     3.50      0.50",
        "tokenize           500      3.00      6000.0       2.50     6.00      0.40",
        "total            1,000     10.00     10000.0       7.00    12.00      0.50",
    ]


def test_total_counts_the_rows_that_fetch_read() -> None:
    assert total(RUNS) == StageRun("total", 10.0, 7.0, 12.0, 5e8, 1000)


def test_curve_table_has_a_line_for_each_size() -> None:
    assert curve_table({1000: RUNS}).splitlines() == [
        "      rows     fetch, s     clean, s    format, s  tokenize, s     total, s  µs per row  peak, GB",
        "     1,000         2.00         1.00         4.00         3.00        10.00     10000.0      0.50",
    ]


def test_failure_of_a_stage_includes_its_output(tmp_path: Path) -> None:
    project = checkout(tmp_path / "project", ROOT / "models/nano")
    with pytest.raises(StageFailed, match=r"pipeline.compose ended with 1(.|\n)*no such file: nowhere.csv"):
        run_stages(project, ["data=file", "data.path=nowhere.csv"])


def test_plot_creates_its_folder(tmp_path: Path) -> None:
    plot({100: RUNS, 1000: RUNS}, tmp_path / "new/curve.png")
    assert (tmp_path / "new/curve.png").exists()


def test_tokenize_prints_rounds_and_medians() -> None:
    done = python_in(ROOT, "bench.tokenize", "--rows", "40", "--mapped", "3", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("40 rows of ")
    assert lines[2].split() == ["rows/s", "bare", "stage", "map", "stage/bare", "by", "CPU", "time"]
    assert [line.split()[0] for line in lines[3:]] == ["1", "2", "median"]


def test_near_misses_nothing_that_brute_force_finds() -> None:
    done = python_in(ROOT, "bench.near", "--rows", "60")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[1] == ["seconds", "near", "missed", "wrong", "recall"]
    brute, ours = lines[2][-4:], lines[3][-4:]
    assert ours == brute == [ours[0], "0", "0", "100.0%"]
    assert int(ours[0]) > 0


def test_splits_show_what_each_strategy_loses() -> None:
    done = python_in(ROOT, "bench.splits", "--tickets", "120", "--rows", "150")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [
        "canned",
        "train",
        "cluster",
        "drop",
        "off",
        "generated",
        "train",
        "cluster",
        "drop",
        "off",
    ]
    cluster, drop, off = (line[4:6] for line in lines[2:5])
    assert cluster == ["0", "0.0%"]
    assert (int(drop[0]) > 0, drop[1]) == (True, "0.0%")
    assert (off[0], off[1] > "0.0%") == ("0", True)


def test_trainers_train_on_the_same_rows(
    forked_trainers: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "find_spec", lambda _: None)
    rows = tmp_path / "rows.jsonl"
    write_generated_rows(rows, 300)
    few = ["--rows", "8", "--rates", "1e-3", "--length", "256"]
    train.main(["--model", str(ROOT / "models/nano"), "--data", str(rows), *few])
    printed = capsys.readouterr().out
    assert "Skipping TRL, which is not installed: pip install trl" in printed
    found = re.findall(r"^(pipeline|tutorial) +1.0e-03 +[\d.]+ +([\d,]+) +\d+% +(\d+\.\d+)(.*)", printed, re.MULTILINE)
    assert [name for name, *_ in found] == ["pipeline", "tutorial"] * 2
    assert [ratio.strip() for *_, ratio in found[:3]] == ["", "", "1.00 x"]


def test_kills_prints_a_line_for_each_stage_and_the_sum(
    forked_trainers: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "SMALL", TINY)
    monkeypatch.setattr(kills, "CONFIGURATIONS", {"few steps": ("train,compare", ("train.max_steps=3",))})
    kills.main(["--kills", "1", "--only", "few steps"])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| few steps | train | 1 | yes |",
        "| few steps | compare | 1 | yes |",
        "| all |  | 2 | 2 of 2 |",
    ]


def test_environments_prints_values_and_differences(
    forked_trainers: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environments.main(["--only", "another seed", "--", *TINY, "train.max_steps=3"])
    header, _, *rows = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in (header, *rows)]
    assert [row[:2] for row in cells[1:]] == [["1 thread", ""], ["another seed", "no"]]
    assert cells[2][2] != "0"


def test_rate_with_the_lowest_loss_counts() -> None:
    runs = [
        train.TrainingRun("pipeline", 1e-3, 10, 5000, 2.5, 10**6),
        train.TrainingRun("tutorial", 1e-3, 20, 5000, 2.75, 10**6),
        train.TrainingRun("pipeline", 1e-4, 10, 4000, 3.5, 10**6),
    ]
    pipeline, tutorial = train.best(runs)
    assert (pipeline.rate, tutorial.rate) == (1e-3, 1e-3)
    assert train.format_run(tutorial, pipeline, 1e10).split() == [
        "tutorial", "1.0e-03", "20.0", "250", "15%", "2.750", "2.00", "x",
    ]  # fmt: skip


def test_pythia_has_the_size_of_its_model_card(tmp_path: Path) -> None:
    write_pythia("pythia-70m", ROOT / "models/nano", tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters() == 70_426_624
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == "<|endoftext|>"


def test_generation_has_the_answers_of_one_prompt_at_a_time(built: Path) -> None:
    model, prompts = built / "models/base", built / "data/formatted/test.jsonl"
    options = ("--rows", "6", "--alone-rows", "3", "--rounds", "2", "--new-tokens", "8", "--harness-batch-sizes")
    done = python_in(ROOT, "bench.generate", "--model", str(model), "--prompts", str(prompts), *options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{model}, 6 prompts, at most 8 new tokens, float32, ")
    rows = [[cell.strip() for cell in line.split("|")] for line in lines[4:]]
    assert [(row[1], row[-2]) for row in rows] == [("pipeline", "0 of 3"), ("tutorial", "0 of 3")]


def test_pythia_needs_a_tokenizer() -> None:
    done = python_in(ROOT, "bench.generate", "--model", "pythia-70m", "--prompts", "rows.jsonl")
    assert done.returncode == 2
    assert "--model pythia-70m needs --tokenizer FOLDER" in done.stderr
