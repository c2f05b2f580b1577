"""The chat template that is saved with the model renders messages as the prompt template renders rows."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.chats import CHATML, assistant, chat_folder, system, user
from transformers import AutoTokenizer

from pipeline.chat.row_format import PLAIN_TEXT, ChatFormat, TextFormat, read_row_format, write_row_format
from pipeline.chat.template import ChatTemplate
from pipeline.errors import DataError
from pipeline.format.prompt import render_prompt
from pipeline.modeling.served_template import served_template, with_defaults
from pipeline.records.tasks import Turn

TEMPLATES = {
    "tutorial": ("### Question:\n{question}\n### Answer:", "\n{answer}"),
    "plain": ("{question}", "{answer}"),
    "quotes and braces": ("Q: '{{{question}}}' \\n\t\"", " {{% {answer} %}}"),
}


@pytest.mark.parametrize("name", TEMPLATES)
@given(
    st.lists(st.text(max_size=20), min_size=1, max_size=5).filter(lambda texts: len(texts) % 2 == 1),
    st.text(max_size=9),
)
def test_messages_become_the_prompts_of_the_prompt_template(name: str, texts: list[str], prompt: str) -> None:
    question, answer = TEMPLATES[name]
    template = ChatTemplate(served_template(TextFormat(prompt=question, completion=answer), "<s>", "</s>") or "")
    messages = [system(prompt), *(assistant(text) if place % 2 else user(text) for place, text in enumerate(texts))]
    turns = [Turn(message["role"], message["content"]) for message in messages]
    rendered = template.render(messages, add_generation_prompt=True)
    assert rendered == "<s>" + render_prompt(turns, question, answer)
    text, (mark,) = template.render_marked([*messages[:2], assistant("No.")])
    assert text == "<s>" + render_prompt(turns[:2], question, answer) + answer.format(answer="No.") + "</s>"
    assert text[mark.start : mark.end] == answer.format(answer="No.") + "</s>"


def test_the_template_of_chats_is_unchanged_and_variables_are_defaults() -> None:
    assert served_template(ChatFormat(source=CHATML, stop_tokens=[]), "", "") == CHATML
    given = ChatFormat(
        source="{{ thinking }}{{ x }}", stop_tokens=[], chat_template_kwargs={"thinking": False, "x": "it's\n"}
    )
    source = served_template(given, "", "")
    assert source is not None
    assert ChatTemplate(source).render([user("?")]) == "Falseit's\n"
    assert ChatTemplate(source, {"thinking": True}).render([user("?")]) == "Trueit's\n"
    assert with_defaults("{{ x is none }}", {"x": None}).endswith("{%- set x = none %}{%- endif %}{{ x is none }}")


def test_plain_text_has_no_chat_template() -> None:
    assert served_template(PLAIN_TEXT, "", "</s>") is None


def test_the_saved_template_tokenizes_as_training_does(tmp_path: Path) -> None:
    source = served_template(TextFormat(prompt="Q: {question} A:", completion=" {answer}"), "<s>", "<|endoftext|>")
    tokenizer = AutoTokenizer.from_pretrained(chat_folder(tmp_path, source, bos="<s>"))
    ids = tokenizer.apply_chat_template([user("Flu?"), assistant("No.")], return_dict=True)["input_ids"]
    assert ids == tokenizer("Q: Flu? A: No.")["input_ids"] + [tokenizer.eos_token_id]


def test_the_format_of_rows_is_read_as_it_was_written(tmp_path: Path) -> None:
    text = TextFormat(prompt="{question}", completion="{answer}")
    for row_format in (PLAIN_TEXT, text, ChatFormat(source="x", stop_tokens=["a"])):
        write_row_format(tmp_path, row_format)
        assert read_row_format(tmp_path) == row_format
    (tmp_path / "template.json").write_text('{"kind": "audio"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"template\.json is damaged"):
        read_row_format(tmp_path)
