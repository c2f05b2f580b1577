"""The schema of params.yaml: one class per section, one section per stage (fetch reads `data` and `model`).

pipeline/config/validation.py checks parameters against it, both during composition (hydra_plugins/checked_params.py) and
when a stage starts. The docstrings of the fields are the comments in conf/ and the text of docs/configuration.md; after a
change, run `python -m pipeline.document_config`. The first sentence is the comment; the docstring of an option's class is
the comment on its `kind` or `source`.
"""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Count, Fraction, Positive, PositiveFloat, Section, Seed, Share, Text
from pipeline.config.options import Compute, EarlyStopping, Method, Schedule
from pipeline.config.sources import Data, Model
from pipeline.config.templates import Template


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
    """Cleaning and filtering of rows.

    Every text stays as it was given unless a key here changes it; the changed rows are counted by kind.
    """

    line_ends: Literal["normalize", "keep"]
    """Line ends: all become \\n, or stay as they are."""
    blank_lines: Literal["trim", "keep"]
    """Blank lines before and after an answer: removed, or kept. The indentation of the first line and the end of the last one
    stay. Prompts, completions and plain text keep their blank lines in any case."""
    whitespace: Literal["keep", "collapse"]
    """Whitespace: kept, or every run of it becomes one space. `collapse` also removes line breaks, indentation and invisible
    characters."""
    html: Literal["keep", "text"]
    """HTML tags and entities: kept, or turned into text (with inscriptis). Texts without them stay as they are, and so does
    code with angle brackets."""
    quoted_replies: Literal["keep", "strip"]
    """The message that an e-mail answers and quotes: kept or removed. It begins with "On … wrote:", with Outlook's From,
    Sent and To, or with lines that begin with >."""
    signatures: Literal["keep", "strip"]
    """The signature of an e-mail: kept or removed. It begins with "-- ", "Sent from my …" or a closing such as "Best
    regards,"."""
    mend_encoding: bool
    """Repair text decoded with the wrong encoding, such as "donâ€™t" (with ftfy)."""
    question_prefixes: list[Text]
    """Prefixes to remove from the start of a question. Each is removed once, in this order."""
    strip: list[Text]
    """Case-insensitive regular expressions for text to remove from the end of an answer. Each is applied once, in this
    order."""
    contacts: Literal["keep", "mask", "drop"]
    """E-mail addresses and phone numbers: keep them, mask them, or drop the row. `mask` replaces them with [email] and
    [phone]."""
    boilerplate: list[Text]
    """Case-insensitive regular expressions for boilerplate phrases. An answer is dropped if it consists of such
    phrases, one after another, with no other letters or digits."""
    max_boilerplate: Share | None
    """Maximum share of an answer that `boilerplate` may match; null: no limit. The share is of letters and digits. An
    answer made up only of boilerplate is always dropped."""
    max_nonletters: Share | None
    """Maximum share of characters that are not letters; null: no limit. It applies to the question and to the answer;
    spaces are not counted."""
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


class NearDuplicates(Section):
    """Which rows are near-duplicates, and how the split treats them."""

    enabled: bool
    """Whether rows are compared for near-duplicates; false: for equality only. Training rows that are near to a test row
    are then allowed, and counted in `leakage`."""
    fields: Annotated[list[Literal["question", "answer"]], Field(min_length=1)]
    """Texts by which rows are compared: [question] or [question, answer]. Compare answers as well where an answer gives
    away what a test question asks. Questions are compared with questions and answers with answers. In a chat, the question
    is all user turns together, or the last one alone."""
    strategy: Literal["cluster", "drop"]
    """What happens to near-duplicates across the splits. `cluster`: near rows, and rows near to these, are in the same
    split, and no row is dropped. `drop`: training rows near to a validation or test row, and validation rows near to a
    test row, are dropped."""
    threshold: Fraction
    """Minimum Jaccard similarity of the word bigrams of near-duplicates."""
    min_words: Annotated[int, Field(ge=2)]
    """Minimum length, in words, for comparison by bigrams. Shorter questions are compared for equality only, and shorter
    answers not at all."""
    max_cluster_rows: Positive | None
    """Maximum size of a cluster that may be held out; null: 5% of the rows, at least 50. Larger clusters are in the
    training set, because a test set should not consist of one question. Only with the strategy `cluster`."""

    @model_validator(mode="after")
    def _require_question(self) -> "NearDuplicates":
        if "question" not in self.fields or len({*self.fields}) < len(self.fields):
            raise ValueError(f"fields {self.fields} must be [question] or [question, answer]")
        return self


class Format(Section):
    """Rendering of prompts and completions, and the split."""

    seed: Seed
    """Seed of the hash that assigns each row to a split."""
    split: Literal["question", "row"]
    """Whether rows are split by question or one by one. `question`: rows with the same question, or a near one (see
    `near`), are in the same split. `row`: a naive shuffle, which leaks (see max_leakage)."""
    group: Text | None
    """Column of the source whose groups stay together, such as patient_id; null: none. Rows with the same value in it are
    in the same split."""
    test_fraction: Fraction
    """Share of the rows for the test set; not used with `folds`. It is not used with a test set of
    your own either."""
    validation_fraction: Fraction
    """Share of the rows for the validation set. With `folds`, the share is taken from the rows outside the test fold
    only."""
    folds: Annotated[int, Field(ge=2)] | None
    """Number of cross-validation folds; null: a single split by test_fraction. Each fold is the test set of its own
    run."""
    fold: Annotated[int, Field(ge=0)]
    """Index of the test fold, counting from 0; must be less than `folds`."""
    max_leakage: Share
    """Maximum share of test rows with an exact or near-duplicate in the training set. The stage fails if it is exceeded.
    Rows are compared by `near.fields`."""
    near: NearDuplicates
    """Which rows are near-duplicates, and how the split treats them."""
    system: Text | None
    """System prompt for rows that have none; null: none is added. Rows that begin with a system prompt keep their own."""
    template: Template
    """Template that renders the rows."""

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
    """Limits on the shares that the audit (pipeline/tokenize/audit.py) measures; null: no limit."""

    max_unlabelled: Share | None
    """Maximum share of rows with no labeled tokens. The model learns nothing from such rows, and their loss of 0 can be
    mistaken for success."""
    max_unended: Share | None
    """Maximum share of rows with an answer whose end is not learned. Its labels do not end with the token that ends a turn
    (the end-of-text token, where there is no chat template): the answer was truncated, or the chat template leaves the token
    out. Too many such rows teach the model not to stop."""
    max_wrong_start: Share | None
    """Maximum share of rows that do not begin as the model's texts do. If its tokenizer puts a beginning token such as `<s>`
    before a text, a row begins with exactly one; otherwise with one at most."""
    max_prompt_mismatch: Share | None
    """Maximum share of rows that do not begin with the prompt that a served model gets. The chat template renders a learned
    turn otherwise than it asks for one."""
    max_truncated: Share | None
    """Maximum share of rows longer than max_length, with a truncated prompt or answer."""
    max_answer_tokens_lost: Share | None
    """Maximum number of tokens truncated from answers, as a share of all answer tokens."""
    max_duplicates: Share | None
    """Maximum share of rows with the same token ids as an earlier row. Validation rows are also compared with training
    rows."""
    max_prefix_mismatch: Share | None
    """Maximum share of rows, in a sample, whose prompt tokens depend on the answer. Such rows matter only to other
    tools, which tokenize prompt and answer together; this project tokenizes the prompt alone."""
    max_unknown: Share | None
    """Maximum share of the answers' text that the tokenizer does not know. Unknown tokens and
    dropped characters count. The model would learn to answer with the unknown token. The default, 1 token of 100,
    tolerates stray symbols and stops at a script or notation that the model cannot read. Such text in prompts is only
    counted."""
    max_padding: Share | None
    """Maximum share of token positions in the training batches that are padding."""


class Tokenize(Section):
    """Tokenization and the audit of its result."""

    max_length: Annotated[int, Field(ge=8)]
    """Maximum number of tokens per row: prompt, completion and end-of-text token."""
    loss: Literal["assistant", "last", "full"]
    """Tokens that count toward the loss: those of every answer, of the last one, or all. `assistant` learns every turn of
    the assistant in a dialogue, except those of weight 0; `last` learns its last turn alone. Both are the completion in rows
    of prompt and completion. `full` adds the prompts."""
    batch_size: Positive
    """Rows per forward pass of training. This key and the next five are copied from `train` and `compute` by
    conf/tokenize/default.yaml, so that the audit measures padding in the real batches. Set them in `train` and
    `compute`, not here."""
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
    """Limits on the shares that the audit measures; null: no limit. The stage fails if the training or validation set
    exceeds a limit. All findings are counted, with or without a limit."""


class Train(Section):
    """Fine-tuning of the base model."""

    seed: Seed
    """Random seed of the row order, dropout and new adapter weights."""
    epochs: Annotated[float, Field(gt=0)]
    """Passes over the training rows."""
    max_steps: Positive | None
    """Number of optimizer steps, instead of `epochs`; null: as many as `epochs` requires."""
    max_minutes: PositiveFloat | None
    """Time budget in minutes; null: none. Training ends after the step that exceeds it; then the model is evaluated and
    saved. After a resume, the time spent before the last checkpoint counts toward the budget. The step at which
    training stops varies from run to run."""
    batch_size: Positive
    """Rows per forward pass, in each process."""
    gradient_accumulation: Positive
    """Forward passes per optimizer step."""
    eval_batch_size: Positive | None
    """Rows per forward pass of validation; null: as many as fit in memory. The longest rows come first."""
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
    """Dropout probability of all dropout layers; null: as in the model's config.json."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """Share of each target's probability mass that is spread over the vocabulary. It applies to the training loss only
    (Szegedy et al. 2016, arXiv:1512.00567)."""
    neftune_alpha: PositiveFloat | None
    """Scale (alpha) of the uniform noise added to embeddings in training; null: none. Each noise value is at most
    `alpha / √(tokens × hidden size)` in absolute value (NEFTune, Jain et al. 2023, arXiv:2310.05914)."""
    precision: Literal["fp32", "bf16", "auto"]
    """Compute precision (dtype); auto: bf16 if the device supports it. bf16 uses autocast: the weights stay in float32.
    With auto, results differ between machines."""
    group_by_length: bool
    """Batch rows of similar length, which reduces padding."""
    packing: bool
    """Concatenate the rows of a batch instead of padding them. Attention and positions are kept separate per row. This is
    faster on a GPU; on a CPU, attention over one long sequence costs more than the padding it saves. Models that cannot
    keep rows separate (OPT, Bloom, models with a recurrent state) are rejected."""
    dataloader_workers: Count
    """Processes that prepare batches during training; 0: the training process itself. Each training
    process has as many. The number does not change the result and a training resumes with another one, but DVC runs train
    again when it changes."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass, which takes less memory and more time."""
    logging_steps: Positive
    """Optimizer steps between two entries in the training history."""
    eval_steps: Positive | None
    """Optimizer steps between evaluations, each with a checkpoint; null: once per epoch."""
    keep_best: bool
    """Keep the weights that score best on early_stopping.metric, not the last ones."""
    early_stopping: EarlyStopping
    """Metric that selects the best weights, and when to stop early."""


class Evaluate(Section):
    """Answers to the test questions, and their scores."""

    limit: Positive | None
    """Number of test rows to answer, starting with the first; null: all."""
    max_new_tokens: Positive
    """Maximum length of an answer, in tokens, not counting the prompt."""
    turns: Literal["last", "all"]
    """Turns of a dialogue to ask for: the last answer, or every one. Each is asked for with the true turns before it."""
    batch_size: Positive | None
    """Prompts per batch; null: as many as fit in half of the free memory. With null, it is capped at 128 on a CPU and
    512 on a GPU, because larger batches were not faster. If memory runs out, the batch is halved. In fp32 on a CPU, the
    batch size does not change the answers."""
    precision: Literal["fp32", "bf16"]
    """Precision (dtype) of the weights that generate answers. In bf16, two tokens sometimes tie for the most likely, and
    which one is generated depends on the batch. The held-out loss is always measured in float32."""
    engine: Literal["transformers", "vllm"]
    """Library that generates the answers. vllm needs a CUDA GPU and `pip install vllm`, and chooses its own batches."""
    semantic_model: Text | None
    """Folder of a sentence encoder that scores answers by meaning; null: no such score."""
    semantic_sha256: str | None
    """SHA-256 of the encoder, computed when params.yaml is composed. If it changes, evaluate runs again."""


class Compare(Section):
    """Comparison of the base model with the fine-tuned model."""

    examples: Positive
    """Number of test rows for which the report shows both answers side by side."""
    resamples: Annotated[int, Field(ge=1000)]
    """Number of resamples of the test rows, for confidence intervals and p-values. The smallest possible p-value is
    `1 / (resamples + 1)`, and the Holm correction multiplies it by up to the number of tested metrics."""
    seed: Seed
    """Random seed for resampling."""


class Params(Section):
    """All of params.yaml."""

    version: Literal[1]
    """Version of the schema of params.yaml; always 1. `${checked:1}` gives 1 and checks all parameters when they are
    composed."""
    data: Data
    """The rows to train and test on."""
    model: Model
    """The base model."""
    clean: Clean
    """Which texts are repaired, stripped or masked, and which rows are dropped."""
    format: Format
    """How prompts and completions are rendered, and how the rows are split."""
    tokenize: Tokenize
    """How rows are tokenized, and the limits that the audit checks before training."""
    train: Train
    """How the base model is fine-tuned."""
    compute: Compute
    """Where training runs: in one process or in several."""
    evaluate: Evaluate
    """How the base and fine-tuned models answer the test questions."""
    compare: Compare
    """How the two models are compared, and how many rows the report shows."""
