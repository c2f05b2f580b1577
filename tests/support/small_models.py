"""Small models of several architectures with random weights, rows for them, and folders in which they train."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from pipeline.chat.row_format import PLAIN_TEXT, write_row_format
from pipeline.modeling.encoding import Example

VOCABULARY = 101
SMALL_CONFIGS: dict[str, dict[str, Any]] = {
    "gpt_neox": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "llama": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},  # output layer tied to the embedding
    "qwen2": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
              "num_key_value_heads": 2},
}  # fmt: skip
GEMMA = {**SMALL_CONFIGS["qwen2"], "num_key_value_heads": 1, "head_dim": 16}  # tied, too
FAMILIES = {
    **SMALL_CONFIGS,
    "gemma": GEMMA,
    "gemma2": {**GEMMA, "sliding_window": 8, "final_logit_softcapping": 2.0},  # low, so that it matters
    "gemma3_text": {**GEMMA, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
}
TOKEN_CONFIG = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
WORDS = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{number}": number for number in range(3, VOCABULARY)}}

ROWS = [
    Example([5, 6, 7, 8, 9], [-100, -100, 7, 8, 9], 0),
    Example([3, 4, 2], [3, 4, 2], 0),
    Example([1, 9, 8, 7], [-100, 9, 8, -100], 0),
]


def small_model(kind: str, **changes: Any) -> Any:
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **{**FAMILIES[kind], **TOKEN_CONFIG, **changes})
    ).eval()


def word_tokenizer(words: dict[str, int] = WORDS, pad_token: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer for the small models, which embed 101 tokens."""
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": pad_token}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def uneven_rows(count: int) -> list[Example]:
    """Rows of 1 to 24 tokens with none to all of them labeled. The first are extremes: one token, one label, all labels."""
    generator = np.random.default_rng(5)
    lengths = [1, 24, 24, 1, *generator.integers(2, 25, count)][:count]
    unlabeled = [0, 23, 0, 0, *(int(generator.integers(0, length)) for length in lengths[4:])]
    rows = []
    for length, prompt in zip(lengths, unlabeled, strict=False):
        # the tokens from 90 on never occur
        tokens = [*generator.integers(3, 90, length - 1).tolist(), 2]
        rows.append(Example(tokens, [-100] * prompt + tokens[prompt:], prompt))
    return rows


def write_tokenized(folder: Path, rows: dict[str, list[Example]]) -> None:
    """Write the rows of each split as the tokenize stage does; their ids are not their positions."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = pa.list_(pa.int32())
    schema = pa.schema({"id": pa.int64(), "input_ids": tokens, "labels": tokens, "length": pa.int32()})
    write_row_format(folder, PLAIN_TEXT)
    for name, examples in rows.items():
        values = [
            {"id": 100 + i, "input_ids": row.input_ids, "labels": row.labels, "length": len(row.input_ids)}
            for i, row in enumerate(examples)
        ]
        pq.write_table(pa.Table.from_pylist(values, schema), folder / f"{name}.parquet")


def write_inputs(folder: Path, kind: str, row_count: int = 22, **changes: Any) -> None:
    """Write what train reads, models/base and data/tokenized, into a folder.

    The weights are larger than usual, so that the logits of different tokens and rows differ clearly.
    """
    scale = {"initializer_range": 0.15, "max_position_embeddings": 32}
    small_model(kind, **{**scale, **changes}).save_pretrained(folder / "models/base")
    word_tokenizer().save_pretrained(folder / "models/base")
    write_tokenized(folder / "data/tokenized", {"train": uneven_rows(row_count), "validation": uneven_rows(7)[1:3]})
