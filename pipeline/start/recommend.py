"""Settings that suit a model, its machine and the rows: plain tables with their sources, and the reason for each value."""

import math
from typing import NamedTuple

from pipeline.errors import DataError
from pipeline.start.lengths import BYTES_PER_TOKEN, Lengths
from pipeline.start.machine import Machine
from pipeline.start.memory import Fit, fit_training, gigabytes
from pipeline.start.model_facts import ModelFacts

Value = str | int | float


class Setting(NamedTuple):
    key: str  # as in params.yaml; train/method is a group
    value: Value
    why: str


class Advice(NamedTuple):
    settings: list[Setting]
    warnings: list[str]  # what the user should know before a run


class Rate(NamedTuple):
    max_parameters: float
    full: float
    lora: float
    source: str


# Peak learning rates for steps of about 16 rows. A recipe's rate for larger steps is scaled by the square root of the ratio
# (Malladi et al. 2022, arXiv:2205.10287): SmolLM2's 1e-3 for 128 rows a step is 3.5e-4 for 16.
# - SmolLM2-135M and 360M: 1e-3 for 128 rows; SmolLM2-1.7B: 3e-4 for 128 rows
#   (github.com/huggingface/alignment-handbook, recipes/smollm2/sft)
# - Alpaca 7B: 2e-5 for 128 rows (github.com/tatsu-lab/stanford_alpaca); Tulu 3 8B: 5e-6, 70B: 2e-6, for 128 rows (Lambert et
#   al. 2024, arXiv:2411.15124); TRL's default: 2e-5 (huggingface.co/docs/trl, SFTConfig)
# - LoRA: about 10 times the rate of full fine-tuning (Schulman et al. 2025, thinkingmachines.ai/blog/lora); Qwen2.5-0.5B:
#   2e-3 for 16 rows (github.com/pytorch/torchtune, recipes/configs/qwen2_5); 7B and 13B: 2e-4, 33B and 65B: 1e-4, for 16 rows
#   (Dettmers et al. 2023, arXiv:2305.14314)
# - below 50M: measured with models/nano
RATES = (
    Rate(5e7, full=1e-3, lora=4e-3, source="measured with models/nano"),
    Rate(1e9, full=3e-4, lora=1e-3, source="SmolLM2-360M"),
    Rate(3e9, full=1e-4, lora=3e-4, source="SmolLM2-1.7B"),
    Rate(2e10, full=1e-5, lora=2e-4, source="Alpaca 7B and QLoRA"),
    Rate(math.inf, full=4e-6, lora=1e-4, source="Tulu 3 70B and QLoRA 65B"),
)
MIDDLE = RATES[1]  # where the size is not known yet
SMALL_MODEL = 5e7  # parameters

# (rows up to this number, epochs, source). keep_best keeps the weights of the epoch with the lowest validation loss.
EPOCHS = (
    (500, 15, "LIMA's for 1,000 rows (arXiv:2305.11206)"),
    (2_000, 10, "between LIMA's 15 for 1,000 rows and Alpaca's 3 for 52,000"),
    (10_000, 5, "between LIMA's 15 for 1,000 rows and Alpaca's 3 for 52,000"),
    (60_000, 3, "Alpaca's for 52,000 rows"),
    (math.inf, 2, "SmolLM2's and Tulu 3's for a million rows (arXiv:2411.15124)"),
)
SMALL_MODEL_EPOCHS = 2  # times as many for a small model, which learns less from a row; measured with models/nano

# (rows up to this number, rows per step): 16 as in QLoRA and torchtune's recipes; fewer where an epoch would have too few steps.
STEP_ROWS = ((60, 4), (400, 8), (math.inf, 16))

MIN_ROWS = 3
MIN_TEST_ROWS, MAX_TEST_ROWS = 30, 2000
DEFAULT_TEST, MAX_TEST = 0.15, 0.3
DEFAULT_VALIDATION, MIN_VALIDATION_ROWS, MAX_VALIDATION_ROWS = 0.1, 10, 1000
MAX_ANSWER = 512  # tokens that an answer may have by default; longer ones take long to generate
CPU_FLOPS_PER_CORE = 6e10  # measured with models/nano in float32


def recommend(facts: ModelFacts, machine: Machine, lengths: Lengths, rows: int | None, has_own_test: bool) -> Advice:
    """The settings for a model on a machine and for rows of these lengths. rows: None: more than were read.

    Raises DataError if there are too few rows for three splits.
    """
    if rows is not None and rows < MIN_ROWS:
        raise DataError(
            f"{rows} usable row{'s' if rows != 1 else ''}; expected at least {MIN_ROWS}: training, validation and test need "
            "one each"
        )
    known_rows = rows if rows is not None else math.inf
    step_rows = next(size for limit, size in STEP_ROWS if known_rows <= limit)
    candidates = max_lengths(facts, lengths)
    fits = [fit_training(facts, machine, length, step_rows) for length in candidates]
    chosen = next((index for index, fit in enumerate(fits) if not fit.warnings), 0)
    max_length, fit = candidates[chosen], fits[chosen]
    length_settings, warnings = _length_settings(facts, lengths, max_length)
    if facts.parameters is None:
        warnings.append(
            f"the size of {facts.name} is unknown before fetch, for example because the Hub cannot be reached, so these are "
            "middle values. Run this command again after fetch"
        )
    settings = [
        *_model_settings(facts, machine, fit, step_rows),
        *_duration_settings(facts, known_rows),
        *length_settings,
        *([] if has_own_test else _split_settings(rows)),
    ]
    return Advice(settings, [*fit.warnings, *warnings, *_time_warnings(facts, machine, lengths, rows, settings)])


def _model_settings(facts: ModelFacts, machine: Machine, fit: Fit, step_rows: int) -> list[Setting]:
    size = f"{facts.parameters:,} parameters" if facts.parameters else "a model of unknown size"
    rate = (
        next(rate for rate in RATES if (facts.parameters or 0) <= rate.max_parameters) if facts.parameters else MIDDLE
    )
    learning_rate = rate.full if fit.method == "full" else rate.lora
    accumulation = max(1, step_rows // fit.batch_size)
    return [
        Setting("train/method", fit.method, f"{size}: {fit.why}"),
        Setting("train.learning_rate", learning_rate, f"for {fit.method} fine-tuning of {size} ({rate.source})"),
        Setting("train.precision", "bf16" if fit.bf16 else "fp32", fit.why_precision),
        Setting("train.batch_size", fit.batch_size, fit.why_batch),
        Setting("train.gradient_accumulation", accumulation, f"steps of {fit.batch_size * accumulation} rows"),
        Setting("train.gradient_checkpointing", fit.checkpointing, fit.why_checkpointing),
        Setting("evaluate.precision", *_evaluation_precision(facts, machine)),
    ]


def _evaluation_precision(facts: ModelFacts, machine: Machine) -> tuple[str, str]:
    if machine.is_gpu and machine.bf16 and (facts.parameters or 0) > 1e9:
        return "bf16", "halves the time; only fp32 makes the answers independent of the batch"
    return "fp32", "the answers do not depend on the batch"


def _duration_settings(facts: ModelFacts, rows: float) -> list[Setting]:
    epochs, source = next((epochs, source) for limit, epochs, source in EPOCHS if rows <= limit)
    count = f"{rows:,.0f} rows" if math.isfinite(rows) else "many rows"
    why = f"{count}: {source}"
    if facts.parameters and facts.parameters <= SMALL_MODEL:
        epochs, why = epochs * SMALL_MODEL_EPOCHS, f"{why}, times {SMALL_MODEL_EPOCHS} for a model this small"
    return [
        Setting("train.epochs", epochs, f"{why}; the best epoch is kept"),
        Setting("train.warmup_share", 0.1, "a tenth of the steps, however many there are (SmolLM2)"),
        Setting("train.logging_steps", 10 if rows >= 400 else 5, "often enough for a curve"),
    ]


def max_lengths(facts: ModelFacts, lengths: Lengths) -> list[int]:
    """The lengths to consider, best first: that of the longest row, then those of most rows; none beyond the positions."""
    rows = [lengths.longest_row, *(lengths.quantile(share) for share in (0.99, 0.95, 0.9))]
    rounded = [math.ceil(row / 64) * 64 for row in rows]
    return sorted({min(length, facts.positions or length) for length in rounded}, reverse=True)


def _length_settings(facts: ModelFacts, lengths: Lengths, max_length: int) -> tuple[list[Setting], list[str]]:
    """(the settings of lengths, warnings about rows that do not fit)."""
    guess = f", estimated at {BYTES_PER_TOKEN} bytes per token" if lengths.is_estimate else ""
    why = f"the longest row has {lengths.longest_row:,} tokens{guess}"
    too_long, unended, total = lengths.too_long(max_length), lengths.unended(max_length), len(lengths.prompts)
    if not too_long:
        return [Setting("tokenize.max_length", max_length, why), _answer_setting(facts, lengths)], []
    limit = "the model's positions" if max_length == facts.positions else "as much as fits into memory"
    lost = "the oldest turns are left out" if lengths.chat else "the start of their prompt is cut off"
    warning = (
        f"{too_long:,} of {total:,} rows are longer than {max_length:,} tokens ({limit}): {lost}, and {unended:,} also lose "
        "the end of their answer"
    )
    settings = [Setting("tokenize.max_length", max_length, f"{limit}; {why}")]
    if unended:
        share = min(1.0, math.ceil(200 * unended / total) / 100)  # the splits differ, so twice the share
        settings.append(Setting("tokenize.gates.max_unended", share, f"{unended:,} of {total:,} answers are cut off"))
        warning += f". To drop such rows instead, set answer.max_tokens to {max_length // 2} in conf/clean/default.yaml"
    return [*settings, _answer_setting(facts, lengths)], [warning]


def _answer_setting(facts: ModelFacts, lengths: Lengths) -> Setting:
    tokens = math.ceil(lengths.longest_answer / 16) * 16
    why = f"the longest answer has {lengths.longest_answer:,} tokens"
    if tokens > MAX_ANSWER:
        tokens = max(MAX_ANSWER, math.ceil(lengths.answer_quantile(0.9) / 16) * 16)
        why += f"; 90% have at most {lengths.answer_quantile(0.9):,}"
    if facts.positions and tokens > facts.positions // 2:
        tokens = facts.positions // 2
        why += "; the prompt needs half of the positions"
    return Setting("evaluate.max_new_tokens", tokens, why)


def _split_settings(rows: int | None) -> list[Setting]:
    """The shares of held-out rows: enough to tell with few rows, and not more than a run can answer with many."""
    if rows is None:
        return []
    test = _share(DEFAULT_TEST, rows, MIN_TEST_ROWS, MAX_TEST_ROWS, MAX_TEST)
    validation = _share(DEFAULT_VALIDATION, rows, MIN_VALIDATION_ROWS, MAX_VALIDATION_ROWS, DEFAULT_VALIDATION * 2)
    held_out = max(1, round(rows * test))
    power = (
        "too few to tell small changes from chance"
        if held_out < 100
        else "enough to tell changes from chance, and few enough to answer in each run"
    )
    return [
        Setting("format.test_fraction", test, f"about {held_out:,} test rows: {power}"),
        Setting(
            "format.validation_fraction",
            validation,
            f"about {max(1, round(rows * validation)):,} rows, to keep the best epoch",
        ),
    ]


def _share(default: float, rows: int, least: int, most: int, largest: float) -> float:
    if rows * default < least:
        return min(largest, math.ceil(20 * least / rows) / 20)
    return default if rows * default <= most else float(f"{most / rows:.2g}")


def _time_warnings(
    facts: ModelFacts, machine: Machine, lengths: Lengths, rows: int | None, settings: list[Setting]
) -> list[str]:
    """A warning if training would take hours on this CPU: 6 operations a parameter and token (Kaplan 2020, arXiv:2001.08361)."""
    if machine.is_gpu or not facts.parameters or not rows:
        return []
    epochs = next(float(setting.value) for setting in settings if setting.key == "train.epochs")
    tokens = lengths.tokens_per_record * rows * epochs
    hours = 6 * facts.parameters * tokens / (CPU_FLOPS_PER_CORE * machine.cores) / 3600
    if hours < 2:
        return []
    return [
        f"training will take roughly {hours:,.0f} hours on this CPU. A GPU, a smaller model (--model), fewer epochs "
        "(train.epochs) or fewer rows (data.limit) take less"
    ]


def describe_memory(facts: ModelFacts, machine: Machine) -> str:
    size = f"{facts.parameters:,} parameters" if facts.parameters else "size known after fetch"
    positions = f", {facts.positions:,} positions" if facts.positions else ""
    return f"Model: {facts.name} ({size}{positions}); machine: {machine.name}, {gigabytes(machine.free_bytes)} free"
