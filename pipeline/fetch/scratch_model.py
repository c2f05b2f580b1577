"""Builds the model of `model=scratch`: a small GPT-NeoX with random weights, its tokenizer trained on the rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from pipeline.config.sources import Data, ScratchModel
from pipeline.fetch.sources import load_rows
from pipeline.modeling.loading import quiet_transformers
from pipeline.records.json_cells import to_python

END_OF_TEXT, PADDING = "<|endoftext|>", "<|padding|>"


def build_scratch_model(model: ScratchModel, folder: Path) -> None:
    """Write the model and its tokenizer to `folder`; the seed determines both.

    The tokenizer is GPT-NeoX's kind (byte-level BPE, so no text is unknown) with at most `model.vocabulary` tokens.
    """
    quiet_transformers()
    data: Data = TypeAdapter(Data).validate_python(model.data)
    source = load_rows(data)
    texts = texts_of(source.table, source.mapping.source_columns())
    tokenizer = train_tokenizer(texts, model.vocabulary, model.positions)
    tokenizer.save_pretrained(folder)
    shape = {"layers": model.layers, "hidden_size": model.hidden_size, "heads": model.heads}
    new_model(tokenizer, **shape, positions=model.positions, seed=model.seed).save_pretrained(folder)


def new_model(tokenizer: Any, *, layers: int, hidden_size: int, heads: int, positions: int, seed: int) -> Any:
    """A GPT-NeoX with random weights, determined by the seed, and the tokenizer's vocabulary."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=positions,
        num_hidden_layers=layers,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_attention_heads=heads,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return GPTNeoXForCausalLM(config)


def texts_of(table: pa.Table, columns: list[str]) -> Iterator[str]:
    """The texts of the columns, chat messages flattened."""
    for name in columns:
        for value in to_python(table.column(name)):
            yield from _strings_in(value)


def _strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings_in(item)


def train_tokenizer(texts: Iterator[str], vocabulary: int, positions: int) -> Any:
    """A byte-level BPE with at most `vocabulary` tokens, for a model with `positions` token positions."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        pad_token=PADDING,
        model_max_length=positions,
    )
