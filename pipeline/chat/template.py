"""Chat templates: Jinja text that renders messages, compiled and rendered by transformers in its sandbox."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from pipeline.core.files import local_path
from pipeline.errors import DataError
from pipeline.records.messages import Message

SHOWN = 200  # characters of a template's error in a message
UNRENDERED_KEYS = ("weight",)  # say what is learned, and are not for templates
# The date that a template is given when it asks for today's (`strftime_now`), so that rows are the same on every day. It is the
# one that Llama's template falls back on.
TEMPLATE_DATE = datetime(2024, 7, 26)


class RenderingError(ValueError):
    """A template cannot render these messages; the text is the template's own error."""


class Span(NamedTuple):
    """The characters from `start` to `end`, exclusive."""

    start: int
    end: int


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with what it is given beside the messages.

    kwargs: further variables, such as enable_thinking. special_tokens: bos_token, eos_token, … of the tokenizer.
    tool_source: the template for messages with tools, if the model has one of its own for them.
    """

    source: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    special_tokens: dict[str, str] = field(default_factory=dict)
    tool_source: str | None = None

    @property
    def has_generation_marks(self) -> bool:
        """Whether the template marks what the assistant generates, by {% generation %}."""
        return has_generation_marks(self.source) and (
            self.tool_source is None or has_generation_marks(self.tool_source)
        )

    def render(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = False
    ) -> str:
        """The text of the messages. Raises RenderingError."""
        return self._render(messages, tools, add_generation_prompt, marked=False)[0]

    def render_marked(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> tuple[str, list[Span]]:
        """The text of the messages, and what the template marks as generated, in order. Raises RenderingError."""
        return self._render(messages, tools, add_generation_prompt=False, marked=True)

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Any], add_generation_prompt: bool, marked: bool
    ) -> tuple[str, list[Span]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        given = [{key: value for key, value in m.items() if key not in UNRENDERED_KEYS} for m in messages]
        source = self.source if self.tool_source is None or not tools else self.tool_source
        try:
            _compile(source).globals["strftime_now"] = _strftime_template_date
            rendered: Any = render_jinja_template(
                [given],
                tools=list(tools) or None,
                chat_template=source,
                add_generation_prompt=add_generation_prompt,
                return_assistant_tokens_mask=marked,
                **{**self.special_tokens, **self.kwargs},
            )
        except Exception as error:  # a template can raise whatever Python can
            raise RenderingError(_describe(error)) from None
        texts, marks = rendered
        return texts[0], [Span(start, end) for start, end in marks[0]] if marked else []


def _strftime_template_date(format: str) -> str:
    return TEMPLATE_DATE.strftime(format)


def _describe(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


@lru_cache
def has_generation_marks(source: str) -> bool:
    return re.search(r"\{%[-+]?\s*generation\b", source) is not None


def require_compilable(source: str, name: str) -> None:
    """Raise DataError if the template does not compile. name: what the message calls it, such as its key or file."""
    import jinja2

    try:
        _compile(source)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(f"{name}, line {error.lineno}: the chat template does not compile: {error.message}") from None


def read_template_file(path: str) -> str:
    """The chat template in a file. Raises DataError if there is none, or it does not compile."""
    file = local_path(path)
    if not file.is_file():
        raise DataError(f"{path} {'is a folder' if file.is_dir() else 'does not exist'}; expected a Jinja file")
    try:
        source = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8 ({error}); save it as UTF-8") from None
    if not source.strip():
        raise DataError(f"{path} is empty; expected a chat template")
    require_compilable(source, path)
    return source


def _compile(source: str) -> Any:
    from transformers.utils import chat_template_utils

    return chat_template_utils._compile_jinja_template(source)


def required_variables(source: str) -> set[str]:
    """The variables that a template prints without a test whether they are given: without them, text is missing.

    >>> sorted(required_variables("{{ bos_token }}{{ company }}{% if tone is defined %}{{ tone }}{% endif %}"))
    ['bos_token', 'company']
    """
    from jinja2 import meta, nodes

    tree = _compile("").environment.parse(source)
    outputs = [part for output in tree.find_all(nodes.Output) for part in output.nodes]
    printed = {name.name for part in outputs for name in _printed_names(part)}
    conditions = [node.test for node in tree.find_all((nodes.If, nodes.CondExpr))]
    tested = [*conditions, *tree.find_all((nodes.Test, nodes.Filter))]
    known = {name.name for node in tested for name in _names(node)}
    known |= {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    return (printed & meta.find_undeclared_variables(tree)) - known


def _names(node: Any) -> list[Any]:
    from jinja2 import nodes

    return [node] if isinstance(node, nodes.Name) else list(node.find_all(nodes.Name))


def _printed_names(node: Any) -> list[Any]:
    """The variables whose text an output expression shows: `a` and `b` in {{ a + 'x' ~ b }}."""
    from jinja2 import nodes

    if isinstance(node, nodes.Add | nodes.Concat):
        return [name for child in node.iter_child_nodes() for name in _printed_names(child)]
    return [node] if isinstance(node, nodes.Name) else []
