"""What the stages did to the rows, in words, from their metrics: for the report and the last lines of the console.

Counts of zero are left out. A value that has no phrase here appears under its name in the metrics, so that nothing which a
stage counts goes unseen.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from pipeline.compare.report import format_number

Metrics = Mapping[str, Any]

DROPPED_BY_CLEAN = {
    "malformed": "with messages in no known format",
    "invalid_unicode": "with half a character (a lone surrogate)",
    "empty": "with an empty text",
    "no_answer": "in which no user gets an answer",
    "boilerplate": "whose answer is only boilerplate",
    "mostly_boilerplate": "whose answer is mostly boilerplate",
    "contacts": "with contact details",
    "mostly_nonletters": "mostly of characters that are not letters",
    "other_language": "in another language",
    "duplicate": "equal to an earlier row",
}
DROPPED_BY_FORMAT = {
    "near_held_out": "near to validation or test rows",
    "near_test": "near to rows of your test set",
    "group_in_test": "of groups that your test set has",
    "needs_chat_template": "with tool calls or tool results, which the prompt template cannot express",
}
TOKENIZED = {
    "rows_truncated": "truncated",
    "rows_unended": "with an answer whose end is not learned",
    "rows_wrong_start": "that do not begin with one beginning token",
    "rows_prompt_mismatch": "that do not begin with the prompt of a served model",
    "rows_unlabelled": "with nothing that counts toward the loss",
    "rows_duplicates": "equal to an earlier row",
}
# Described by their own functions below, shown elsewhere on the page, or of no use to a reader.
KNOWN = {
    "data": {"rows", "columns", "bytes", "source", "name", "revision", "sha256"},
    "model": {"source", "name", "revision", "architecture", "parameters"},
    "clean": {"rows_in", "rows_kept", "dropped", "changed", "descriptions", "test_rows"},
    "format": {
        "rows_in",
        "rows",
        "dropped",
        "rows_without_tools",
        "clusters",
        "leakage",
        "near_examples",
        "chat",
        "descriptions",
    },
}
NAMES = {"files_left": "files not used"}  # clearer than the names in the metrics
MAX_NAMES = 5  # of a list


class SummaryStep(NamedTuple):
    """What a stage did to the rows, and how many there are after it."""

    name: str
    rows: int
    facts: list[str]


class DataSummary(NamedTuple):
    steps: list[SummaryStep]
    model_facts: list[str]  # what fetch did to the base model
    warnings: list[str]
    near_examples: list[tuple[str, str]]  # pairs of near texts


def summarize_data(stages: Mapping[str, Metrics]) -> DataSummary:
    """The summary of the metrics of data and model (fetch), clean, format, tokenize and train, by these names."""
    data, clean, split, tokenize = (stages[name] for name in ("data", "clean", "format", "tokenize"))
    tokenized = {name: tokenize[name] for name in ("train", "validation") if name in tokenize}
    steps = [
        SummaryStep("fetched", data["rows"], _fetch_facts(data)),
        SummaryStep("cleaned", clean["rows_kept"], _clean_facts(clean)),
        SummaryStep("split", sum(split["rows"].values()), _split_facts(split)),
        SummaryStep("tokenized", sum(part["rows"] for part in tokenized.values()), _tokenize_facts(tokenized)),
    ]
    model_facts = _other_facts(stages["model"], KNOWN["model"])
    warnings = [warning for metrics in stages.values() for warning in metrics.get("warnings", ())]
    examples = [(one, other) for one, other in split.get("near_examples", ())]
    return DataSummary(steps, model_facts, list(dict.fromkeys(warnings)), examples)


def describe_counts(counts: Mapping[str, int], phrases: Mapping[str, str]) -> str:
    """Each count with its phrase, or with its name in words; empty if all are zero.

    >>> describe_counts({"empty": 1200, "too_long": 3, "duplicate": 0}, DROPPED_BY_CLEAN)
    '1,200 with an empty text, 3 too long'
    """
    return ", ".join(f"{count:,} {phrases.get(name, _in_words(name))}" for name, count in counts.items() if count)


def _fetch_facts(data: Metrics) -> list[str]:
    return [f"{data['columns']:,} column{'s' if data['columns'] != 1 else ''}", *_other_facts(data, KNOWN["data"])]


def _clean_facts(clean: Metrics) -> list[str]:
    dropped = describe_counts(clean["dropped"], DROPPED_BY_CLEAN)
    changed = describe_counts(clean["changed"], clean.get("descriptions", {}))
    facts = [f"dropped: {dropped or 'none'}", f"changed: {changed or 'none'}"]
    if test := clean.get("test_rows"):
        dropped = describe_counts(test["dropped"], DROPPED_BY_CLEAN)
        facts.append(
            f"your test set: {test['rows_kept']:,} of {test['rows_in']:,} rows kept, dropped: {dropped or 'none'}"
        )
    return [*facts, *_other_facts(clean, KNOWN["clean"])]


def _split_facts(split: Metrics) -> list[str]:
    clusters, without_tools = split.get("clusters", {}), split.get("rows_without_tools", 0)
    facts = [
        ", ".join(f"{name} {count:,}" for name, count in split["rows"].items()),
        f"dropped: {describe_counts(split['dropped'], DROPPED_BY_FORMAT | split.get('descriptions', {})) or 'none'}",
    ]
    if together := clusters.get("rows_with_others"):
        facts.append(
            f"{together:,} rows are in clusters of equal or near rows, of up to {clusters['largest']:,}, and each cluster is in "
            "one split"
        )
    if chat := split.get("chat"):
        facts += _chat_facts(chat)
    if without_tools:
        facts.append(f"{without_tools:,} rows list tools, which the prompt template leaves out")
    return [*facts, _describe_leakage(split["leakage"]), *_other_facts(split, KNOWN["format"])]


CHAT_FACTS = {
    "learned_turns": "turns of the assistant",
    "dialogues_expanded": "dialogues become one row a turn, because the template renders earlier turns otherwise",
    "rows_with_control_tokens": "rows have control tokens in their texts, which stay text",
    "rows_with_folded_system": "system prompts start the first user turn, because the template knows no system role",
    "thoughts_left_out": "rows have thoughts (reasoning_content) that the template leaves out",
    "tools_left_out": "rows list tools, which the template leaves out",
}


def _chat_facts(chat: Metrics) -> list[str]:
    ends = " or ".join(chat["end_tokens"]) or "no token"
    counts = [f"{chat[name]:,} {fact}" for name, fact in CHAT_FACTS.items() if chat.get(name)]
    return ["rendered by the chat template", *counts, f"each turn ends with {ends}"]


def _describe_leakage(leakage: Mapping[str, float]) -> str:
    """
    >>> _describe_leakage({"exact": 0.0, "near": 0.0, "answers_exact": 0.25, "answers_near": 0.5, "earlier_turns": 0.0})
    'test rows with a duplicate in the training set: 0% exact, 0% near; by the answer alone: 25% exact, 50% near'
    """
    shares = {name: f"{100 * share:.3g}%" for name, share in leakage.items()}
    text = f"test rows with a duplicate in the training set: {shares.pop('exact')} exact, {shares.pop('near')} near"
    if "answers_exact" in shares:
        text += f"; by the answer alone: {shares.pop('answers_exact')} exact, {shares.pop('answers_near')} near"
    return "; ".join([text, *(f"{_in_words(name)}: {share}" for name, share in shares.items() if leakage[name])])


def _tokenize_facts(tokenized: Mapping[str, Metrics]) -> list[str]:
    train = tokenized["train"]
    facts = [
        f"{train['tokens']:,} tokens to train on, of which {100 * train['supervised_share']:.1f}% count toward the loss"
    ]
    for name, part in tokenized.items():
        counts = {key: part[key] for key in TOKENIZED if key in part}
        unknown = {key: count for key, count in part.get("unknown", {}).items() if isinstance(count, int)}
        if text := describe_counts(counts, TOKENIZED):
            facts.append(f"{name} rows: {text}")
        if text := describe_counts(unknown, {}):
            facts.append(f"unknown to the tokenizer, of {name}: {text}")
    return facts


def _other_facts(metrics: Metrics, known: Collection[str]) -> list[str]:
    """The rest of the metrics, under their own names.

    >>> _other_facts({"rows": 9, "blank_lines": 1200, "bad": 0, "groups": {"count": 3}, "files_left": ["a.md"]}, ["rows"])
    ['blank lines: 1,200', 'groups: count 3', 'files not used: a.md']
    """
    facts = {name: _value_in_words(value) for name, value in metrics.items() if name not in {*known, "warnings"}}
    return [f"{_in_words(name)}: {text}" for name, text in facts.items() if text]


def _value_in_words(value: Any) -> str:
    """Empty for zero, false and null."""
    match value:
        case dict():
            parts = ((_in_words(name), _value_in_words(part)) for name, part in value.items())
            return ", ".join(f"{name} {text}" for name, text in parts if text)
        case list():
            more = f" and {len(value) - MAX_NAMES:,} more" if len(value) > MAX_NAMES else ""
            return ", ".join(map(_value_in_words, value[:MAX_NAMES])) + more
        case bool():
            return "yes" if value else ""
        case int():
            return f"{value:,}" if value else ""
        case float():
            return format_number(value) if value else ""
        case _:
            return str(value or "")


def _in_words(name: str) -> str:
    return NAMES.get(name, name.replace("_", " "))
