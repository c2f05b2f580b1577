"""The measurements run for real, on few rows; what they find is not judged here."""

import re
from pathlib import Path

import pytest
from support.project import ROOT, python_in
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench import train
from bench.data import curve_table, main, plot, table, total, write_generated
from bench.pythia import write_pythia
from bench.stages import Measured, StageFailed, checkout, run_stages

MEASURED = [
    Measured("fetch", 2.0, 1.0, 1.5, 3e8, 1000),
    Measured("clean", 1.0, 0.5, 1.0, 2e8, 1000),
    Measured("format", 4.0, 3.0, 3.5, 5e8, 600),
    Measured("tokenize", 3.0, 2.5, 6.0, 4e8, 500),
]


def test_one_size_prints_the_stages_and_both_comparisons(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--rows", "300", "--tutorial-rows", "40"])
    printed = capsys.readouterr().out
    assert re.findall(r"^(fetch|clean|format|tokenize|total) +([\d,]+) ", printed, re.MULTILINE)[0] == ("fetch", "300")
    assert "the tutorial, on 40 rows" in printed
    assert "the bare Rust tokenizer, median of 3" in printed


def test_the_curve_is_printed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"q": "What is number {n} of them?", "a": "It is {n}."}}\n' for n in range(300)))
    columns = "{question: q, answer: a}"
    main(["--curve", "200", "300", "--rows-from", str(rows), "--columns", columns, "--plot", str(tmp_path / "c.png")])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["rows", "200", "300", "→"]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_table_has_seconds_microseconds_a_row_and_memory() -> None:
    assert table(MEASURED).splitlines()[1:] == [
        "fetch            1,000      2.00    2000.0       1.00     1.50      0.30",
        "clean            1,000      1.00    1000.0       0.50     1.00      0.20",
        "format             600      4.00    6666.7       3.00     3.50      0.50",
        "tokenize           500      3.00    6000.0       2.50     6.00      0.40",
        "total            1,000     10.00   10000.0       7.00    12.00      0.50",
    ]


def test_total_is_of_the_rows_that_came_in_first() -> None:
    assert total(MEASURED) == Measured("total", 10.0, 7.0, 12.0, 5e8, 1000)


def test_curve_has_a_line_a_size() -> None:
    assert curve_table({1000: MEASURED}).splitlines() == [
        "      rows     fetch, s     clean, s    format, s  tokenize, s     total, s  µs a row  peak, GB",
        "     1,000         2.00         1.00         4.00         3.00        10.00   10000.0      0.50",
    ]


def test_a_stage_that_fails_says_so_in_its_own_words(tmp_path: Path) -> None:
    project = checkout(tmp_path / "project", ROOT / "models/nano")
    with pytest.raises(StageFailed, match=r"pipeline.compose ended with 1(.|\n)*no such file: nowhere.csv"):
        run_stages(project, ["data=file", "data.path=nowhere.csv"])


def test_plot_makes_the_folder(tmp_path: Path) -> None:
    plot({100: MEASURED, 1000: MEASURED}, tmp_path / "new/curve.png")
    assert (tmp_path / "new/curve.png").exists()


def test_tokenize_is_measured_beside_the_tokenizer_alone() -> None:
    done = python_in(ROOT, "bench.tokenize", "--rows", "40", "--mapped", "3", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("40 rows of ")
    assert lines[2].split() == ["rows/s", "bare", "stage", "map", "stage/bare", "by", "processor"]
    assert [line.split()[0] for line in lines[3:]] == ["1", "2", "median"]


def test_near_is_measured_beside_brute_force() -> None:
    done = python_in(ROOT, "bench.near", "--rows", "60")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[1] == ["seconds", "near", "missed", "wrong", "recall"]
    brute, ours = lines[2][-4:], lines[3][-4:]
    assert ours == brute == [ours[0], "0", "0", "100.0%"]
    assert int(ours[0]) > 0


def test_contenders_train_on_the_same_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "find_spec", lambda _: None)
    rows = tmp_path / "rows.jsonl"
    write_generated(rows, 300)
    few = ["--rows", "8", "--rates", "1e-3", "--length", "256"]
    train.main(["--model", str(ROOT / "models/nano"), "--data", str(rows), *few])
    printed = capsys.readouterr().out
    assert "TRL is not installed, and is left out: pip install trl" in printed
    found = re.findall(r"^(pipeline|tutorial) +1.0e-03 +[\d.]+ +([\d,]+) +\d+% +(\d+\.\d+)(.*)", printed, re.MULTILINE)
    assert [name for name, *_ in found] == ["pipeline", "tutorial"] * 2
    assert [ratio.strip() for *_, ratio in found[:3]] == ["", "", "1.00 x"]


def test_a_contender_counts_at_the_rate_of_its_lowest_loss() -> None:
    trained = [
        train.Trained("pipeline", 1e-3, 10, 5000, 2.5, 10**6),
        train.Trained("tutorial", 1e-3, 20, 5000, 2.75, 10**6),
        train.Trained("pipeline", 1e-4, 10, 4000, 3.5, 10**6),
    ]
    ours, theirs = train.best(trained)
    assert (ours.rate, theirs.rate) == (1e-3, 1e-3)
    assert train.line(theirs, ours, 1e10).split() == [
        "tutorial", "1.0e-03", "20.0", "250", "15%", "2.750", "2.00", "x",
    ]  # fmt: skip


def test_a_pythia_is_of_the_size_that_its_card_names(tmp_path: Path) -> None:
    write_pythia("pythia-70m", ROOT / "models/nano", tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters() == 70_426_624
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == "<|endoftext|>"


def test_generation_is_measured_and_answers_as_one_prompt_at_a_time(built: Path) -> None:
    model, prompts = built / "models/base", built / "data/formatted/test.jsonl"
    options = ("--rows", "6", "--alone-rows", "3", "--rounds", "2", "--new-tokens", "8", "--harness-batch-sizes")
    done = python_in(ROOT, "bench.generate", "--model", str(model), "--prompts", str(prompts), *options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{model}, 6 prompts, at most 8 new tokens, float32, ")
    rows = [[cell.strip() for cell in line.split("|")] for line in lines[4:]]
    assert [(row[1], row[-2]) for row in rows] == [("pipeline", "0 of 3"), ("tutorial", "0 of 3")]


def test_pythia_s_configuration_needs_a_tokenizer_to_be_measured() -> None:
    done = python_in(ROOT, "bench.generate", "--model", "pythia-70m", "--prompts", "rows.jsonl")
    assert done.returncode == 2
    assert "--model pythia-70m needs --tokenizer FOLDER" in done.stderr
