"""The gates that stop the run: `tokenize.gates.max_X` limits the share of the audit's finding X."""

import math
from typing import Any, NamedTuple

from pipeline.config.params import Gates
from pipeline.errors import DataError

# finding → (unit, problem, remedy), the parts of its error message
MESSAGES = {
    "unlabelled": ("rows", "have no labeled tokens, so the model learns nothing from them", "Leave them out"),
    "unended": (
        "rows",
        "have an answer whose end is not learned, so they teach the model not to stop: it is truncated, or the chat template "
        "leaves out the token that ends a turn",
        "Raise tokenize.max_length, leave out the rows with the longest answers (clean.answer.max_tokens), correct the template",
    ),
    "wrong_start": (
        "rows",
        "do not begin with exactly one beginning token",
        "Have the chat template write the tokenizer's beginning token once, at the start: {{ bos_token }}",
    ),
    "prompt_mismatch": (
        "rows",
        "do not begin with the prompt that a served model gets: the chat template renders a turn otherwise than it asks for one",
        "Set the template's variables so that both agree, such as "
        "+format.template.chat_template_kwargs.enable_thinking=true, or correct the template",
    ),
    "truncated": (
        "rows",
        "are longer than tokenize.max_length and were truncated",
        "Raise it, leave out the longest rows",
    ),
    "answer_tokens_lost": (
        "answer tokens",
        "were truncated from rows that are longer than tokenize.max_length",
        "Raise it, leave out the rows with the longest answers (clean.answer.max_tokens)",
    ),
    "duplicates": (
        "rows",
        "have the same token ids as an earlier row of their own split or the training set",
        "Leave them out",
    ),
    "prefix_mismatch": (
        "rows checked",
        "have a prompt whose tokens change when the answer is appended",
        "Have the template end the prompt, or begin the completion, with a line break",
    ),
    "unknown": (
        "answer tokens",
        "are unknown text to the model's tokenizer: the model cannot read it, and learns to answer with the unknown token",
        "Use a model whose tokenizer knows this text, leave out the rows, use another format/template if the text is its own",
    ),
    "padding": (
        "token positions in batches",
        "are padding",
        "Set train.group_by_length=true or train.packing=true, lower train.batch_size",
    ),
}


class Finding(NamedTuple):
    """How many of `total` rows, tokens or token positions have a problem."""

    matches: int
    total: int
    first_id: Any = None  # the id of the first row with the problem; None if there is none or no single row has it
    example: str = ""  # from the text of that row

    @property
    def share(self) -> float:
        return self.matches / self.total if self.total else 0.0

    def updated(self, matches: int, total: int, first_id: Any = None, example: str = "") -> "Finding":
        """The finding with the counts of further rows added."""
        first = (first_id, example) if self.first_id is None else (self.first_id, self.example)
        return Finding(self.matches + matches, self.total + total, *first)


def require_gates(findings: dict[str, dict[str, Finding]], gates: Gates) -> None:
    """Raise DataError that lists every gate that is exceeded. findings: split → X → what the audit counted."""
    errors = []
    for key, limit in gates:
        name = key.removeprefix("max_")
        by_split = {split: found[name] for split, found in findings.items() if name in found}
        over = {split: finding for split, finding in by_split.items() if limit is not None and finding.share > limit}
        if over:
            sufficient = math.ceil(1000 * max(finding.share for finding in over.values())) / 1000
            unit, problem, remedy = MESSAGES[name]
            counts = " and ".join(_describe(split, unit, finding) for split, finding in over.items())
            errors.append(
                f"tokenize.gates.{key}: {counts} {problem}; the limit is {limit:.2%}. {remedy}, "
                f"or allow it: tokenize.gates.{key}={sufficient:g}"
            )
    if errors:
        raise DataError("\n".join(["these rows are not fit for training:", *(f"  {error}" for error in errors)]))


def _describe(split: str, unit: str, finding: Finding) -> str:
    first_id = "" if finding.first_id is None else f", the first has id {finding.first_id}"
    example = f", in {finding.example!r}" if finding.example else ""
    return f"{finding.matches:,} of {finding.total:,} {unit} of {split} ({finding.share:.2%}{first_id}{example})"
