"""Small chat templates, a tokenizer that has their control tokens, and model folders and encoders with both."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from tokenizers.decoders import ByteLevel

from pipeline.chat.dialogue import Dialogue
from pipeline.chat.encoder import ChatEncoder
from pipeline.chat.model_template import load_chat_encoder
from pipeline.chat.row_format import ChatFormat

START, END, EOS, BOS = "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>"
SPECIAL = (EOS, START, END, BOS, "<start_of_turn>", "<end_of_turn>")
NOT_SPECIAL = ("<think>", "</think>", "<tool_call>", "</tool_call>")

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' %}"
    "{% for call in m.tool_calls or [] %}{{ '<tool_call>' + (call.function | tojson) + '</tool_call>' }}{% endfor %}"
    "{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MARKED_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# It drops the thoughts of earlier turns, and knows no system prompt.
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>' + (m.reasoning_content or '') + '</think>' }}{% endif %}"
    "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' "
    "+ m.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **keys}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def dialogue(*messages: dict[str, Any], tools: list[Any] | None = None, id: int = 0) -> Dialogue:
    return Dialogue(id, list(messages), tools or [])


TWO_TURNS = dialogue(user("Is it flu?"), assistant("No."), user("What then?"), assistant("A cold."))


def byte_tokenizer(bos: str = "") -> Tokenizer:
    """A byte-level tokenizer that merges nothing. bos: the token that it puts before a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False) for token in NOT_SPECIAL])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer


def chat_folder(
    folder: Path, template: str | None = CHATML, bos: str = "", stop: tuple[str, ...] = (END,), **config: Any
) -> Path:
    """A model folder without weights: tokenizer, chat template and generation config."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer(bos)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS, "bos_token": BOS, "pad_token": EOS}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | config), encoding="utf-8")
    ids = [tokenizer.token_to_id(token) for token in stop]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 2048}), encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def chat_encoder(folder: Path, template: str = CHATML, **kwargs: Any) -> ChatEncoder:
    row_format = ChatFormat(source=template, chat_template_kwargs=kwargs, stop_tokens=[END], end_tokens=[END])
    return load_chat_encoder(row_format, chat_folder(folder, template))


def text_of(encoder: ChatEncoder, ids: list[int]) -> str:
    return str(encoder.tokenizer.decode(ids, skip_special_tokens=False))


def learned_text(encoder: ChatEncoder, labels: list[int]) -> str:
    return text_of(encoder, [label for label in labels if label >= 0])
