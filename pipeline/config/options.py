"""The choices within the sections `train` and `compute`: by which method, along which schedule, when it ends, and where.

One class an option of the groups train/method, train/schedule and compute, told apart by `kind`, so that a key of another
option is an unknown key. What the schedules compute is in pipeline/train/schedules.py, with their sources.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from pipeline.config.base import Count, Fraction, Positive, PositiveFloat, Section, Share

ALL_LINEAR = "all-linear"


class Full(Section):
    """Every weight is trained."""

    kind: Literal["full"]


class Adapter(Section):
    """What LoRA and QLoRA share: a product of two thin matrices is added to each chosen module; they alone are trained."""

    rank: Positive
    """inner size of the two matrices"""
    alpha: PositiveFloat
    """their product is scaled by alpha / rank"""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """share of the adapter's inputs that is set to 0 while training"""
    target_modules: Any
    """all-linear (every linear module but the output head), or a list of modules' names or their last parts, such as
    [query_key_value, dense]"""

    @field_validator("target_modules")
    @classmethod
    def _names(cls, value: Any) -> Any:
        named = isinstance(value, list) and value and all(isinstance(each, str) and each for each in value)
        if value != ALL_LINEAR and not named:
            raise ValueError(f"{value!r} is not right; expected {ALL_LINEAR}, or a list of modules' names")
        return value


class Lora(Adapter):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685)."""

    kind: Literal["lora"]


class Qlora(Adapter):
    """LoRA on a base in 4 bits, NF4 with double quantization (Dettmers et al. 2023, arXiv:2305.14314)."""

    kind: Literal["qlora"]


Method = Annotated[Full | Lora | Qlora, Field(discriminator="kind")]


class Constant(Section):
    """train.learning_rate from the first step to the last; no warmup."""

    kind: Literal["constant"]


class ConstantWithWarmup(Section):
    kind: Literal["constant_with_warmup"]


class Linear(Section):
    kind: Literal["linear"]
    floor: Share
    """share of train.learning_rate at the last step; in the other schedules too: below it, none goes"""


class Cosine(Section):
    kind: Literal["cosine"]
    floor: Share


class CosineWithRestarts(Section):
    kind: Literal["cosine_with_restarts"]
    cycles: Positive
    """half cosines of equal length, one after the other"""
    floor: Share


class Step(Section):
    kind: Literal["step"]
    every_steps: Positive
    """optimizer steps after which the rate is multiplied by `factor`, again and again"""
    factor: Fraction
    floor: Share


class Exponential(Section):
    kind: Literal["exponential"]
    factor: Fraction
    """the rate is multiplied by it after each optimizer step"""
    floor: Share


class InverseSquareRoot(Section):
    kind: Literal["inverse_sqrt"]
    timescale: Positive | None
    """steps after which the rate has fallen to 1/√2; null: the warmup's steps (10,000 without a warmup)"""


class WarmupStableDecay(Section):
    kind: Literal["warmup_stable_decay"]
    decay: Literal["linear", "cosine", "1-sqrt"]
    """the curve of the decay at the end"""
    decay_share: Share
    """of all steps"""
    floor: Share


class Plateau(Section):
    """The rate falls when the validation loss does not."""

    kind: Literal["plateau"]
    factor: Fraction
    """the rate is multiplied by it"""
    patience: Count
    """evaluations in a row without improvement that are borne; the next one lowers the rate"""
    threshold: Annotated[float, Field(ge=0)]
    """least fall of the validation loss that counts as improvement, in nats a token"""
    floor: Share


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
    metric: Literal["validation_loss", "f1", "exact_match", "rougeL"]
    """what tells a better model, for stopping and for train.keep_best; all but validation_loss are of greedy answers to
    validation questions, and need tokenize.loss=completion"""
    rows: Positive
    """validation rows to answer at each evaluation, from the first"""
    max_new_tokens: Positive
    """longest of these answers, in tokens"""
    patience: Positive | None
    """evaluations without improvement after which training stops; null: never"""
    threshold: Annotated[float, Field(ge=0)]
    """least improvement of the metric that counts: nats a token, or a fraction from 0 to 1"""


class Machine(Section):
    device: Literal["auto", "cpu", "cuda"]
    """auto: CUDA where there is a card, else the CPU"""


class Local(Machine):
    """One process trains."""

    kind: Literal["local"]

    @property
    def world_size(self) -> int:
        return 1


class Distributed(Machine):
    """Several processes train one model, which the Trainer and Accelerate bring together; each has its share of the rows.

    train.batch_size is a process's: an optimizer step takes batch_size × gradient_accumulation × processes × nodes rows.
    The last batches of an epoch are filled up with its first rows, so that all processes have as many.
    """

    processes: Positive
    """on each machine; on CUDA cards, one a card"""
    nodes: Positive
    """machines. Which of them this one is, and where the first can be reached, says the environment of each:
    PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT (torchrun's)"""

    @property
    def world_size(self) -> int:
        return self.processes * self.nodes


class Ddp(Distributed):
    """Each process has the whole model; gradients are averaged."""

    kind: Literal["ddp"]


class Fsdp(Distributed):
    """Each process has a part of weights, gradients and optimizer, layer by layer (FSDP2): for models too large for one card.

    What is saved is whole and plain, as from one process. The loss computes all logits, which takes more memory than in
    the other options. On CUDA cards alone.
    """

    kind: Literal["fsdp"]
    reshard_after_forward: bool
    """true: a layer's weights are gathered for its forward pass and once more for its backward pass (ZeRO-3); false: kept
    in between (ZeRO-2), which takes more memory and less traffic"""


Compute = Annotated[Local | Ddp | Fsdp, Field(discriminator="kind")]
