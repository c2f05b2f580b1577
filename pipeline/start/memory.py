"""Whether a training fits into memory: weights, gradients, optimizer state and activations against what is free.

Weights stay in float32 under every method but QLoRA, because bf16 is autocast; held-out losses are measured in float32. So
evaluation needs 4 bytes a parameter, whatever the method.
"""

from typing import NamedTuple

from pipeline.start.machine import Machine
from pipeline.start.model_facts import ModelFacts

USABLE_SHARE = 0.8  # of the free memory: the rest is for logits, copies and fragmentation
# Bytes a parameter: weights 4; full fine-tuning adds gradients 4 and AdamW's two moments 8 (Rajbhandari et al. 2020,
# arXiv:1910.02054, section 3). Adapters of rank 8 have about 1% of the parameters, with 12 bytes each. NF4 with double
# quantization takes about 0.52 (Dettmers et al. 2023, arXiv:2305.14314).
STATIC_BYTES = {"full": 16.0, "lora": 4.2, "qlora": 0.7}
EVALUATION_BYTES = 4.0
# Activations a token and layer, in units of the hidden size: 34 bytes in 16 bits without the attention scores, which fused
# attention does not keep; with checkpointing, 2 (Korthikanti et al. 2022, arXiv:2205.05198, sections 4.1 and 5).
ACTIVATION_BYTES, CHECKPOINTED_BYTES = 34, 2
SMALL_MODEL = 5e7
BATCH_SIZES = (16, 8, 4, 2, 1)


class Fit(NamedTuple):
    """A method and batch that fit, each with its reason; the least demanding one, and a warning, if none does."""

    method: str
    batch_size: int
    checkpointing: bool
    bf16: bool
    why: str
    why_batch: str
    why_checkpointing: str
    why_precision: str
    warnings: list[str]


def gigabytes(size: float) -> str:
    """
    >>> gigabytes(23_400_000_000), gigabytes(90_000_000)
    ('23 GB', '0.09 GB')
    """
    return f"{size / 1e9:.2g} GB" if size < 1e11 else f"{size / 1e9:,.0f} GB"


def fit_training(facts: ModelFacts, machine: Machine, max_length: int, step_rows: int) -> Fit:
    """The method, batch size and checkpointing for rows of up to max_length tokens, in steps of `step_rows` rows."""
    bf16, why_precision = _precision(facts, machine)
    sizes = [size for size in BATCH_SIZES if size <= step_rows]
    if facts.parameters is None:
        why = "full fine-tuning is assumed until its size is known"
        return Fit("full", min(4, step_rows), False, bf16, why, "a middle value", "not assumed", why_precision, [])
    usable = USABLE_SHARE * machine.free_bytes
    for method in ("full", "lora", "qlora") if machine.can_quantize else ("full", "lora"):
        static = static_bytes(facts, method)
        for checkpointing in (False, True):
            row = row_bytes(facts, max_length, bf16, checkpointing)
            enough = 4 if not checkpointing else 1  # fewer rows at a time are slower than computing activations again
            fitting = [size for size in sizes if static + size * row <= usable and size >= min(enough, step_rows)]
            if fitting:
                return _fit(facts, machine, method, fitting[0], checkpointing, max_length, bf16, why_precision)
    method = "qlora" if machine.can_quantize else "lora"
    return _fit(facts, machine, method, 1, True, max_length, bf16, why_precision)


def _fit(
    facts: ModelFacts,
    machine: Machine,
    method: str,
    batch_size: int,
    checkpointing: bool,
    max_length: int,
    bf16: bool,
    why_precision: str,
) -> Fit:
    row, static = row_bytes(facts, max_length, bf16, checkpointing), static_bytes(facts, method)
    needed, free = static + batch_size * row, gigabytes(machine.free_bytes)
    full = static_bytes(facts, "full")
    why = f"weights, gradients and optimizer need {gigabytes(static)} of {free}"
    if method != "full":
        why = f"full fine-tuning would need {gigabytes(full)} of {free}; {method} needs {gigabytes(static)}"
    return Fit(
        method,
        batch_size,
        checkpointing,
        bf16,
        why,
        why_batch=f"up to {gigabytes(batch_size * row)} of activations for rows of {max_length:,} tokens",
        why_checkpointing="activations would not fit otherwise" if checkpointing else "activations fit",
        why_precision=why_precision,
        warnings=_memory_warnings(facts, machine, method, needed),
    )


def static_bytes(facts: ModelFacts, method: str) -> float:
    """Weights, gradients and optimizer state. QLoRA keeps the embeddings and the output head in float32."""
    parameters = facts.parameters or 0
    embeddings = 8 * (facts.vocabulary or 0) * (facts.hidden_size or 0) if method == "qlora" else 0
    return STATIC_BYTES[method] * parameters + embeddings


def row_bytes(facts: ModelFacts, length: int, bf16: bool, checkpointing: bool) -> float:
    """The activations of one row."""
    layers, hidden = facts.layers or 32, facts.hidden_size or 4096
    kept = CHECKPOINTED_BYTES * layers + ACTIVATION_BYTES if checkpointing else ACTIVATION_BYTES * layers
    return length * hidden * kept * (1 if bf16 else 2)


def _precision(facts: ModelFacts, machine: Machine) -> tuple[bool, str]:
    if not machine.bf16:
        return False, "this machine does not compute in bf16"
    if not machine.is_gpu and (facts.parameters or 0) <= SMALL_MODEL:
        return False, "bf16 saves nothing for a model this small on a CPU"
    return True, "this machine computes in bf16; the weights stay in float32"


def _memory_warnings(facts: ModelFacts, machine: Machine, method: str, needed: float) -> list[str]:
    usable, evaluation = USABLE_SHARE * machine.free_bytes, EVALUATION_BYTES * (facts.parameters or 0)
    warnings = []
    if max(needed, evaluation) > usable:
        part = "training with " + method if needed > evaluation else "evaluation in float32"
        warnings.append(
            f"{facts.name} is too large for this machine: {part} needs about {gigabytes(max(needed, evaluation))}, and "
            f"{gigabytes(machine.free_bytes)} are free. Choose a smaller model (--model), free memory, or run it on a machine "
            "with more; several GPUs can share a model with compute=fsdp"
        )
    return warnings
