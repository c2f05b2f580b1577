"""The chat template of a model folder, and what a template needs of the model: its special tokens, and where it stops."""

from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from pipeline.chat.control_tokens import ControlTokens
from pipeline.chat.encoder import ChatEncoder
from pipeline.chat.row_format import ChatFormat, TextFormat
from pipeline.chat.template import ChatTemplate, RenderingError
from pipeline.chat.traits import ANSWER, QUESTION
from pipeline.core.files import read_json
from pipeline.errors import ModelError
from pipeline.modeling.encoding import Encoder, load_encoder

TOOL_TEMPLATE = "tool_use"  # the name by which transformers chooses the template for requests with tools
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ModelTemplates(NamedTuple):
    default: str
    tool_use: str | None = None


def read_model_templates(folder: Path) -> ModelTemplates | None:
    """The chat templates of a model folder as transformers finds them; None if it has none.

    Raises ModelError if a template is no UTF-8 text.
    """
    named: dict[str, str] = {}
    value = _read_optional(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(value, str):
        named["default"] = value
    elif isinstance(value, list):
        named |= {entry["name"]: entry["template"] for entry in value if {"name", "template"} <= entry.keys()}
    files = {"default": folder / "chat_template.jinja"}
    files |= {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    for name, path in files.items():
        if path.exists():
            try:
                named[name] = path.read_bytes().decode()
            except UnicodeDecodeError as error:
                raise ModelError(f"{path} is no text in UTF-8 ({error}); save the template again") from None
    return ModelTemplates(named["default"], named.get(TOOL_TEMPLATE)) if named.get("default") else None


def read_special_tokens(folder: Path) -> dict[str, str]:
    """bos_token, eos_token, … of a model folder's tokenizer, which transformers passes to templates."""
    config = {**_read_optional(folder / "special_tokens_map.json"), **_read_optional(folder / "tokenizer_config.json")}
    texts = {name: _token_text(config.get(name)) for name in SPECIAL_TOKENS}
    return {name: text for name, text in texts.items() if text}


def _token_text(token: Any) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def read_stop_tokens(folder: Path, tokenizer: Tokenizer) -> list[str]:
    """The tokens at which a folder's model stops: those of its generation config, and the tokenizer's end-of-text token."""
    listed = _read_optional(folder / "generation_config.json").get("eos_token_id")
    ids = listed if isinstance(listed, list) else [listed]
    added = tokenizer.get_added_tokens_decoder()
    tokens = [added[token_id].content for token_id in ids if isinstance(token_id, int) and token_id in added]
    return list(dict.fromkeys([*tokens, *filter(None, [read_special_tokens(folder).get("eos_token")])]))


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def chat_template_of(row_format: ChatFormat, folder: Path) -> ChatTemplate:
    """The chat template of the rows, with the special tokens of the model in `folder`."""
    return ChatTemplate(
        row_format.source, row_format.chat_template_kwargs, read_special_tokens(folder), row_format.tool_source
    )


def control_tokens_of(template: ChatTemplate, tokenizer: Tokenizer) -> ControlTokens:
    """The control tokens of a tokenizer. Those that the template writes around plain turns are escaped in texts."""
    tokens = ControlTokens(tokenizer)
    try:
        plain = template.render([QUESTION, ANSWER, QUESTION, ANSWER, QUESTION], add_generation_prompt=True)
    except RenderingError:
        return tokens
    return ControlTokens(tokenizer, {match[0] for match in tokens.find(plain)})


def load_chat_encoder(row_format: ChatFormat, folder: Path, encoder: Encoder | None = None) -> ChatEncoder:
    """The encoder of chats for the model in `folder`. encoder: that of its tokenizer, if it is loaded already."""
    encoder = encoder or load_encoder(folder)
    template = chat_template_of(row_format, folder)
    return ChatEncoder(encoder, template, control_tokens_of(template, encoder.tokenizer), row_format.stop_tokens)


def end_ids_of(row_format: TextFormat | ChatFormat, encoder: Encoder) -> list[int]:
    """The tokens that end an answer: of dialogues, those that end their learned turns; otherwise the end-of-text token."""
    if isinstance(row_format, TextFormat):
        return [encoder.eos_id]
    ids = [encoder.tokenizer.token_to_id(token) for token in row_format.end_tokens]
    return [token_id for token_id in ids if token_id is not None]


def bos_id_of(folder: Path, encoder: Encoder) -> int | None:
    """The beginning token of a folder's tokenizer; None if it names none."""
    token = read_special_tokens(folder).get("bos_token")
    return None if token is None else encoder.tokenizer.token_to_id(token)
