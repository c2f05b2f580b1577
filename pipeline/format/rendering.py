"""Decides how the rows are rendered: by the model's chat template, one of the user's own, a prompt template, or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.chat.model_template import (
    ModelTemplates,
    chat_template_of,
    control_tokens_of,
    read_model_templates,
    read_stop_tokens,
)
from pipeline.chat.row_format import PLAIN_TEXT, ChatFormat, TextFormat
from pipeline.chat.template import read_template_file, require_compilable
from pipeline.chat.traits import find_traits
from pipeline.config.params import Format
from pipeline.config.templates import AutoTemplate, ChatTemplateOption
from pipeline.core.paths import BASE
from pipeline.errors import ConfigError
from pipeline.format.chat_rows import ChatReader
from pipeline.format.conversations import Conversation
from pipeline.format.prompt import render_prompt
from pipeline.format.template_checks import require_usable_template
from pipeline.modeling.encoding import load_encoder
from pipeline.records.json_cells import parse_json
from pipeline.records.tasks import Task


def choose_row_format(options: Format, task: Task, has_context: bool, folder: Path = BASE) -> TextFormat | ChatFormat:
    """The format of the rows for the model in `folder`.

    has_context: whether rows of prompt and completion have a system prompt, history or tools.

    Raises ConfigError if a chat template is demanded and the model has none.
    """
    template = options.template
    if task.name == "text":
        return PLAIN_TEXT
    if isinstance(template, AutoTemplate):
        if task.name == "prompt/completion" and not has_context:
            return PLAIN_TEXT
        if (found := read_model_templates(folder)) is not None:
            return _chat_format(found, template.chat_template_kwargs, "the model's chat template", folder)
    if isinstance(template, ChatTemplateOption):
        return _demanded_chat_format(template, folder)
    return TextFormat(prompt=template.prompt, completion=template.completion)


def _demanded_chat_format(template: ChatTemplateOption, folder: Path) -> ChatFormat:
    if template.path is not None:
        source = read_template_file(template.path)
        return _chat_format(ModelTemplates(source), template.chat_template_kwargs, template.path, folder)
    if (found := read_model_templates(folder)) is None:
        raise ConfigError(
            "format.template: the base model has no chat template. Give it one: model.chat_template=chatml, or the path of a "
            "Jinja file; or render by a prompt template: format/template=tutorial"
        )
    return _chat_format(found, template.chat_template_kwargs, "the model's chat template", folder)


def _chat_format(found: ModelTemplates, kwargs: dict[str, Any], name: str, folder: Path) -> ChatFormat:
    for source in filter(None, found):
        require_compilable(source, name)
    tokenizer = load_encoder(folder).tokenizer
    row_format = ChatFormat(
        source=found.default,
        tool_source=found.tool_use,
        chat_template_kwargs=kwargs,
        stop_tokens=read_stop_tokens(folder, tokenizer),
    )
    template = chat_template_of(row_format, folder)
    require_usable_template(template, control_tokens_of(template, tokenizer), name)
    return row_format


def chat_reader_of(row_format: ChatFormat, system: str | None, folder: Path = BASE) -> ChatReader:
    """The reader of dialogues in this format."""
    template = chat_template_of(row_format, folder)
    tokens = control_tokens_of(template, load_encoder(folder).tokenizer)
    return ChatReader(template, tokens, find_traits(template), row_format, system)


def render_row(row: Conversation, row_format: TextFormat | ChatFormat) -> dict[str, Any]:
    """The row of data/formatted: id with prompt and completion, or with messages and, if it has any, tools."""
    if isinstance(row_format, ChatFormat):
        return {"id": row.id, **parse_json(row.chat or "{}"), **_template_kwargs(row_format)}
    if not row.turns:
        return {"id": row.id, "prompt": "", "completion": row.answer}
    if row_format.prompt is None or row_format.completion is None:
        return {"id": row.id, "prompt": row.turns[-1].content, "completion": row.answer}
    prompt = render_prompt(row.turns, row_format.prompt, row_format.completion)
    return {"id": row.id, "prompt": prompt, "completion": row_format.completion.format(answer=row.answer)}


def _template_kwargs(row_format: ChatFormat) -> dict[str, Any]:
    """The column by which other trainers pass variables to the template."""
    return {"chat_template_kwargs": row_format.chat_template_kwargs} if row_format.chat_template_kwargs else {}


def text_renderer(row_format: TextFormat | ChatFormat) -> Callable[[dict[str, Any]], str]:
    """The function that renders a row of data/formatted as one text."""
    if isinstance(row_format, TextFormat):
        return lambda row: str(row["prompt"] + row["completion"])
    template = chat_template_of(row_format, BASE)
    return lambda row: template.render(row["messages"], row.get("tools", []))
