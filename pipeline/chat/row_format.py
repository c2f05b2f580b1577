"""What a row of data/formatted is, and how it is rendered: data/formatted/template.json, a copy of which is in data/tokenized.

- `TextFormat`: id, prompt and completion as texts, rendered by a prompt template (null for rows that are learned as they are)
- `ChatFormat`: id, messages and tools, rendered by a chat template
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.core.files import damaged_error, read_json, write_json

FILE_NAME = "template.json"


class _Format(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextFormat(_Format):
    """Rows of prompt and completion. The templates are null where both are the user's own texts, or plain text."""

    kind: Literal["text"] = "text"
    prompt: str | None = None
    completion: str | None = None


class ChatFormat(_Format):
    """Rows of messages."""

    kind: Literal["chat"] = "chat"
    source: str
    """The chat template."""
    tool_source: str | None = None
    """The template for rows with tools, where the model has one of its own for them."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    stop_tokens: list[str]
    """The tokens at which the base model stops generating."""
    end_tokens: list[str] = Field(default_factory=list)
    """The tokens that end the learned turns of the rows."""


RowFormat = Annotated[TextFormat | ChatFormat, Field(discriminator="kind")]
PLAIN_TEXT = TextFormat()


def write_row_format(folder: Path, row_format: TextFormat | ChatFormat) -> None:
    write_json(folder / FILE_NAME, row_format.model_dump())


def read_row_format(folder: Path) -> TextFormat | ChatFormat:
    """The format of the rows in data/formatted or data/tokenized. Raises DataError if the file is damaged."""
    path = folder / FILE_NAME
    adapter: TypeAdapter[TextFormat | ChatFormat] = TypeAdapter(RowFormat)
    try:
        return adapter.validate_python(read_json(path))
    except ValidationError:
        raise damaged_error(path, "it is no description of a row format") from None
