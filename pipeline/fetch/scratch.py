"""A small GPT-NeoX with random weights and a tokenizer trained on the rows, both by seed: `model=scratch`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from pipeline.config.params import Data, RowsSource, ScratchModel
from pipeline.fetch.sources import load_rows
from pipeline.modeling.loading import quiet_transformers

END_OF_TEXT, PADDING = "<|endoftext|>", "<|padding|>"


def build_scratch_model(model: ScratchModel, folder: Path) -> None:
    """Write the model and its tokenizer to `folder`.

    The tokenizer has GPT-NeoX's form (byte-level BPE, so no text is unknown) with at most `model.vocabulary` tokens.
    """
    quiet_transformers()
    data: RowsSource = TypeAdapter(Data).validate_python(model.data)
    source = load_rows(data)
    tokenizer = train_tokenizer(texts_of(source.table, source.taken.sources()), model.vocabulary, model.positions)
    tokenizer.save_pretrained(folder)
    shape = {"layers": model.layers, "hidden_size": model.hidden_size, "heads": model.heads}
    new_model(tokenizer, **shape, positions=model.positions, seed=model.seed).save_pretrained(folder)


def new_model(tokenizer: Any, *, layers: int, hidden_size: int, heads: int, positions: int, seed: int) -> Any:
    """A GPT-NeoX for the tokenizer with random weights, by seed."""
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
        for value in table.column(name).to_pylist():
            yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def train_tokenizer(texts: Iterator[str], vocabulary: int, positions: int) -> Any:
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
