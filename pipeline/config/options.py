"""The option groups inside `train` and `compute`: method, schedule, early stopping, and where training runs.

One class per option of train/method, train/schedule and compute, discriminated by `kind`, so that a key of another option
is an unknown key. pipeline/train/schedules.py implements the schedules, with their sources.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from pipeline.config.base import Count, Fraction, Positive, PositiveFloat, Section, Share

ALL_LINEAR = "all-linear"


class Full(Section):
    """Trains every weight."""

    kind: Literal["full"]


class Adapter(Section):
    """The keys of LoRA and QLoRA.

    The product of two low-rank matrices is added to each target module; only these matrices are trained.
    """

    rank: Positive
    """Rank of the adapter matrices."""
    alpha: PositiveFloat
    """Scale of the adapter: the product of its matrices is multiplied by `alpha / rank`."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Dropout probability of the adapter's inputs during training."""
    target_modules: str | list[str]
    """`all-linear`, or a list of module names. `all-linear` is every linear module except the output head. A name, as in
    `[query_key_value, dense]`, matches every linear module whose full name ends with it."""

    @field_validator("target_modules", mode="before")
    @classmethod
    def _require_all_linear_or_names(cls, value: Any) -> Any:
        is_list_of_names = isinstance(value, list) and value and all(isinstance(name, str) and name for name in value)
        if value != ALL_LINEAR and not is_list_of_names:
            raise ValueError(f"{value!r} is invalid; expected {ALL_LINEAR}, or a list of module names")
        return value


class Lora(Adapter):
    """Trains low-rank adapters on a frozen base model (LoRA).

    Hu et al. 2021, arXiv:2106.09685.
    """

    kind: Literal["lora"]


class Qlora(Adapter):
    """Trains low-rank adapters on a base model quantized to 4 bits (QLoRA).

    NF4 with double quantization (Dettmers et al. 2023, arXiv:2305.14314). Needs a CUDA GPU and bitsandbytes.
    """

    kind: Literal["qlora"]


Method = Annotated[Full | Lora | Qlora, Field(discriminator="kind")]


class Constant(Section):
    """Keeps the learning rate at train.learning_rate from the first step, without warmup."""

    kind: Literal["constant"]


class ConstantWithWarmup(Section):
    """Keeps the learning rate at train.learning_rate after the warmup."""

    kind: Literal["constant_with_warmup"]


class Linear(Section):
    """Lowers the learning rate along a straight line to the last step."""

    kind: Literal["linear"]
    floor: Share
    """Learning rate at the last step, as a share of train.learning_rate."""


class Cosine(Section):
    """Lowers the learning rate along half a cosine to the last step."""

    kind: Literal["cosine"]
    floor: Share
    """Learning rate at the last step, as a share of train.learning_rate."""


class CosineWithRestarts(Section):
    """Repeats half a cosine: the learning rate returns to its peak after each cycle."""

    kind: Literal["cosine_with_restarts"]
    cycles: Positive
    """Number of cycles, all of the same length."""
    floor: Share
    """Learning rate at the end of a cycle, as a share of train.learning_rate."""


class Step(Section):
    """Multiplies the learning rate by a factor at regular intervals."""

    kind: Literal["step"]
    every_steps: Positive
    """Optimizer steps between two reductions."""
    factor: Fraction
    """Factor by which each reduction multiplies the learning rate."""
    floor: Share
    """Lowest learning rate, as a share of train.learning_rate."""


class Exponential(Section):
    """Multiplies the learning rate by a factor after each step."""

    kind: Literal["exponential"]
    factor: Fraction
    """Factor by which each optimizer step multiplies the learning rate."""
    floor: Share
    """Lowest learning rate, as a share of train.learning_rate."""


class InverseSquareRoot(Section):
    """Lowers the learning rate as the inverse square root of the steps after the warmup."""

    kind: Literal["inverse_sqrt"]
    timescale: Positive | None
    """Timescale of the decay, in optimizer steps; null: the number of warmup steps. Without a warmup, null means
    10,000. The learning rate is its peak times `1 / √(1 + steps / timescale)`, where `steps` counts from the end of the
    warmup."""


class WarmupStableDecay(Section):
    """Keeps the learning rate constant after the warmup, then lowers it at the end."""

    kind: Literal["warmup_stable_decay"]
    decay: Literal["linear", "cosine", "1-sqrt"]
    """Curve of the decay."""
    decay_share: Share
    """Length of the decay, as a share of all optimizer steps."""
    floor: Share
    """Learning rate at the last step, as a share of train.learning_rate."""


class Plateau(Section):
    """Lowers the learning rate when the validation loss stops falling."""

    kind: Literal["plateau"]
    factor: Fraction
    """Factor by which each reduction multiplies the learning rate."""
    patience: Count
    """Number of consecutive evaluations without improvement that are tolerated. The next one lowers the learning rate."""
    threshold: Annotated[float, Field(ge=0)]
    """Decrease of validation loss (nats per token) that an improvement must exceed."""
    floor: Share
    """Lowest learning rate, as a share of train.learning_rate."""


Schedule = Annotated[
    Constant
    | ConstantWithWarmup
    | Linear
    | Cosine
    | CosineWithRestarts
    | Step
    | Exponential
    | InverseSquareRoot
    | WarmupStableDecay
    | Plateau,
    Field(discriminator="kind"),
]


class EarlyStopping(Section):
    """Which model is better, and when to stop training."""

    metric: Literal["validation_loss", "f1", "exact_match", "rougeL"]
    """Metric for early stopping and train.keep_best. All except `validation_loss` score greedily decoded answers to
    validation questions, and need `tokenize.loss=completion`."""
    rows: Positive
    """Number of validation rows to answer at each evaluation, starting with the first."""
    max_new_tokens: Positive
    """Maximum length of these answers, in tokens."""
    patience: Positive | None
    """Stop after this many consecutive evaluations without improvement; null: never."""
    threshold: Annotated[float, Field(ge=0)]
    """Change of the metric that an improvement must exceed, in the metric's unit. `validation_loss` is in nats per
    token; the other metrics are numbers from 0 to 1."""


class ComputeSection(Section):
    """The keys of every compute option."""

    device: Literal["auto", "cpu", "cuda"]
    """Device to train and generate on; auto: CUDA if available, else the CPU."""
    threads: Positive | None
    """CPU threads of each process; null: OMP_NUM_THREADS, else one per core. Another
    number of threads rounds sums differently, so weights and losses differ in their last digits. With a number, runs on
    machines of the same kind are equal, however many cores they have."""


class Local(ComputeSection):
    """Trains in one process."""

    kind: Literal["local"]

    @property
    def world_size(self) -> int:
        return 1


class Distributed(ComputeSection):
    """The keys of DDP and FSDP: several processes train one model, with the Trainer and Accelerate.

    Each process has its share of the rows. The last batches of an epoch are filled up with its first rows, so that every
    process has the same number of batches.
    """

    processes: Positive
    """Processes on each machine; with CUDA, one per GPU."""
    nodes: Positive
    """Number of machines. On each of them, torchrun's environment variables PET_NODE_RANK, PET_MASTER_ADDR and
    PET_MASTER_PORT give its rank and the address of the first machine."""

    @property
    def world_size(self) -> int:
        return self.processes * self.nodes


class Ddp(Distributed):
    """Trains in several processes, each with the whole model; gradients are averaged.

    `train.batch_size` is per process: an optimizer step takes
    `batch_size × gradient_accumulation × processes × nodes` rows.
    """

    kind: Literal["ddp"]


class Fsdp(Distributed):
    """Shards weights, gradients and optimizer state over the processes (FSDP2). For models that are too large for one
    GPU; CUDA only. The model is saved unsharded, as with one process. Logits are computed for every token, not only for
    labeled ones, which takes more memory than with the other options. `train.batch_size` is per process."""

    kind: Literal["fsdp"]
    reshard_after_forward: bool
    """Free a layer's gathered weights between its forward and backward passes. true (ZeRO-3): they are gathered again for
    the backward pass; false (ZeRO-2): they are kept, which takes more memory and less communication."""


Compute = Annotated[Local | Ddp | Fsdp, Field(discriminator="kind")]
