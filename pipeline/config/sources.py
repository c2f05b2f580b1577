"""The sections `data` and `model`: one class per kind of source, selected by `source`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Checksum, Positive, Section, Seed, Text
from pipeline.config.placeholders import column_template_errors


class RowsSource(Section):
    """The keys of every source of rows."""

    columns: dict[str, str] | None
    """Column mapping: the task's column ← the source's column; null: detect by name. The tasks are in
    pipeline/records/tasks.py, the detection in pipeline/records/columns.py. A value may be a template that combines
    several columns, such as `"{Description} {Patient}"`."""
    limit: Positive | None
    """Number of rows to read, starting with the first; null: all."""

    @model_validator(mode="after")
    def _require_column_templates(self) -> "RowsSource":
        if errors := column_template_errors(self.columns or {}):
            raise ValueError("; ".join(errors))
        return self


class GeneratedRows(RowsSource):
    """Generates dialogues from a knowledge file, offline."""

    source: Literal["generated"]
    path: Text
    """Knowledge file to generate the dialogues from."""
    sha256: str | None
    """SHA-256 of the file, computed when params.yaml is composed. A change to the file thus counts as a parameter
    change."""
    rows: Positive
    """Number of dialogues to generate, including defective and duplicate ones."""
    length: Literal["short", "real"]
    """Length of the dialogues. `short`: one question and answer, so that a short training run shows the effect of
    fine-tuning. `real`: the lengths and duplicates of ruslanmv/ai-medical-chatbot, to measure time and memory at its
    256,916 rows."""
    seed: Seed
    """Random seed of the generator."""


class FileRows(RowsSource):
    """Reads rows from your own files, local or remote."""

    source: Literal["file"]
    path: Text
    """File, folder, glob or fsspec URL (https://, s3://, hf://, …). The files are .jsonl, .json, .csv, .tsv, .parquet or
    .arrow, optionally compressed (.gz, .bz2, .xz, .zst). Relative paths are relative to the project root."""
    sha256: Checksum | None
    """Expected SHA-256 of the files. For a local file, folder or glob it is computed when params.yaml is composed, so a
    change to the files counts as a parameter change. For a URL it is checked only if you set it; then the whole source
    is read even when `limit` is set."""


class HubRows(RowsSource):
    """Reads rows from a dataset on the Hugging Face Hub."""

    source: Literal["hub"]
    name: Text
    """Dataset on the Hugging Face Hub, as OWNER/NAME."""
    revision: Text
    """Branch, tag or commit; `python -m pipeline.pin` replaces it with the commit hash."""
    config: str | None
    """Configuration of the dataset; null if it has only one."""
    split: Text
    """Split of the dataset to read."""


class ScratchModel(Section):
    """Creates a GPT-NeoX with random weights and a new tokenizer.

    The tokenizer is a byte-level BPE, trained on the rows of `data`.
    """

    source: Literal["scratch"]
    seed: Seed
    """Random seed of the weights."""
    vocabulary: Annotated[int, Field(ge=300)]
    """Size of the vocabulary, in tokens, including 2 special tokens and the 256 bytes."""
    positions: Positive
    """Maximum sequence length, in tokens."""
    layers: Positive
    """Number of transformer layers."""
    hidden_size: Positive
    """Size of the hidden states; a multiple of `heads`."""
    heads: Positive
    """Attention heads per layer."""
    data: dict[str, Any]
    """Rows to train the tokenizer on, copied from the `data` section."""

    @model_validator(mode="after")
    def _require_heads_divide_hidden_size(self) -> "ScratchModel":
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of heads {self.heads}")
        return self


class FolderModel(Section):
    """Loads the base model from a local folder."""

    source: Literal["folder"]
    path: Text
    """Model folder with config.json, *.safetensors and the tokenizer. Relative paths are relative to the project root."""
    sha256: str | None
    """SHA-256 of the folder, computed when params.yaml is composed. A change to the model thus counts as a parameter
    change."""


class HubModel(Section):
    """Downloads a causal language model from the Hugging Face Hub."""

    source: Literal["hub"]
    name: Text
    """Model on the Hugging Face Hub, as OWNER/NAME."""
    revision: Text
    """Branch, tag or commit; `python -m pipeline.pin` replaces it with the commit hash."""


Data = Annotated[GeneratedRows | FileRows | HubRows, Field(discriminator="source")]
Model = Annotated[ScratchModel | FolderModel | HubModel, Field(discriminator="source")]
