"""`transformers serve` and lm-evaluation-harness, each in a process of its own, as a user starts them."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from bench.served import Request

START_SECONDS = 300  # that a server may take to load the model
SHOWN = 2000  # characters of a failed process's output in a message
TASK = "served"
# A task of the harness has a question, or few-shot examples before it. This one has the messages of a dialogue.
TASK_CLASS = """\
import json

from lm_eval.api.task import ConfigurableTask


class Dialogues(ConfigurableTask):
    def __init__(self, config):
        super().__init__(config={name: value for name, value in config.items() if name != "class"})

    def fewshot_context(self, doc, *args, chat_template, **kwargs):
        return chat_template(json.loads(doc["messages"]))
"""


def ask_server(model: Path, requests: list["Request"], max_new_tokens: int) -> list[str]:
    """The answers of `transformers serve`, asked one at a time by the OpenAI client."""
    import openai

    with start_server(model) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="none") as client:
        answers = []
        for request in requests:
            tools: dict[str, Any] = {"tools": request.tools} if request.tools else {}
            try:
                completion: Any = client.chat.completions.create(
                    model=str(model), messages=request.messages, max_tokens=max_new_tokens, temperature=0, **tools
                )
            except openai.APIStatusError as error:
                answers.append(f"(status {error.status_code})")
            else:
                answers.append(text_of(completion.choices[0].message.model_dump()))
        return answers


def text_of(message: dict[str, Any]) -> str:
    """A server's message as the text that the model generated: its thought, its content and its calls.

    >>> call = {"function": {"name": "find", "arguments": '{"room": 7}'}}
    >>> text_of({"content": "Wait.", "tool_calls": [call]})
    'Wait.<tool_call>{"name": "find", "arguments": {"room": 7}}</tool_call>'
    """
    thought = message.get("reasoning_content")
    calls = [call["function"] for call in message.get("tool_calls") or []]
    texts = [json.dumps({"name": each["name"], "arguments": json.loads(each["arguments"])}) for each in calls]
    start = f"<think>{thought}</think>" if thought else ""
    return start + (message["content"] or "") + "".join(f"<tool_call>{text}</tool_call>" for text in texts)


@contextmanager
def start_server(model: Path) -> Iterator[str]:
    """The address of a server of the model on this machine, which ends with the block. Raises RuntimeError if it fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ("serve", str(model), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port))
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "transformers.cli.transformers", *command],
            env=offline_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_healthy(address, process)
            yield address
        except TimeoutError as error:
            output.seek(0)
            raise RuntimeError(f"transformers serve: {error}\n{output.read()[-SHOWN:]}") from None
        finally:
            process.terminate()
            process.wait()


def _wait_until_healthy(address: str, process: "subprocess.Popen[Any]") -> None:
    """Raise TimeoutError if the server ends or takes too long."""
    import httpx2

    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx2.get(f"{address}/health").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.2)
    raise TimeoutError("it does not answer" if process.poll() is None else f"it ended with {process.returncode}")


def ask_harness(model: Path, requests: list["Request"], max_new_tokens: int) -> list[str]:
    """The answers of lm-evaluation-harness with the model's chat template. Raises RuntimeError if it fails."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_task(folder / "task", requests, max_new_tokens)
        arguments = json.dumps({"pretrained": str(model), "dtype": "float32"})
        command = ("run", "--model", "hf", "--model_args", arguments, "--tasks", TASK, "--device", "cpu")
        options = ("--include_path", f"{folder / 'task'}", "--apply_chat_template", "--batch_size", "16")
        output = ("--output_path", f"{folder / 'output'}", "--predict_only", "--log_samples")
        done = subprocess.run(
            [sys.executable, "-m", "lm_eval", *command, *options, *output],
            env=offline_environment(HF_DATASETS_CACHE=f"{folder / 'cache'}"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"lm_eval ended with {done.returncode}:\n{(done.stdout + done.stderr)[-SHOWN:]}")
        (samples,) = (folder / "output").rglob("samples_*.jsonl")
        lines = map(json.loads, samples.read_text(encoding="utf-8").splitlines())
        answers = {line["doc_id"]: line["resps"][0][0] for line in lines}
    return [answers[number] for number in range(len(requests))]


def write_task(folder: Path, requests: list["Request"], max_new_tokens: int) -> None:
    """Write a task of the harness that asks for the answers to these messages."""
    folder.mkdir()
    rows = folder / "rows.jsonl"
    lines = ({"messages": json.dumps(request.messages), "answer": request.prediction} for request in requests)
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "dialogues.py").write_text(TASK_CLASS, encoding="utf-8")
    config = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{messages}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": [], "max_gen_toks": max_new_tokens, "do_sample": False},
    }
    text = f"class: !function dialogues.Dialogues\n{yaml.safe_dump(config)}"
    (folder / "served.yaml").write_text(text, encoding="utf-8")


def offline_environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **changes}
