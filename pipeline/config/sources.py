"""The sections `data` and `model`: one class per kind of source, selected by `source`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.addresses import credentials_error, display_address
from pipeline.config.base import Checksum, Positive, Section, Seed, Text
from pipeline.config.placeholders import column_template_errors


def _require_no_credentials(path: str) -> str:
    if error := credentials_error(path):
        raise ValueError(error)
    return path


def _require_hub_name(name: str) -> str:
    if error := credentials_error(name, protocol="hub"):
        raise ValueError(error)
    return name


def _require_delimiter(delimiter: str) -> str:
    if delimiter not in ("tab", "\\t") and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"{delimiter!r} is no separator; expected one character, such as ; or |, or the word tab")
    return delimiter


def _require_encoding(encoding: str) -> str:
    try:
        "".encode(encoding)
    except LookupError:  # not known, or not one of text
        raise ValueError(
            f"{encoding!r} is no encoding of text; expected one such as utf-16, cp1252 or shift_jis"
        ) from None
    return encoding


Address = Annotated[Text, AfterValidator(_require_no_credentials)]
HubName = Annotated[Text, AfterValidator(_require_hub_name)]


class RowsSource(Section):
    """The keys of every source of rows."""

    columns: dict[str, str] | None
    """Column mapping: the task's column ← the source's column; null: detect by name. The tasks are in
    pipeline/records/tasks.py, the detection in pipeline/records/columns.py. A value may be a template that combines
    several columns, such as `"{Description} {Patient}"`."""
    limit: Positive | None
    """Number of rows to read, starting with the first; null: all. It does not apply to a test set of your own."""

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
    turns: Literal["one", "several"]
    """Turns of a dialogue. `one`: a question and its answer, as in ruslanmv/ai-medical-chatbot. `several`: chats of two or three
    questions about one condition, with a system prompt."""
    length: Literal["short", "real"]
    """Length of the dialogues. `short`: one question and answer, so that a short training run shows the effect of
    fine-tuning. `real`: the lengths and duplicates of ruslanmv/ai-medical-chatbot, to measure time and memory at its
    256,916 rows."""
    seed: Seed
    """Random seed of the generator."""

    @model_validator(mode="after")
    def _require_short_chats(self) -> "GeneratedRows":
        if self.turns == "several" and self.length == "real":
            raise ValueError("length real has dialogues of one question only; set length=short, or turns=one")
        return self


class FileRows(RowsSource):
    """Reads rows from your own files, local or remote."""

    source: Literal["file"]
    path: Address
    """File, folder, glob or fsspec URL (https://, s3://, hf://, …). The files are .jsonl, .json, .csv, .tsv, .xlsx, .xls,
    .ods, .parquet or .arrow, optionally compressed (.gz, .bz2, .xz, .zst). Relative paths are relative to the project
    root."""
    sha256: Checksum | None
    """Expected SHA-256 of the files. For a local file, folder or glob it is computed when params.yaml is composed, so a
    change to the files counts as a parameter change. For a URL it is checked only if you set it; then the whole source
    is read even when `limit` is set."""
    test_path: Address | None
    """Test set of your own, given like `path`; null: hold out rows of `path`. Its rows are the test set as they are. They are
    read by the same column mapping, and training rows that nearly duplicate them are dropped."""
    test_sha256: Checksum | None
    """Expected SHA-256 of the files of `test_path`, like `sha256`."""
    delimiter: Annotated[str, AfterValidator(_require_delimiter)] | None
    """Separator of .csv and .tsv files, such as `;` or `tab`; null: detect."""
    encoding: Annotated[str, AfterValidator(_require_encoding)] | None
    """Encoding of text files, such as `cp1252`; null: UTF-8. A byte order mark (UTF-8, UTF-16) takes precedence."""
    sheet: Text | None
    """Sheet of a workbook; null: the first with several rows."""
    field: Text | None
    """Key of a JSON object that holds the rows, such as `data`; null: detect. Dots lead to a key within a key."""

    @model_validator(mode="after")
    def _require_another_test_path(self) -> "FileRows":
        if self.test_path is not None and self.test_path.rstrip("/") == self.path.rstrip("/"):
            raise ValueError(
                f"test_path is the same as path ({display_address(self.path)}); expected other rows, or null to hold out "
                "rows of path"
            )
        return self


class HubRows(RowsSource):
    """Reads rows from a dataset on the Hugging Face Hub."""

    source: Literal["hub"]
    name: HubName
    """Dataset on the Hugging Face Hub, as OWNER/NAME."""
    revision: Text
    """Branch, tag or commit; `python -m pipeline.pin` replaces it with the commit hash."""
    config: str | None
    """Configuration of the dataset; null if it has only one."""
    split: Text
    """Split of the dataset to read."""
    test_split: str | None
    """Split to use as the test set, such as `test`; null: hold out rows of `split`. Its rows are the test set as they are, and
    training rows that nearly duplicate them are dropped."""

    @model_validator(mode="after")
    def _require_another_test_split(self) -> "HubRows":
        if self.test_split == self.split:
            raise ValueError(
                f"test_split is the same as split ({self.split}); expected another, or null to hold out rows"
            )
        return self


class BaseModelSource(Section):
    """The keys of every source of a model."""

    chat_template: Text | None
    """Chat template for the model: `chatml`, or a Jinja file; null: the model's own. Control tokens such as `<|im_start|>`
    that the tokenizer lacks are added, and each starts with the mean of the other embeddings."""
    chat_template_sha256: str | None
    """SHA-256 of the Jinja file, computed when params.yaml is composed. A change to the file thus counts as a parameter
    change."""
    replace_chat_template: bool
    """Whether `chat_template` replaces a chat template that the model has. With false, that is an error: the model was trained
    with its own."""


class ScratchModel(BaseModelSource):
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


class FolderModel(BaseModelSource):
    """Loads the base model from a local folder."""

    source: Literal["folder"]
    path: Address
    """Model folder with config.json, *.safetensors and the tokenizer. Relative paths are relative to the project root."""
    sha256: str | None
    """SHA-256 of the folder, computed when params.yaml is composed. A change to the model thus counts as a parameter
    change."""


class HubModel(BaseModelSource):
    """Downloads a causal language model from the Hugging Face Hub."""

    source: Literal["hub"]
    name: HubName
    """Model on the Hugging Face Hub, as OWNER/NAME."""
    revision: Text
    """Branch, tag or commit; `python -m pipeline.pin` replaces it with the commit hash."""


Data = Annotated[GeneratedRows | FileRows | HubRows, Field(discriminator="source")]
Model = Annotated[ScratchModel | FolderModel | HubModel, Field(discriminator="source")]
