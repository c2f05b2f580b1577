"""The options of format/template, selected by `kind`: how rows become the text that the model reads."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section, Text
from pipeline.config.placeholders import template_errors


class PromptTemplate(Section):
    """The keys of a template that renders a prompt and a completion."""

    prompt: str
    """Prompt, with the placeholder {question} exactly once."""
    completion: str
    """Completion, with the placeholder {answer} exactly once."""

    @model_validator(mode="after")
    def _require_placeholders(self) -> "PromptTemplate":
        if errors := template_errors(self.prompt, self.completion):
            raise ValueError("; ".join(errors))
        return self


class TextTemplate(PromptTemplate):
    """Renders every row by a prompt template, whatever the model's chat template is."""

    kind: Literal["text"]


class AutoTemplate(PromptTemplate):
    """Renders by the model's chat template if it has one, otherwise by a prompt template.

    Rows of prompt and completion, and plain text, are learned as they are.
    """

    kind: Literal["auto"]
    chat_template_kwargs: dict[str, Any]
    """Variables for the chat template, such as `{enable_thinking: false}`. The saved model has them as defaults."""


class ChatTemplateOption(Section):
    """Renders by a chat template: the model's own, or one from a file."""

    kind: Literal["chat"]
    path: Text | None
    """Jinja file of the chat template; null: the model's own. Control tokens in it must be the tokenizer's; model.chat_template
    adds a template together with its tokens."""
    sha256: str | None
    """SHA-256 of the file, computed when params.yaml is composed. A change to the file thus counts as a parameter
    change."""
    chat_template_kwargs: dict[str, Any]
    """Variables for the chat template, such as `{enable_thinking: false}`. The saved model has them as defaults."""


Template = Annotated[AutoTemplate | ChatTemplateOption | TextTemplate, Field(discriminator="kind")]
