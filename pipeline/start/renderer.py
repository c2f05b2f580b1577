"""What renders the rows, decided as format decides it, for a model that need not be fetched yet."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.chat.model_template import read_model_templates
from pipeline.chat.row_format import PLAIN_TEXT, ChatFormat, TextFormat
from pipeline.config.params import Format
from pipeline.config.templates import ChatTemplateOption
from pipeline.format.chat_notes import ADVICE
from pipeline.format.chat_notes import NEEDS_CHAT_TEMPLATE as CANNOT_BE_EXPRESSED
from pipeline.format.chat_rows import CHAT_REASONS
from pipeline.format.rendering import choose_row_format
from pipeline.records.tasks import Task
from pipeline.start.lengths import Lengths
from pipeline.start.model_facts import ModelFacts

NEEDS_CHAT_TEMPLATE = "needs_chat_template"  # the reason of rows that only a chat template can render


class Renderer(NamedTuple):
    row_format: TextFormat | ChatFormat
    description: str
    advice: str = ""  # for rows that only a chat template can render


class Rendered(NamedTuple):
    """A row as the model sees it. Of a chat, the completion is the last learned turn."""

    id: int
    prompt: str
    completion: str
    earlier_turns: int = 0  # turns of the assistant in the prompt that are learned, too


class RenderedRows(NamedTuple):
    rows: list[Rendered]  # one a record
    lengths: Lengths
    refused: Counter[str]  # reason → rows that the template cannot express
    chat: dict[str, Any] | None = None  # counts, as in format's metrics


def choose_renderer(options: Format, task: Task, has_context: bool, facts: ModelFacts) -> Renderer:
    """What renders the rows. has_context: whether rows of prompt and completion have a system prompt, history or tools.

    Raises ConfigError or DataError if the chat template that is to render them is missing or unusable.
    """
    template = options.template
    if facts.folder is not None:
        row_format = choose_row_format(options, task, has_context, facts.folder)
    elif isinstance(template, ChatTemplateOption) and (template.path is not None or facts.may_have_chat_template):
        return Renderer(PLAIN_TEXT, "rendered by a chat template, which is known after fetch; shown as they are")
    else:
        with tempfile.TemporaryDirectory() as empty:  # a model without a chat template
            row_format = choose_row_format(options, task, has_context, Path(empty))
    return Renderer(row_format, _describe(row_format, options, facts), _advice(options, facts))


def _describe(row_format: TextFormat | ChatFormat, options: Format, facts: ModelFacts) -> str:
    if isinstance(row_format, ChatFormat):
        path = options.template.path if isinstance(options.template, ChatTemplateOption) else None
        given = ", ".join(f"{name}={value!r}" for name, value in row_format.chat_template_kwargs.items())
        name = "the model's chat template" if path is None else f"the chat template {path}"
        return f"rendered by {name}{f' with {given}' if given else ''}"
    if row_format.prompt is None:
        return "learned as they are"
    unless = ", unless the model has a chat template, which is known after fetch"
    is_open = options.template.kind == "auto" and facts.may_have_chat_template
    return "rendered by the prompt template" + (unless if is_open else "")


def _advice(options: Format, facts: ModelFacts) -> str:
    keys = [] if options.template.kind == "auto" else ["format/template=auto"]
    if facts.folder is None or read_model_templates(facts.folder) is None:
        keys.append("model.chat_template=chatml")
    return f"A chat template can: {' with '.join(keys)}"


def describe_refused(rendered: RenderedRows, renderer: Renderer) -> list[str]:
    """A line for each reason why the template cannot express rows: what they are, and what can be done."""
    lines, total = [], len(rendered.rows) + rendered.refused.total()
    examples = rendered.chat["examples"] if rendered.chat else {}
    for reason, count in rendered.refused.most_common():
        if reason == NEEDS_CHAT_TEMPLATE:
            lines.append(f"{count:,} of {total:,} rows {CANNOT_BE_EXPRESSED}. {renderer.advice}")
            continue
        advice = f". {ADVICE[reason]}" if reason in ADVICE else ""
        lines.append(
            f"{count:,} of {total:,} rows are dialogues {CHAT_REASONS[reason]} (the first is {examples[reason]}){advice}"
        )
    return lines
