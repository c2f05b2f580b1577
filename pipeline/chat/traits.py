"""What a chat template expects of messages, found by rendering samples, and messages brought into that form.

Templates disagree about three things: whether a system prompt may stand alone (Gemma's raises an error; the prompt then starts
the first user turn), whether the arguments of a tool call are an object or JSON text (DeepSeek), and whether the content of a
turn that only calls a tool is empty or null. The messages in data/formatted have the form that the model's template expects.
"""

import json
from itertools import product
from typing import Any, NamedTuple

from pipeline.chat.dialogue import Dialogue
from pipeline.chat.template import ChatTemplate, RenderingError
from pipeline.records.json_cells import parse_json
from pipeline.records.messages import Message

FUNCTION, VALUE = "find_room", 4711
PARAMETERS = {
    "type": "object",
    "properties": {"room": {"type": "integer", "description": "A room"}},
    "required": ["room"],
}
TOOLS = [{"type": "function", "function": {"name": FUNCTION, "description": "Finds a room", "parameters": PARAMETERS}}]
QUESTION: Message = {"role": "user", "content": "Where is it?"}
ANSWER: Message = {"role": "assistant", "content": "On floor 1."}
CALL_ID = "call00001"  # nine letters and digits, which Mistral's template demands


class TemplateTraits(NamedTuple):
    folds_system: bool = False  # the system prompt starts the first user turn
    arguments_as_text: bool = False
    call_content: str | None = ""  # of a turn that only calls tools


def find_traits(template: ChatTemplate) -> TemplateTraits:
    """The traits of a template."""
    folds_system = _refuses_system(template)
    for call_content, as_text in product(("", None), (False, True)):
        traits = TemplateTraits(folds_system, as_text, call_content)
        if _renders_calls(template, traits):
            return traits
    return TemplateTraits(folds_system)


def _refuses_system(template: ChatTemplate) -> bool:
    """Whether the template's own error speaks of the system prompt."""
    try:
        template.render([{"role": "system", "content": "Be brief."}, QUESTION, ANSWER])
    except RenderingError as error:
        return "system" in str(error).lower()
    return False


def _renders_calls(template: ChatTemplate, traits: TemplateTraits) -> bool:
    arguments: Any = {"room": VALUE}
    call = {"id": CALL_ID, "type": "function", "function": {"name": FUNCTION, "arguments": arguments}}
    result = {"role": "tool", "name": FUNCTION, "tool_call_id": CALL_ID, "content": "floor 1"}
    sample = Dialogue(0, [QUESTION, {"role": "assistant", "content": "", "tool_calls": [call]}, result, ANSWER], TOOLS)
    shaped = shape_dialogue(sample, traits)
    try:
        before = template.render(shaped.messages[:1], shaped.tools)
        text = template.render(shaped.messages, shaped.tools)
    except RenderingError:
        return False
    called = text.removeprefix(before)
    return FUNCTION in called and str(VALUE) in called


def shape_dialogue(dialogue: Dialogue, traits: TemplateTraits) -> Dialogue:
    """The dialogue in the form that a template of these traits expects."""
    messages = [_shape_message(message, traits) for message in dialogue.messages]
    names = {call.get("id"): _name_of(call) for message in messages for call in message.get("tool_calls") or []}
    for message in messages:
        if message["role"] == "tool" and not message.get("name") and (name := names.get(message.get("tool_call_id"))):
            message["name"] = name
    if traits.folds_system and messages and messages[0]["role"] == "system":
        messages = _fold_system(messages)
    return dialogue._replace(messages=messages)


def _shape_message(message: Message, traits: TemplateTraits) -> Message:
    if not message.get("tool_calls"):
        return dict(message)
    calls = [_shape_call(call, traits.arguments_as_text) for call in message["tool_calls"]]
    return {**message, "content": message["content"] or traits.call_content, "tool_calls": calls}


def _shape_call(call: dict[str, Any], as_text: bool) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if isinstance(arguments, str) and not as_text:
        arguments = _parsed_object(arguments)
    elif isinstance(arguments, dict) and as_text:
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": {} if arguments is None and not as_text else arguments}}


def _parsed_object(text: str) -> Any:
    """The object in JSON text; the text itself if it is none."""
    try:
        value = parse_json(text) if text.strip() else {}
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


def has_malformed_calls(dialogue: Dialogue) -> bool:
    """Whether a call has no function name, or arguments that are neither an object nor JSON text of one."""
    calls = [call for message in dialogue.messages for call in message.get("tool_calls") or []]
    return any(not _name_of(call) or not _has_object(call["function"].get("arguments")) for call in calls)


def _has_object(arguments: Any) -> bool:
    return arguments is None or isinstance(_parsed_object(arguments) if isinstance(arguments, str) else arguments, dict)


def _name_of(call: Any) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def _fold_system(messages: list[Message]) -> list[Message]:
    """The messages with the system prompts at their start moved into the first user turn; as they are without such a turn."""
    first = next((index for index, message in enumerate(messages) if message["role"] != "system"), len(messages))
    if first == len(messages) or messages[first]["role"] != "user":
        return messages
    texts = [message["content"] for message in messages[: first + 1]]
    return [{**messages[first], "content": "\n\n".join(texts)}, *messages[first + 1 :]]
