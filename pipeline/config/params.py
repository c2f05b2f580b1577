"""The schema of params.yaml: one class per section, one section per stage (fetch reads `data` and `model`).

pipeline/config/validation.py checks parameters against it, both during composition (hydra_plugins/checked_params.py) and
when a stage starts. The docstrings of the fields are the comments in conf/ and the text of docs/configuration.md; after a
change, run `python -m pipeline.document_config`. The first sentence is the comment; the docstring of an option's class is
the comment on its `kind` or `source`.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Checksum, Count, Fraction, Positive, PositiveFloat, Section, Seed, Share, Text
from pipeline.config.options import Compute, EarlyStopping, Method, Schedule
from pipeline.config.placeholders import column_template_errors, template_errors


class RowsSource(Section):
    """The keys of every source of rows."""

    columns: dict[str, str] | None
    """Column mapping: the task's column → the source's column; null: detect by name. The tasks are in
    pipeline/records/tasks.py, the detection in pipeline/records/columns.py. A value may be a template that combines
    several columns, such as `"{Description} {Patient}"`."""
    limit: Positive | None
    """Rows to read, from the start of the source; null: all."""

    @model_validator(mode="after")
    def _require_column_templates(self) -> "RowsSource":
        if errors := column_template_errors(self.columns or {}):
            raise ValueError("; ".join(errors))
        return self


class GeneratedRows(RowsSource):
    """Generates dialogues from a knowledge file, without a network."""

    source: Literal["generated"]
    path: Text
    """Knowledge file to generate the dialogues from."""
    sha256: str | None
    """SHA-256 of the file, set by composition. A changed file is thus a changed parameter."""
    rows: Positive
    """Number of dialogues to generate, including defective and duplicate ones."""
    length: Literal["short", "real"]
    """Length of the dialogues. `short`: one question with its answer, so that little training shows the effect of
    fine-tuning. `real`: the lengths and duplicates of ruslanmv/ai-medical-chatbot, to measure what its 256,916 rows
    cost."""
    seed: Seed
    """Seed of the generator."""


class FileRows(RowsSource):
    """Reads rows from files of your own, local or remote."""

    source: Literal["file"]
    path: Text
    """File, folder, glob or fsspec address (https://, s3://, hf://, …). The files are .jsonl, .json, .csv, .tsv,
    .parquet or .arrow, also compressed (.gz, .bz2, .xz, .zst). A relative path starts at the project's root."""
    sha256: Checksum | None
    """Expected SHA-256 of the files. Composition sets it for a local file, folder or glob, so that a changed file is a
    changed parameter. For an address it is checked only if you set it; then all of the data is read, whatever the
    limit."""


class HubRows(RowsSource):
    """Reads rows from a dataset on the Hugging Face hub."""

    source: Literal["hub"]
    name: Text
    """Dataset on the hub, as OWNER/NAME."""
    revision: Text
    """Branch, tag or commit; `python -m pipeline.pin` replaces it by the commit."""
    config: str | None
    """Configuration of the dataset; needed if it has several, otherwise null."""
    split: Text
    """Split of the dataset to read."""


class ScratchModel(Section):
    """Creates a GPT-NeoX with random weights and a new tokenizer.

    The tokenizer is a byte-level BPE, trained on the rows of `data`.
    """

    source: Literal["scratch"]
    seed: Seed
    """Seed of the weights."""
    vocabulary: Annotated[int, Field(ge=300)]
    """Tokens in the vocabulary, including 2 special tokens and the 256 bytes."""
    positions: Positive
    """Maximum sequence length, in tokens."""
    layers: Positive
    """Number of transformer layers."""
    hidden_size: Positive
    """Size of the hidden states; a multiple of heads."""
    heads: Positive
    """Attention heads per layer."""
    data: dict[str, Any]
    """Rows to train the tokenizer on: the data section, by interpolation."""

    @model_validator(mode="after")
    def _require_heads_divide_hidden_size(self) -> "ScratchModel":
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of heads {self.heads}")
        return self


class FolderModel(Section):
    """Loads the base model from a local folder."""

    source: Literal["folder"]
    path: Text
    """Model folder with config.json, *.safetensors and the tokenizer. A relative path starts at the project's root."""
    sha256: str | None
    """SHA-256 of the folder, set by composition. A changed model is thus a changed parameter."""


class HubModel(Section):
    """Downloads a causal language model from the Hugging Face hub."""

    source: Literal["hub"]
    name: Text
    """Model on the hub, as OWNER/NAME."""
    revision: Text
    """Branch, tag or commit; `python -m pipeline.pin` replaces it by the commit."""


Data = Annotated[GeneratedRows | FileRows | HubRows, Field(discriminator="source")]
Model = Annotated[ScratchModel | FolderModel | HubModel, Field(discriminator="source")]


class LengthLimits(Section):
    """Limits on the length of a text; null: no limit."""

    min_characters: Positive | None
    """Minimum length, in characters; null: no limit."""
    max_characters: Positive | None
    """Maximum length, in characters; null: no limit."""
    min_tokens: Positive | None
    """Minimum length, in tokens of the base model's tokenizer; null: no limit."""
    max_tokens: Positive | None
    """Maximum length, in tokens of the base model's tokenizer; null: no limit."""


class Clean(Section):
    """Cleaning and filtering of rows."""

    mend_encoding: bool
    """Repair text decoded with the wrong encoding, such as "donâ€™t", with ftfy."""
    question_prefixes: list[Text]
    """Prefixes to remove from the start of a question, each once, in this order."""
    strip: list[Text]
    """Regular expressions to remove at the end of an answer, each once. They apply in this order and ignore case."""
    contacts: Literal["keep", "mask", "drop"]
    """E-mail addresses and phone numbers: keep, mask, or drop the row. `mask` writes [email] and [phone]."""
    boilerplate: list[Text]
    """Regular expressions of phrases; an answer made only of them is dropped. They ignore case. Successive matches must
    cover every letter and digit of the answer."""
    max_boilerplate: Share | None
    """Maximum share of an answer that boilerplate may match; null: no limit. The share counts letters and digits; an
    answer made only of boilerplate is dropped in any case."""
    max_nonletters: Share | None
    """Maximum share of characters that are not letters; null: no limit. It applies to question and answer; spaces do
    not count."""
    languages: list[Text] | None
    """ISO 639-1 codes of the languages to keep, such as [en, es]; null: any. py3langid detects the language of a
    row."""
    question: LengthLimits
    """Limits on the length of the question."""
    answer: LengthLimits
    """Limits on the length of the answer."""
    deduplicate: bool
    """Drop exact duplicates of earlier rows."""

    @model_validator(mode="after")
    def _require_regular_expressions(self) -> "Clean":
        for name in ("strip", "boilerplate"):
            for pattern in getattr(self, name):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{name} {pattern!r} is not a regular expression: {error}") from None
        return self


class Template(Section):
    """The prompt template."""

    prompt: str
    """Prompt, with the placeholder {question} exactly once."""
    completion: str
    """Completion, with the placeholder {answer} exactly once."""

    @model_validator(mode="after")
    def _require_placeholders(self) -> "Template":
        if errors := template_errors(self.prompt, self.completion):
            raise ValueError("; ".join(errors))
        return self


class NearDuplicates(Section):
    """When two texts are near-duplicates."""

    threshold: Fraction
    """Minimum Jaccard similarity of the word bigrams of two near-duplicates."""
    min_words: Annotated[int, Field(ge=2)]
    """Minimum length to compare by bigrams, in words. Shorter texts have too few bigrams: their questions are compared
    for equality only, their answers not at all."""


class Format(Section):
    """Rendering of prompts and completions, and the split."""

    seed: Seed
    """Seed of the hash that assigns a row to its split."""
    split: Literal["question", "row"]
    """What is hashed: the question, or each row on its own. `question`: rows with the same question stay in one split,
    and near-duplicates of held-out rows are dropped. `row`: a naive shuffle, which leaks (see max_leakage)."""
    test_fraction: Fraction
    """Share of the rows for the test set; not used with folds."""
    validation_fraction: Fraction
    """Share of the rows for validation. With folds, of the rows outside the test set."""
    folds: Annotated[int, Field(ge=2)] | None
    """Number of cross-validation folds; null: one split by test_fraction. Each fold is the test set of its own run."""
    fold: Annotated[int, Field(ge=0)]
    """Fold that is the test set, from 0; must be less than folds."""
    max_leakage: Share
    """Maximum share of test rows with a duplicate in train, exact or near. The stage stops if it is exceeded."""
    near: NearDuplicates
    """When two texts count as near-duplicates."""
    template: Template
    """Template that renders the prompt and the completion."""

    @model_validator(mode="after")
    def _require_existing_fold(self) -> "Format":
        if self.fold >= (self.folds or 1):
            raise ValueError(f"fold {self.fold} must be less than folds ({self.folds})")
        return self

    @model_validator(mode="after")
    def _require_training_rows(self) -> "Format":
        if self.test_fraction + self.validation_fraction >= 1:
            raise ValueError("test_fraction + validation_fraction must leave something to train on (less than 1)")
        return self


class Gates(Section):
    """Maximum shares of the audit's findings (pipeline/tokenize/audit.py); null: no limit."""

    max_unlabelled: Share | None
    """Rows without labeled tokens. Nothing is learned from them, and a loss of 0 looks like success."""
    max_unended: Share | None
    """Rows without the end of text in the loss, because their answer is truncated. From too many of them a model learns
    not to stop."""
    max_truncated: Share | None
    """Rows longer than max_length, truncated in the prompt or the answer."""
    max_answer_tokens_lost: Share | None
    """Tokens truncated from answers, of all answer tokens."""
    max_duplicates: Share | None
    """Rows with the input_ids of an earlier row. A validation row is compared with train, too."""
    max_prefix_mismatch: Share | None
    """Rows whose prompt tokenizes differently with its answer, of the rows checked. The input_ids here are always those
    of the prompt alone, so it matters only to tools that tokenize both together."""
    max_padding: Share | None
    """Padding in the training batches, of all their token positions; train only."""


class Tokenize(Section):
    """Tokenization and the audit of its result."""

    max_length: Annotated[int, Field(ge=8)]
    """Maximum tokens per row: prompt, completion and end of text."""
    loss: Literal["completion", "full"]
    """Tokens in the loss: the completion only, or the prompt, too."""
    batch_size: Positive
    """Rows per forward pass of training. This key and the next five are interpolated from train and compute in
    conf/tokenize/default.yaml, so that the audit measures padding in the batches of training: set them there."""
    group_by_length: bool
    """Whether training batches rows of similar length."""
    packing: bool
    """Whether training packs the rows of a batch."""
    gradient_accumulation: Positive
    """Forward passes per optimizer step of training."""
    processes: Positive
    """Training processes on each machine; 1 with compute=local."""
    nodes: Positive
    """Machines that train; 1 with compute=local."""
    gates: Gates
    """Maximum shares of the audit's findings; null: no limit. The stage stops if train or validation exceeds one; all
    findings are counted in any case."""


class Train(Section):
    """Fine-tuning of the base model."""

    seed: Seed
    """Seed of the row order, dropout and new adapter weights."""
    epochs: Annotated[float, Field(gt=0)]
    """Passes over the training rows."""
    max_steps: Positive | None
    """Optimizer steps; overrides epochs; null: as many as the epochs take."""
    max_minutes: PositiveFloat | None
    """Time budget in minutes; null: none. Training ends after the step that exceeds it; the model is then evaluated and
    saved. The time that an interrupted training had spent by its last checkpoint counts. Not deterministic."""
    batch_size: Positive
    """Rows per forward pass, in each process."""
    gradient_accumulation: Positive
    """Forward passes per optimizer step."""
    eval_batch_size: Positive | None
    """Rows per forward pass of the validation; null: as many as fit. The longest rows come first."""
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd"]
    """Optimizer, by the Trainer's name for it."""
    learning_rate: Annotated[float, Field(gt=0, lt=10)]
    """Peak learning rate, reached at the end of the warmup."""
    method: Method
    """Which weights are trained."""
    schedule: Schedule
    """Learning rate over the optimizer steps after the warmup."""
    warmup_steps: Count
    """Optimizer steps over which the learning rate rises from 0."""
    warmup_share: Share | None
    """Warmup as a share of all optimizer steps; null: use warmup_steps."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Weight decay of the optimizer."""
    max_grad_norm: Annotated[float, Field(gt=0)]
    """Maximum norm of the gradients; larger ones are clipped."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None
    """Dropout of all the model's dropout layers; null: as in its config.json."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """Share of each target spread over the vocabulary, in the training loss only. Szegedy et al. 2016,
    arXiv:1512.00567."""
    neftune_alpha: PositiveFloat | None
    """Scale of the uniform noise added to the embeddings during training; null: none. It is at most `alpha / √(tokens ×
    hidden size)` (NEFTune, Jain et al. 2023, arXiv:2310.05914)."""
    precision: Literal["fp32", "bf16", "auto"]
    """Number format of the computation; auto: bf16 if the device supports it. bf16 is autocast: the weights stay in
    float32. With auto, results differ between machines."""
    group_by_length: bool
    """Batch rows of similar length, so that there is little padding."""
    packing: bool
    """Concatenate the rows of a batch instead of padding them. Attention and positions are kept separate per row.
    Faster on a GPU; on a CPU, the attention over a long batch costs more than padding. Models that cannot keep rows
    separate (OPT, Bloom, models with a recurrent state) are refused."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: less memory, more time."""
    logging_steps: Positive
    """Optimizer steps between two entries in the training history."""
    eval_steps: Positive | None
    """Optimizer steps between validations, each with a checkpoint; null: once an epoch."""
    keep_best: bool
    """Save the best weights by early_stopping.metric, instead of the last."""
    early_stopping: EarlyStopping
    """Metric that selects the best weights, and when to stop early."""


class Evaluate(Section):
    """Answers to the test questions, and their scores."""

    limit: Positive | None
    """Test rows to answer, from the first; null: all."""
    max_new_tokens: Positive
    """Maximum length of an answer in tokens, without the prompt."""
    batch_size: Positive | None
    """Prompts per batch; null: as many as fit in half of the free memory. Never more than is fastest. It is halved if
    memory runs out. In fp32 on a CPU it changes no answer."""
    precision: Literal["fp32", "bf16"]
    """Number format of the weights that generate answers. With bf16, two tokens are sometimes equally likely, and the
    batch decides between them; the held-out loss is always measured in float32."""
    engine: Literal["transformers", "vllm"]
    """Library that generates the answers. vllm needs a CUDA card and `pip install vllm`, and chooses batches itself."""
    semantic_model: Text | None
    """Folder of a sentence encoder that scores answers by meaning; null: no such score."""
    semantic_sha256: str | None
    """SHA-256 of the encoder, set by composition. With another encoder, evaluation runs again."""


class Compare(Section):
    """Comparison of base and fine-tuned model."""

    examples: Positive
    """Test rows shown side by side in the report."""
    resamples: Annotated[int, Field(ge=1000)]
    """Resamples of the test rows, for confidence intervals and p-values. With fewer than 1000, nothing could be
    significant at 5% over all metrics."""
    seed: Seed
    """Seed of the resamples."""


class Params(Section):
    """All of params.yaml."""

    version: Literal[1]
    """Version of this schema."""
    data: Data
    """The rows to train and test on."""
    model: Model
    """The base model."""
    clean: Clean
    """Which texts are repaired, stripped or masked, and which rows are dropped."""
    format: Format
    """How prompts and completions are rendered, and how the rows are split."""
    tokenize: Tokenize
    """How rows are tokenized, and what the audit allows before training starts."""
    train: Train
    """How the base model is fine-tuned."""
    compute: Compute
    """Where training runs: in one process or in several."""
    evaluate: Evaluate
    """How base and fine-tuned model answer the test questions."""
    compare: Compare
    """How the two models are compared, and what the report shows."""
