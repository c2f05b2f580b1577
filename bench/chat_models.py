"""Tiny chat models of three families, with random weights.

A model has the architecture of its family, a byte-level BPE trained on given dialogues, the family's control tokens, and a
chat template in the family's form. The templates mark what the assistant generates ({% generation %}), as other trainers need.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.dialogues import Rows
from pipeline.modeling.loading import quiet_transformers

VOCABULARY, POSITIONS = 600, 512  # tokens
CHATML = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' + (messages[0].content + '\\n\\n' if messages[0].role == 'system' else '') }}
    {{- 'Functions:\\n' }}
    {%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}
        {{- message.content or '' }}
        {%- for call in message.tool_calls or [] %}
            {{- '<tool_call>\\n' + {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}
            {{- '\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- elif message.role == 'user' %}
        {{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
LLAMA = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{- message.content + '<|eot_id|>' }}{%- endgeneration %}
    {%- else %}
        {{- message.content + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
GEMMA = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}{{- raise_exception('System role not supported') }}{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<start_of_turn>model\\n' }}
        {%- generation %}{{- message.content + '<end_of_turn>' }}{%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- '<start_of_turn>user\\n' + message.content + '<end_of_turn>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""


@dataclass(frozen=True)
class Family:
    """An architecture with its control tokens. The generation config stops at `ends`; the first is the tokenizer's own."""

    model_type: str
    template: str
    ends: tuple[str, ...]
    pad: str
    others: tuple[str, ...] = ()
    bos: str | None = None  # which the tokenizer puts before a text, as the template does
    calls: tuple[str, ...] = ()  # not flagged as special
    shape: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "Llama": Family(
        "llama",
        LLAMA,
        ends=("<|eot_id|>", "<|end_of_text|>"),
        pad="<|end_of_text|>",
        others=("<|start_header_id|>", "<|end_header_id|>"),
        bos="<|begin_of_text|>",
        shape={"num_key_value_heads": 2, "tie_word_embeddings": False},
    ),
    "Qwen2": Family(
        "qwen2",
        CHATML,
        ends=("<|im_end|>", "<|endoftext|>"),
        pad="<|endoftext|>",
        others=("<|im_start|>",),
        calls=("<tool_call>", "</tool_call>"),
        shape={"num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
    "Gemma": Family(
        "gemma",
        GEMMA,
        ends=("<eos>", "<end_of_turn>"),
        pad="<pad>",
        others=("<start_of_turn>",),
        bos="<bos>",
        shape={"num_key_value_heads": 1, "head_dim": 32},  # its embeddings are tied, too
    ),
}


def write_chat_model(
    family: Family, rows: Rows, folder: Path, hidden_size: int = 128, layers: int = 3, seed: int = 0
) -> Path:
    """Write a model of the family to `folder`, its tokenizer trained on the rows; return `folder`. The seed sets the weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    quiet_transformers()
    tokenizer = train_chat_tokenizer(family, rows)
    tokenizer.save_pretrained(folder)
    end_ids = tokenizer.convert_tokens_to_ids([*family.ends])
    config = AutoConfig.for_model(
        family.model_type,
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end_ids,
        pad_token_id=tokenizer.pad_token_id,
        **family.shape,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    # Models are published with options that sample.
    model.generation_config = GenerationConfig(
        eos_token_id=end_ids, pad_token_id=tokenizer.pad_token_id, do_sample=True, temperature=0.7, top_p=0.8
    )
    model.save_pretrained(folder)
    return folder


def train_chat_tokenizer(family: Family, rows: Rows) -> Any:
    """A byte-level BPE of at most VOCABULARY tokens, with the family's control tokens and chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys([*family.ends, family.pad, *family.others, *filter(None, [family.bos])]))
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts_of(rows), trainer)
    if family.bos:
        start = (family.bos, bpe.token_to_id(family.bos))
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", pair=f"{family.bos} $A $B", special_tokens=[start]
        )
    bpe.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.calls])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=family.bos,
        eos_token=family.ends[0],
        pad_token=family.pad,
        additional_special_tokens=[*family.others],
        model_max_length=POSITIONS,
    )
    tokenizer.chat_template = family.template
    return tokenizer


def _texts_of(rows: Rows) -> Iterator[str]:
    for row in rows:
        for message in row["messages"]:
            yield message["content"] or json.dumps(message["tool_calls"])
