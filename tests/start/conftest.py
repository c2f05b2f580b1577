"""A copy of the project with a user's files, as the working directory, and `python -m pipeline.start` in this process."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.commands import run_main
from support.tickets import CPU, Start, write_tickets
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from pipeline.start import cli

# <|user|>, a text, <|end|>, and the next turn; tools come first, calls as JSON.
CHAT_TEMPLATE = """
{%- for tool in tools or [] %}{{ '<|tool|>' + tool.function.name }}{% endfor %}
{%- for message in messages %}
{{- '<|' + message.role + '|>' + message.content }}
{%- for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}
{{- '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""
CONTROL_TOKENS = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
WriteModel = Callable[..., Path]


@pytest.fixture
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.setattr(cli, "inspect_machine", lambda compute: CPU)  # torch takes seconds to import
    write_tickets(project / "tickets.csv")
    return project


@pytest.fixture
def start(in_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Start:
    """Runs start without a terminal: exit code, standard output and error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        return run_main(cli.main, ["start", *arguments], monkeypatch, capsys)

    return run


@pytest.fixture
def write_chat_model() -> WriteModel:
    """Writes a model folder with a chat template. Its tokens are single bytes and the control tokens."""

    def write(folder: Path, template: str | None = CHAT_TEMPLATE) -> Path:
        folder.mkdir(parents=True)
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
        tokenizer.save(str(folder / "tokenizer.json"))
        sizes = {"max_position_embeddings": 512, "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2}
        config = {"model_type": "gpt_neox", "vocab_size": tokenizer.get_vocab_size(), **sizes}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.token_to_id("<|end|>")}))
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        save_file({"weight": np.zeros((8, 4), np.float32)}, folder / "model.safetensors")
        return folder

    return write
