"""Gives the model in models/base another chat template: ChatML, or one from a file, with the control tokens that it needs."""

import logging
import shutil
from pathlib import Path
from typing import Any

from pipeline.chat.control_tokens import ControlTokens
from pipeline.chat.model_template import read_model_templates, read_special_tokens
from pipeline.chat.template import ChatTemplate, RenderingError, read_template_file
from pipeline.chat.traits import ANSWER, QUESTION
from pipeline.chat.turns import TOKEN_SHAPE, find_end
from pipeline.config.sources import Model
from pipeline.core.files import read_json, write_json
from pipeline.errors import ModelError
from pipeline.modeling import loading
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)

CHATML, CHATML_FILE = "chatml", Path(__file__).with_name("chatml.jinja")
TEMPLATE_FILE, ADDITIONAL = "chat_template.jinja", "additional_chat_templates"
ROLES = ("system", "user", "assistant", "tool")


def write_chat_template(model: Model, folder: Path) -> None:
    """Write the chat template that the parameters choose, if any, to the model in `folder`, and add its control tokens.

    Raises ModelError if the model has a template of its own that is not to be replaced.
    """
    if model.chat_template is None:
        return
    if read_model_templates(folder) is not None and not model.replace_chat_template:
        raise ModelError(
            f"model.chat_template: the model has a chat template of its own, which it was trained with. To replace it by "
            f"{model.chat_template}, set model.replace_chat_template=true; to use its own, model.chat_template=null"
        )
    source = template_source(model.chat_template)
    _remove_templates(folder)
    (folder / TEMPLATE_FILE).write_bytes(source.encode())
    added = _add_tokens(folder, source)
    _add_stop_tokens(folder, source)
    log.info(
        f"Chat template: {model.chat_template}" + (f"; control tokens added: {format_names(added)}" if added else "")
    )


def template_source(chat_template: str) -> str:
    """The text of the template that model.chat_template names. Raises DataError if it is no template."""
    return read_template_file(str(CHATML_FILE) if chat_template == CHATML else chat_template)


def _remove_templates(folder: Path) -> None:
    """Remove the templates that the model has, wherever transformers would find them."""
    (folder / TEMPLATE_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder / ADDITIONAL, ignore_errors=True)
    path = folder / "tokenizer_config.json"
    if path.exists() and "chat_template" in (config := read_json(path)):
        write_json(path, {key: value for key, value in config.items() if key != "chat_template"})


def _add_tokens(folder: Path, source: str) -> list[str]:
    """Add the template's control tokens that the tokenizer lacks; return them. New ones get an embedding later."""
    from tokenizers import AddedToken

    tokenizer = loading.load_tokenizer(folder)
    known = {token.content for token in tokenizer.added_tokens_decoder.values()}
    missing = sorted(set(TOKEN_SHAPE.findall(source + _sample_text(source, folder))) - known)
    if missing:
        tokenizer.add_tokens(
            [AddedToken(token, special=True, normalized=False) for token in missing], special_tokens=True
        )
        tokenizer.save_pretrained(folder)
    return missing


def _sample_text(source: str, folder: Path) -> str:
    """What the template renders of a turn of each role, as far as it knows them: it may put tokens together."""
    template = ChatTemplate(source, special_tokens=read_special_tokens(folder))
    texts = []
    for role in ROLES:
        try:
            texts.append(template.render([QUESTION, {"role": role, "content": "x"}], add_generation_prompt=True))
        except RenderingError:
            continue
    return "".join(texts)


def _add_stop_tokens(folder: Path, source: str) -> None:
    """Have the generation config list the tokens that end a turn, beside its own."""
    tokenizer = loading.load_tokenizer(folder)
    template = ChatTemplate(source, special_tokens=read_special_tokens(folder))
    try:
        text = template.render([QUESTION, ANSWER])
    except RenderingError:  # format reports it
        return
    _, ends = find_end(ControlTokens(tokenizer.backend_tokenizer), text, ANSWER)
    path = folder / "generation_config.json"
    config: dict[str, Any] = read_json(path) if path.exists() else {}
    listed = config.get("eos_token_id", tokenizer.eos_token_id)
    ids = [*(listed if isinstance(listed, list) else [] if listed is None else [listed])]
    vocabulary = tokenizer.get_vocab()
    ids += [vocabulary[token] for token in dict.fromkeys(ends) if vocabulary[token] not in ids]
    write_json(path, {**config, "eos_token_id": ids})
