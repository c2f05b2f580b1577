"""model.chat_template gives the base model another chat template, with the control tokens and ends that it needs."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from support.chats import CHATML, GEMMA, assistant, system, user
from support.small_models import small_model
from support.sources import folder_model
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from pipeline.chat.model_template import read_model_templates
from pipeline.core.paths import BASE
from pipeline.errors import DataError, ModelError
from pipeline.fetch.chat_template import CHATML_FILE
from pipeline.fetch.model_folder import fetch_model

TALK = [system("Be brief."), user("Flu?"), assistant("No."), user("Sure?"), assistant("Yes.")]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `mine` with a small model that embeds 258 tokens, in the working directory."""
    monkeypatch.chdir(tmp_path)
    alphabet = {token: number for number, token in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<s>")
    fast.save_pretrained("mine")
    small_model("llama", vocab_size=258, eos_token_id=256).save_pretrained("mine")
    return Path("mine")


def own_template(folder: Path, template: str | list[dict[str, str]] = CHATML) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"chat_template": template}), encoding="utf-8")


def fetch(folder: Path, **values: Any) -> dict[str, Any]:
    return fetch_model(folder_model(folder, **values))


def special_ids(*tokens: str) -> list[int | None]:
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    added = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return [added.get(token) for token in tokens]


def test_chatml_adds_template_tokens_embeddings_and_end(mine: Path) -> None:
    metrics = fetch(mine, chat_template="chatml")
    assert metrics["chat_template"] == "chatml"
    assert metrics["embeddings_added"] == 2
    assert special_ids("<|im_end|>", "<|im_start|>") == [258, 259]
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    assert tokenizer.chat_template == CHATML_FILE.read_text(encoding="utf-8")
    encoded = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    learned = [
        token for token, is_learned in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if is_learned
    ]
    assert tokenizer.decode(learned).replace(" ", "") == "No.<|im_end|>Yes.<|im_end|>"  # no decoder joins the bytes
    weights = AutoModelForCausalLM.from_pretrained(BASE).get_input_embeddings().weight
    assert torch.allclose(weights[258:], weights[:258].mean(dim=0), atol=1e-6)
    assert json.loads((BASE / "generation_config.json").read_text())["eos_token_id"] == [256, 258]


def test_chatml_renders_prefixes_tools_calls_and_results() -> None:
    from pipeline.chat.template import ChatTemplate

    template = ChatTemplate(CHATML_FILE.read_text(encoding="utf-8"))
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": {"room": 7}}}
    messages = [
        system("Be brief."),
        user("Where?"),
        assistant("", tool_calls=[call]),
        {"role": "tool", "content": "floor 1"},
    ]
    messages.append(assistant("On floor 1.", reasoning_content="Easy."))
    tools = [{"type": "function", "function": {"name": "find"}}]
    for given in ((), tools):
        texts = [template.render(messages[:end], given) for end in range(1, 6)]
        assert all(after.startswith(before) for before, after in pairwise(texts))
        assert texts[2].startswith(template.render(messages[:2], given, add_generation_prompt=True))
    text, marks = template.render_marked(messages, tools)
    assert [text[start:end] for start, end in marks] == [
        '<tool_call>\n{"name": "find", "arguments": {"room": 7}}\n</tool_call><|im_end|>',
        "<think>\nEasy.\n</think>\n\nOn floor 1.<|im_end|>",
    ]
    assert text.count("Be brief.") == 1
    assert '{"type": "function", "function": {"name": "find"}}' in text
    assert "<|im_start|>user\n<tool_response>\nfloor 1\n</tool_response><|im_end|>\n" in text


def test_a_template_file_is_taken_byte_for_byte_with_its_tokens(mine: Path) -> None:
    Path("gemma.jinja").write_bytes(GEMMA.encode() + b"{#\n#}")
    assert fetch(mine, chat_template="gemma.jinja")["embeddings_added"] == 2
    assert (BASE / "chat_template.jinja").read_bytes() == Path("gemma.jinja").read_bytes()
    assert special_ids("<end_of_turn>", "<start_of_turn>", "<|im_end|>") == [258, 259, None]


def test_tokens_that_a_template_puts_together_are_found(mine: Path) -> None:
    source = CHATML.replace("'<|im_start|>' + m.role + '\\n'", "'<|' + m.role + '|>'")
    source = source.replace("<|im_start|>assistant\\n", "<|assistant|>")
    Path("t.jinja").write_text(source, encoding="utf-8")
    fetch(mine, chat_template="t.jinja")
    assert None not in special_ids("<|user|>", "<|assistant|>", "<|system|>", "<|tool|>", "<|im_end|>")


def test_weights_stay_where_no_token_is_added(mine: Path) -> None:
    Path("plain.jinja").write_text("{% for m in messages %}{{ m.content }}</s>{% endfor %}", encoding="utf-8")
    assert fetch(mine, chat_template="plain.jinja")["embeddings_added"] == 0
    assert (BASE / "model.safetensors").read_bytes() == (mine / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "template", [CHATML, [{"name": "default", "template": CHATML}, {"name": "rag", "template": "x"}]]
)
def test_a_template_of_the_models_own_is_replaced_only_on_request(mine: Path, template: Any) -> None:
    own_template(mine, template)
    assert fetch(mine)["chat_template"] == "the model's own"
    with pytest.raises(
        ModelError, match=r"the model has a chat template of its own.*model\.replace_chat_template=true"
    ):
        fetch(mine, chat_template="chatml")
    fetch(mine, chat_template="chatml", replace_chat_template=True)
    templates = read_model_templates(BASE)
    assert templates == (CHATML_FILE.read_text(encoding="utf-8"), None)
    assert "chat_template" not in json.loads((BASE / "tokenizer_config.json").read_text())
    assert not (BASE / "additional_chat_templates").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"\xff", "is no text in UTF-8"),
        (b"{% if %}", "line 1: the chat template"),
    ],
    ids=["missing", "empty", "bytes", "syntax"],
)
def test_a_file_that_is_no_template_is_an_error(mine: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        Path("t.jinja").write_bytes(content)
    with pytest.raises(DataError, match=rf"t\.jinja.*{message}"):
        fetch(mine, chat_template="t.jinja")
