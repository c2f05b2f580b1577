"""Chat templates: rendering in the sandbox, errors, what they need, and what they expect of messages."""

import datetime
from pathlib import Path

import pytest
from support.chats import CHATML, GEMMA, MARKED_CHATML, assistant, byte_tokenizer, chat_folder, dialogue, system, user

from pipeline.chat.control_tokens import ControlTokens
from pipeline.chat.model_template import read_model_templates, read_special_tokens, read_stop_tokens
from pipeline.chat.template import ChatTemplate, RenderingError, read_template_file
from pipeline.chat.traits import TemplateTraits, find_traits, has_malformed_calls, shape_dialogue
from pipeline.errors import DataError
from pipeline.format.template_checks import check_dialogue, limit_time, require_usable_template
from pipeline.modeling.encoding import load_encoder

TOKENS = ControlTokens(byte_tokenizer())


def test_variables_and_tools_reach_the_template() -> None:
    source = "{{ bos_token }}{{ tools[0].name }}{{ thinking }}{{ messages[0].content }}{{ add_generation_prompt }}"
    template = ChatTemplate(source, {"thinking": False}, {"bos_token": "<s>"})
    assert template.render([user("?")], [{"name": "find"}], add_generation_prompt=True) == "<s>findFalse?True"


def test_the_template_for_tools_renders_rows_with_tools() -> None:
    template = ChatTemplate("plain", tool_source="tools")
    assert (template.render([user("?")]), template.render([user("?")], [{"name": "f"}])) == ("plain", "tools")


def test_weights_are_not_for_templates() -> None:
    assert ChatTemplate("{{ messages[0] | tojson }}").render([{**user("?"), "weight": 0}]) == (
        '{"role": "user", "content": "?"}'
    )


def test_rows_do_not_depend_on_the_day() -> None:
    template = ChatTemplate("{{ strftime_now('%d %B %Y') }}")
    assert template.render([user("?")]) == "26 July 2024" != datetime.date.today().strftime("%d %B %Y")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        ("{{ messages[0].content.nothing.more }}", "has no attribute"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
    ],
)
def test_whatever_a_template_raises_is_one_kind_of_error(source: str, message: str) -> None:
    with pytest.raises(RenderingError, match=message):
        ChatTemplate(source).render([user("?")])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{% for m in messages %}", "line 1: the chat template does not compile: Unexpected end of template"),
        (b"\n{{ m | nothing }}", "line 2: the chat template does not compile: No filter named 'nothing'"),
        (b"\xff\xfe", "is no text in UTF-8"),
        (b" \n", "is empty"),
    ],
)
def test_a_file_that_is_no_template_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.jinja").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_template_file(str(tmp_path / "t.jinja"))


def test_a_missing_template_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.jinja does not exist; expected a Jinja file"):
        read_template_file(str(tmp_path / "nothing.jinja"))
    with pytest.raises(DataError, match="is a folder"):
        read_template_file(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ company }}" + CHATML, r"needs company, .*\+format.template.chat_template_kwargs.company"),
        ("{{ raise_exception('No.') }}", "cannot render a question and an answer: No"),
        (CHATML.replace("m.content + '<", "m.content + m.content + '<"), "renders a text of the user 2 times"),
        (CHATML.replace("in messages", "in messages[1:]"), "renders a text of the user 0 times"),
        (
            CHATML.replace("m.content + '<", "(m.content if m.role == 'user' else '') + '<"),
            "renders a text of the assistant 0 times",
        ),
        (CHATML.replace("<|im_", "<|chat_"), r"writes <\|chat_end\|>, <\|chat_start\|>, which .* letter by letter"),
    ],
    ids=["variable", "raises", "twice", "first turn", "a role", "tokens"],
)
def test_a_template_that_cannot_be_used_stops_with_the_reason(source: str, message: str) -> None:
    with pytest.raises(DataError, match=f"my template {message}"):
        require_usable_template(ChatTemplate(source), TOKENS, "my template")


def test_a_template_that_loops_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.format.template_checks.MAX_SECONDS", 0.2)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(DataError, match=r"my template did not render three short turns in 0\.2 seconds: it loops"):
        require_usable_template(ChatTemplate(loop), TOKENS, "my template")


def test_a_time_limit_ends_with_its_body() -> None:
    with limit_time(0.01):
        pass
    with pytest.raises(TimeoutError):
        loop_for_10_milliseconds()


@limit_time(0.01)
def loop_for_10_milliseconds() -> None:
    while True:
        pass


def test_the_model_names_its_template_special_tokens_and_ends(tmp_path: Path) -> None:
    folder = chat_folder(tmp_path, CHATML)
    templates = read_model_templates(folder)
    assert templates is not None
    assert (templates.default, templates.tool_use) == (CHATML, None)
    assert read_special_tokens(folder) == {
        "eos_token": "<|endoftext|>",
        "bos_token": "<s>",
        "pad_token": "<|endoftext|>",
    }
    assert read_stop_tokens(folder, load_encoder(folder).tokenizer) == ["<|im_end|>", "<|endoftext|>"]


def test_templates_in_the_configuration_and_under_names_are_found(tmp_path: Path) -> None:
    assert read_model_templates(chat_folder(tmp_path / "none", None)) is None
    listed = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    assert read_model_templates(chat_folder(tmp_path / "list", None, chat_template=listed)) == ("d", "t")
    files = chat_folder(tmp_path / "files", "d")
    (files / "additional_chat_templates").mkdir()
    (files / "additional_chat_templates" / "tool_use.jinja").write_text("t", encoding="utf-8")
    assert read_model_templates(files) == ("d", "t")


def test_a_system_prompt_that_the_template_refuses_starts_the_first_user_turn() -> None:
    template = ChatTemplate(GEMMA)
    traits = find_traits(template)
    assert traits.folds_system
    assert not find_traits(ChatTemplate(CHATML)).folds_system
    shaped = shape_dialogue(dialogue(system("Be brief."), user("Flu?"), assistant("No.")), traits)
    assert shaped.messages == [user("Be brief.\n\nFlu?"), assistant("No.")]
    assert shape_dialogue(dialogue(user("Flu?"), assistant("No.")), traits).messages[0] == user("Flu?")


CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"room": 7}'}}
TEXT_ARGUMENTS = CHATML.replace("call.function | tojson", "call.function.name + call.function.arguments")
CONTENT_IS_NONE = CHATML.replace("m.tool_calls or []", "(m.tool_calls or []) if m.content is none").replace(
    "{{ m.content + ", "{{ (m.content or '') + "
)


@pytest.mark.parametrize(
    ("source", "traits", "arguments", "content"),
    [
        (CHATML, TemplateTraits(), {"room": 7}, ""),
        (TEXT_ARGUMENTS, TemplateTraits(arguments_as_text=True), '{"room": 7}', ""),
        (CONTENT_IS_NONE, TemplateTraits(call_content=None), {"room": 7}, None),
    ],
    ids=["object", "text", "null content"],
)
def test_calls_take_the_form_that_the_template_expects(
    source: str, traits: TemplateTraits, arguments: object, content: object
) -> None:
    assert find_traits(ChatTemplate(source)) == traits
    for given in ('{"room": 7}', {"room": 7}):
        call = {**CALL, "function": {"name": "find", "arguments": given}}
        result = {"role": "tool", "content": "floor 1", "tool_call_id": "c1"}
        shaped = shape_dialogue(dialogue(user("?"), assistant("", tool_calls=[call]), result), traits)
        assert shaped.messages[1]["tool_calls"][0]["function"]["arguments"] == arguments
        assert shaped.messages[1]["content"] == content
        assert shaped.messages[2]["name"] == "find"  # some templates name the function of a result


@pytest.mark.parametrize("arguments", ["room 7", "[7]", 7, ["room"]])
def test_arguments_that_are_no_object_are_malformed(arguments: object) -> None:
    call = {"function": {"name": "find", "arguments": arguments}}
    assert has_malformed_calls(dialogue(user("?"), assistant("", tool_calls=[call])))


RESULT = {"role": "tool", "content": "floor 1", "tool_call_id": "c1"}
NO_TOOLS = CHATML.replace("m.tool_calls or []", "[]")
NO_SYSTEM = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")


@pytest.mark.parametrize(
    ("source", "messages", "reason", "detail"),
    [
        (CHATML, [user("?"), assistant("No.", weight=0)], "no_answer", ""),
        (CHATML, [user("?"), assistant("No."), assistant("Yes.")], "consecutive_assistant_turns", ""),
        (CHATML, [user("?"), RESULT, assistant("No.")], "tool_result_without_call", ""),
        (
            CHATML,
            [user("?"), assistant("", tool_calls=[CALL]), {**RESULT, "tool_call_id": "c2"}, assistant("No.")],
            "tool_result_without_call",
            "",
        ),
        (CHATML, [user("?"), assistant("", tool_calls=[{"name": "find"}])], "malformed_tool_call", ""),
        (GEMMA, [system("S"), user("?"), assistant("No.")], "template_error", "System role not supported"),
        (NO_SYSTEM, [system("S"), user("?"), assistant("No.")], "left_out_by_template", "system: S"),
        (
            NO_TOOLS,
            [user("?"), assistant("", tool_calls=[CALL])],
            "left_out_by_template",
            "assistant: the call of find",
        ),
    ],
)
def test_a_dialogue_that_is_left_out_has_a_reason(
    source: str, messages: list[dict[str, object]], reason: str, detail: str
) -> None:
    shaped = shape_dialogue(dialogue(*messages), TemplateTraits())
    checked = check_dialogue(ChatTemplate(source), TOKENS, shaped, ["<|im_end|>"])
    assert (checked.reason, checked.detail) == (reason, detail)


def test_thoughts_and_tools_that_a_template_leaves_out_are_noted() -> None:
    tools = [{"type": "function", "function": {"name": "find"}}]
    given = dialogue(user("?"), assistant("No.", reasoning_content="Hm."), tools=tools)
    checked = check_dialogue(ChatTemplate(MARKED_CHATML), TOKENS, given, ["<|im_end|>"])
    assert (checked.reason, checked.thoughts_left_out, checked.tools_left_out) == (None, True, True)
