"""The fine-tuned model answers through servers and other tools as it did in evaluation."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.project import ROOT, copy_project, make_once, python_in

from bench import served
from bench.chat_models import FAMILIES, write_chat_model
from bench.dialogues import generate_dialogues, write_dialogues
from bench.servers import text_of

STAGES = ("fetch instance=data", "fetch instance=model", "clean", "format", "tokenize", "train")
TRAINING = ("format.near.enabled=false", "train.epochs=12", "train.learning_rate=3e-3", "tokenize.max_length=512")
EVALUATION = ("evaluate.turns=all", "evaluate.max_new_tokens=32")


def run_chat_project(folder: Path) -> Path:
    """Train a tiny chat model on dialogues, some of which call functions, and ask it for every turn of the test set."""
    dialogues = generate_dialogues(80, with_tools=True)
    copy_project(folder)
    data = write_dialogues(dialogues, folder / "dialogues.jsonl")
    model = write_chat_model(FAMILIES["Qwen2"], dialogues, folder / "model")
    sources = ("data=file", f"data.path={data}", "model=folder", f"model.path={model}")
    for command in ("compose", *STAGES, "evaluate instance=finetuned"):
        module, *arguments = command.split()
        overrides = (*sources, *TRAINING, *EVALUATION) if module == "compose" else ()
        done = python_in(folder, f"pipeline.{module}", *arguments, *overrides)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def chat_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_once("chat_project", run_chat_project, tmp_path_factory)


def table(project: Path, *arguments: str) -> dict[str, list[str]]:
    """Way → the other cells of its line."""
    done = python_in(ROOT, "bench.served", "--project", str(project), *arguments)
    lines = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: [cell.strip() for cell in cells] for name, *cells in lines}


def require_all_equal(cells: list[str], least: int) -> None:
    assert cells == [cells[0], cells[0], ""]
    assert int(cells[0]) >= least


def test_pipeline_answers_messages_as_in_evaluation(chat_project: Path) -> None:
    lines = table(chat_project, "--ways", "pipeline")
    require_all_equal(lines["prompts"], 20)
    require_all_equal(lines["pipeline"], 20)


def test_answers_end_and_differ(chat_project: Path) -> None:
    """Equality would say little of answers that are all alike, or that only the limit ends."""
    rows = [json.loads(line) for line in (chat_project / "data/predictions/finetuned.jsonl").read_text().splitlines()]
    assert sum(row["finish_reason"] == "stop" for row in rows) > 0.8 * len(rows)
    assert len({row["prediction"] for row in rows}) > 4


def test_pipeline_renders_questions_as_the_prompt_template_does(repository: Path) -> None:
    lines = table(repository, "--ways", "pipeline")
    require_all_equal(lines["prompts"], 12)
    require_all_equal(lines["pipeline"], 12)


def test_server_answers_the_openai_client_as_in_evaluation(chat_project: Path) -> None:
    for name in ("openai", "fastapi", "uvicorn"):
        pytest.importorskip(name)
    require_all_equal(table(chat_project, "--ways", "serve")["serve"], 20)


def test_harness_answers_as_in_evaluation(chat_project: Path) -> None:
    if find_spec("lm_eval") is None:  # its import takes seconds
        pytest.skip("lm_eval is not installed")
    require_all_equal(table(chat_project, "--ways", "lm_eval")["lm_eval"], 10)


def test_other_answers_are_shown(chat_project: Path, tmp_path: Path) -> None:
    lines = (chat_project / "data/predictions/finetuned.jsonl").read_text().splitlines()[:3]
    changed = tmp_path / "predictions.jsonl"
    changed.write_text("\n".join([*lines[:2], json.dumps({**json.loads(lines[2]), "prediction": "No | never."})]))
    options = ("--project", str(chat_project), "--predictions", str(changed), "--ways", "pipeline")
    done = python_in(ROOT, "bench.served", *options)
    assert done.returncode == 1
    row = json.loads(lines[2])["id"]
    assert re.search(rf"^\| pipeline \| 3 \| 2 \| row {row}: .*, not 'No \\\| never\.' \|$", done.stdout, re.MULTILINE)


def test_what_is_missing_is_said(
    chat_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(served, "find_spec", lambda name: None if name in ("openai", "lm_eval") else SimpleNamespace())
    served.main(["--project", str(chat_project), "--ways", "serve", "lm_eval"])
    assert capsys.readouterr().out.splitlines()[3:] == [
        "| serve |  |  | not installed: pip install openai |",
        "| lm_eval |  |  | not installed: pip install lm-eval |",
    ]


def test_a_project_without_answers_is_an_error(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    done = python_in(ROOT, "bench.served", "--project", str(project))
    assert done.returncode == 1
    assert "bench.served stopped: data/formatted/template.json does not exist" in done.stderr


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": " No.\n"}, "No."),
        ({"content": None, "reasoning_content": "Well."}, "<think>\nWell.\n</think>\n"),
        ({"content": "", "reasoning_content": " "}, "<think>\n\n</think>\n\n"),
        (
            {"content": "So:", "tool_calls": [{"function": {"name": "f", "arguments": '{"b": 1, "a": "ü"}'}}]},
            'So:\n<tool_call>\n{"arguments":{"a":"\\u00fc","b":1}, "name":"f"}\n</tool_call>',
        ),
    ],
)
def test_a_servers_message_is_put_together_as_generated(message: dict[str, Any], text: str) -> None:
    assert served.spell(text_of(message)) == served.spell(text)
