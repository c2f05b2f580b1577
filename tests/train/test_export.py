"""The tokenizer that is saved with the fine-tuned model renders and decodes as evaluation does."""

from pathlib import Path

import pytest
from support.small_models import small_model, word_tokenizer
from transformers import AddedToken, AutoTokenizer

from pipeline.chat.model_template import ModelTemplates, read_model_templates
from pipeline.chat.row_format import ChatFormat
from pipeline.errors import ModelError
from pipeline.evaluate.stage import require_trained_template
from pipeline.train.export import export_model

PLAIN, TOOLS, BASES = "{{ messages[0].content }}", "{{ tools }}", "{{ tools }} of the base"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model with a template of its own for requests with tools."""
    folder = tmp_path / "base"
    small_model("llama").save_pretrained(folder)
    tokenizer = word_tokenizer()
    tokenizer.chat_template = {"default": PLAIN, "tool_use": BASES, "rag": PLAIN}
    tokenizer.save_pretrained(folder)
    return folder


def export(base: Path, row_format: ChatFormat) -> Path:
    target = base.with_name("finetuned")
    export_model(small_model("llama"), base, target, row_format)
    require_trained_template(target, row_format)
    return target


def test_tools_are_rendered_by_the_template_of_the_rows_with_its_defaults(base: Path) -> None:
    row_format = ChatFormat(source=PLAIN, tool_source=TOOLS, chat_template_kwargs={"brief": True}, stop_tokens=[])
    target = export(base, row_format)
    default = "{%- if brief is not defined %}{%- set brief = true %}{%- endif %}"
    assert read_model_templates(target) == ModelTemplates(default + PLAIN, default + TOOLS)
    assert AutoTokenizer.from_pretrained(target).chat_template["rag"] == PLAIN


def test_a_template_of_ones_own_renders_tools_too(base: Path) -> None:
    target = export(base, ChatFormat(source=PLAIN, stop_tokens=[]))
    assert read_model_templates(target) == ModelTemplates(PLAIN)
    assert list(AutoTokenizer.from_pretrained(target).chat_template) == ["default", "rag"]


def test_another_template_for_tools_is_an_error(base: Path) -> None:
    target = export(base, ChatFormat(source=PLAIN, stop_tokens=[]))
    with pytest.raises(ModelError, match="has another chat template than the one that rendered its training rows"):
        require_trained_template(target, ChatFormat(source=PLAIN, tool_source=TOOLS, stop_tokens=[]))


def test_ends_of_turns_are_flagged_as_special(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([AddedToken("w7", special=False, rstrip=True), AddedToken("w8", special=False)])
    tokenizer.save_pretrained(base)
    target = export(base, ChatFormat(source=PLAIN, stop_tokens=[], end_tokens=["w7"]))
    saved = AutoTokenizer.from_pretrained(target)
    assert saved.decode([5, 7, 8, 2], skip_special_tokens=True) == "w5 w8"
    assert saved.get_vocab() == tokenizer.get_vocab()
    assert saved.added_tokens_decoder[7].rstrip
    assert not saved.added_tokens_decoder[8].special
