"""The schema of params.yaml: one class a section, one stage a section (fetch reads `data` and `model`).

`check` holds for composition (see hydra_plugins/checked_params.py) and for the start of each stage alike:
unknown keys, types and ranges are all reported together.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Checksum, Count, Fraction, Positive, PositiveFloat, Section, Seed, Share, Text
from pipeline.config.options import Compute, EarlyStopping, Method, Schedule
from pipeline.config.placeholders import column_template_errors, template_errors


class RowsSource(Section):
    """What every source of rows knows."""

    columns: dict[str, str] | None
    """task's column (see pipeline/records/tasks.py) → source's column, or a template that joins several, such as
    "{Description} {Patient}"; null: they are found by their names (see pipeline/records/columns.py)"""
    limit: Positive | None
    """rows to take from the source's beginning, no more than these are read; null: all"""

    @model_validator(mode="after")
    def _templates(self) -> "RowsSource":
        if faults := column_template_errors(self.columns or {}):
            raise ValueError("; ".join(faults))
        return self


class GeneratedRows(RowsSource):
    source: Literal["generated"]
    path: Text
    """the knowledge file that the dialogues are generated from"""
    sha256: str | None
    """of the file, written by composition: so a changed file is a changed parameter"""
    rows: Positive
    """dialogues to generate, faults and duplicates included"""
    length: Literal["short", "real"]
    """of a dialogue: short is one question with its answer, so that little training shows what fine-tuning does; real
    has the lengths and repeats of ruslanmv/ai-medical-chatbot, to see what its 256,916 rows take"""
    seed: Seed


class FileRows(RowsSource):
    source: Literal["file"]
    path: Text
    """a file, a folder, a glob, or an address that fsspec knows (https://, s3://, hf://, …); what it names is one of
    .jsonl, .json, .csv, .tsv, .parquet, .arrow, also packed (.gz, .bz2, .xz, .zst); a relative path counts from the
    project's root"""
    sha256: Checksum | None
    """what is read must have it. Composition writes that of a local file, folder or glob, so that a changed file is a
    changed parameter; of an address it is checked if you give it (all is read for that, whatever the limit)"""


class HubRows(RowsSource):
    source: Literal["hub"]
    name: Text
    """OWNER/NAME on the Hugging Face hub"""
    revision: Text
    """branch, tag or commit; `python -m pipeline.pin` replaces it by the commit"""
    config: str | None
    """the dataset's configuration, where it has several"""
    split: Text


class ScratchModel(Section):
    """A GPT-NeoX with random weights and a byte-level BPE trained on the rows of `data`."""

    source: Literal["scratch"]
    seed: Seed
    vocabulary: Annotated[int, Field(ge=300)]
    """tokens, the two special ones and the 256 bytes included"""
    positions: Positive
    """longest sequence, in tokens"""
    layers: Positive
    hidden_size: Positive
    heads: Positive
    data: dict[str, Any]
    """the rows that the tokenizer is trained on: the `data` section, which conf/model/scratch.yaml points it at"""

    @model_validator(mode="after")
    def _heads_divide(self) -> "ScratchModel":
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of heads {self.heads}")
        return self


class FolderModel(Section):
    source: Literal["folder"]
    path: Text
    """a folder with config.json, *.safetensors and the tokenizer; relative paths count from the project's root"""
    sha256: str | None


class HubModel(Section):
    source: Literal["hub"]
    name: Text
    revision: Text


Data = Annotated[GeneratedRows | FileRows | HubRows, Field(discriminator="source")]
Model = Annotated[ScratchModel | FolderModel | HubModel, Field(discriminator="source")]


class Length(Section):
    """Between which sizes a text must be; null: any. Tokens are those of the base model's tokenizer."""

    min_characters: Positive | None
    max_characters: Positive | None
    min_tokens: Positive | None
    max_tokens: Positive | None


class Clean(Section):
    mend_encoding: bool
    """undo text that was decoded with the wrong encoding ("donâ€™t"), as far as ftfy can"""
    question_prefixes: list[Text]
    """removed from the start of a question, as a whole and once each"""
    strip: list[Text]
    """regular expressions (case ignored); what they match at the end of an answer is removed, each once, in this order"""
    contacts: Literal["keep", "mask", "drop"]
    """e-mail addresses and telephone numbers: kept, written as [email] and [phone], or the row is dropped"""
    boilerplate: list[Text]
    """regular expressions (case ignored); an answer whose letters and digits they match one after another is dropped"""
    max_boilerplate: Share | None
    """the greatest share of an answer's letters and digits that boilerplate may match; null: any but all"""
    max_nonletters: Share | None
    """the greatest share of a question's or an answer's signs that are no letters; null: any"""
    languages: list[Text] | None
    """ISO 639-1 codes, such as [en, es]; rows that are in none of them (py3langid tells) are dropped; null: any"""
    question: Length
    answer: Length
    deduplicate: bool
    """drop rows that are exactly as an earlier one"""

    @model_validator(mode="after")
    def _patterns(self) -> "Clean":
        for name in ("strip", "boilerplate"):
            for pattern in getattr(self, name):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{name} {pattern!r} is not a regular expression: {error}") from None
        return self


class Template(Section):
    prompt: str
    """holds {question} once; what the model is given"""
    completion: str
    """holds {answer} once; what the model is to write after the prompt"""

    @model_validator(mode="after")
    def _placeholders(self) -> "Template":
        faults = template_errors(self.prompt, self.completion)
        if faults:
            raise ValueError("; ".join(faults))
        return self


class Near(Section):
    threshold: Fraction
    """Jaccard similarity of two texts' word bigrams from which on they are near to each other"""
    min_words: Annotated[int, Field(ge=2)]
    """shorter texts have too few bigrams to tell near from different: questions count only when equal, answers never"""


class Format(Section):
    seed: Seed
    """of the hash that sends a question to its split"""
    split: Literal["question", "row"]
    """what is hashed: the question, so that rows that ask the same stay together, and near ones are dropped; or each
    row by itself, which is a naive shuffle and leaks (see max_leakage)"""
    test_fraction: Fraction
    validation_fraction: Fraction
    """of all rows; with folds, of those that are not test rows"""
    folds: Annotated[int, Field(ge=2)] | None
    """cross-validation: as many disjoint test sets, each in its own run by `fold`; null: one, by test_fraction"""
    fold: Annotated[int, Field(ge=0)]
    """which of the folds is the test set, from 0"""
    max_leakage: Share
    """the stage stops if a greater share of the test rows has a twin in train, exact or near"""
    near: Near
    template: Template

    @model_validator(mode="after")
    def _fold_is_one(self) -> "Format":
        if self.fold >= (self.folds or 1):
            raise ValueError(f"fold {self.fold} must be less than folds ({self.folds})")
        return self

    @model_validator(mode="after")
    def _some_train(self) -> "Format":
        if self.test_fraction + self.validation_fraction >= 1:
            raise ValueError("test_fraction + validation_fraction must leave something to train on (less than 1)")
        return self


class Gates(Section):
    """What the audit allows, as shares from 0 to 1, in train and in validation alike; above, the stage stops.

    null: any. The audit (pipeline/tokenize/audit.py) counts all of them, whatever is allowed.
    """

    max_unlabelled: Share | None
    """rows of which no label is in the loss: nothing is learned, and a loss of 0 looks like success"""
    max_unended: Share | None
    """rows without the end of text in the loss, as their answer is cut: from too many a model learns not to stop"""
    max_truncated: Share | None
    """rows that are longer than max_length, cut in their prompt or their answer"""
    max_answer_tokens_lost: Share | None
    """tokens cut off the answers, of all tokens of answers"""
    max_duplicates: Share | None
    """rows with the token ids of an earlier one; for validation, of a row of train too"""
    max_prefix_mismatch: Share | None
    """rows whose prompt tokenizes differently alone than with its answer, of those checked. The ids here are always
    those of the prompt alone, so it matters only to tools that tokenize both together"""
    max_padding: Share | None
    """places in the batches of training that are padding; train alone"""


class Tokenize(Section):
    max_length: Annotated[int, Field(ge=8)]
    """tokens a row, prompt, completion and end of text together"""
    loss: Literal["completion", "full"]
    """what is learned: the completion alone, or the prompt too"""
    batch_size: Positive
    """rows in a batch, to measure padding: train's, which conf/tokenize/default.yaml points it at"""
    group_by_length: bool
    """the same"""
    gates: Gates


class Train(Section):
    seed: Seed
    epochs: Annotated[float, Field(gt=0)]
    max_steps: Positive | None
    """optimizer steps; overrides epochs; null: as many as the epochs take"""
    max_minutes: PositiveFloat | None
    """a budget of time: training ends after the step that passes it, is evaluated and saved. What an interrupted
    training had spent by its last checkpoint counts. Not deterministic; null: none"""
    batch_size: Positive
    """rows in a forward pass, of each process (see compute)"""
    gradient_accumulation: Positive
    """forward passes in an optimizer step"""
    eval_batch_size: Positive | None
    """rows in a forward pass of an evaluation, the longest ones first; null: as many as fit"""
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd"]
    learning_rate: Annotated[float, Field(gt=0, lt=10)]
    method: Method
    """which weights are trained: -S train/method=lora"""
    schedule: Schedule
    """how the learning rate goes on after the warmup: -S train/schedule=linear"""
    warmup_steps: Count
    """optimizer steps over which the learning rate rises from 0"""
    warmup_share: Share | None
    """of all optimizer steps, in the place of warmup_steps; null: warmup_steps counts"""
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)] | None
    """share of activations set to 0 while training, in all dropouts of the model; null: as its configuration has them"""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """share of each target that is spread over the whole vocabulary (Szegedy et al. 2016, arXiv:1512.00567); in the
    training loss alone"""
    neftune_alpha: PositiveFloat | None
    """uniform noise on the embeddings while training, of at most alpha / √(tokens × hidden size) (NEFTune, Jain et al.
    2023, arXiv:2310.05914); null: none"""
    precision: Literal["fp32", "bf16", "auto"]
    """bf16: autocast; the weights stay in float32. auto: bf16 where the device computes in it, so that results differ from
    machine to machine"""
    group_by_length: bool
    """rows of like length share a batch, so that little of it is padding"""
    packing: bool
    """a batch's rows stand one after the other, attention and positions kept apart, so that none of it is padding; pays
    on a GPU, while on a CPU the attention of a long batch costs more than padding. Models that cannot keep them apart (OPT,
    Bloom, those with a state) are refused"""
    gradient_checkpointing: bool
    logging_steps: Positive
    eval_steps: Positive | None
    """optimizer steps between two evaluations, each with a checkpoint; null: once an epoch"""
    keep_best: bool
    """keep the weights that are best by early_stopping.metric, not the last"""
    early_stopping: EarlyStopping


class Evaluate(Section):
    limit: Positive | None
    """test rows to answer, from the first; null: all"""
    max_new_tokens: Positive
    """longest answer in tokens, the prompt not counted"""
    batch_size: Positive | None
    """prompts answered side by side; null: as many as fit into half of the free memory, at most what is fastest. It is
    halved where memory runs out. In fp32 on a CPU it changes no answer"""
    precision: Literal["fp32", "bf16"]
    """bf16: answered with the weights in bfloat16, where two tokens are sometimes equally likely, and which one comes
    depends on the batch; the held-out loss is measured in float32 all the same"""
    engine: Literal["transformers", "vllm"]
    """vllm: where a CUDA card and the library are (pip install vllm); it chooses batches by itself"""
    semantic_model: Text | None
    """a folder with a sentence encoder, to score answers by their nearness in meaning too; null: they are not"""
    semantic_sha256: str | None
    """its content, so that another encoder is another evaluation"""


class Compare(Section):
    examples: Positive
    """test rows shown side by side on the page"""
    resamples: Annotated[int, Field(ge=1000)]
    """draws of the test rows, for intervals and p-values; fewer than 1000 could find nothing at 5% over all metrics"""
    seed: Seed
    """of the draws"""


class Params(Section):
    version: Literal[1]
    """of this schema"""
    data: Data
    model: Model
    clean: Clean
    format: Format
    tokenize: Tokenize
    train: Train
    compute: Compute
    """-S compute=ddp, -S compute=fsdp"""
    evaluate: Evaluate
    compare: Compare
