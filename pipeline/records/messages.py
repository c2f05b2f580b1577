"""Reads chats in the shapes that datasets and exports have, and brings them into OpenAI's form.

Roles become system, user, assistant or tool, parts of a content become one text, function calls become tool_calls. Every
other key of a message is kept as given; a key whose value is null counts as absent.
"""

import ast
from collections.abc import Iterable
from typing import Any, NamedTuple

from pipeline.records.json_cells import parse_json
from pipeline.records.text import cell_text, is_blank

ROLE_NAMES = {
    "system": ("system", "developer"),
    "user": ("user", "human"),
    "assistant": ("assistant", "gpt", "chatgpt", "bing", "bard", "model", "ai", "bot"),
    "tool": ("tool", "observation", "function", "ipython", "tool_response", "function_response"),
    "function_call": ("function_call", "tool_call"),
}
ROLE_OF = {name: role for role, names in ROLE_NAMES.items() for name in names}
ROLE_KEYS, CONTENT_KEYS = ("role", "from", "speaker"), ("content", "value", "text", "parts")
CHAT_KEYS = (
    "messages",
    "conversations",
    "conversation",
    "dialog",
    "dialogue",
    "chat",
    "turns",
)  # of an object around it
TEXT_PARTS = (None, "text", "input_text", "output_text")
MESSAGE_FORMATS = "lists of {role: system, user, assistant or tool; content} or {from: human or gpt; value}"
MAX_SHOWN = 60  # characters of a value in a message
Message = dict[str, Any]


class NotAChatError(ValueError):
    """A cell that is no chat; the message says what it holds."""


class Chat(NamedTuple):
    messages: list[Message]
    tools: list[Any]
    dropped_parts: list[str]  # the type of each part that is not text


def read_chat(value: Any, default_role: str | None = None) -> Chat:
    """The chat in a cell: a list of messages, JSON text of one, or an object that holds one.

    `default_role` is the role of a cell that is a text and not JSON of messages. Raises NotAChatError.

    >>> read_chat('[{"from": "human", "value": "Flu?"}, {"from": "gpt", "value": "Rest."}]').messages
    [{'role': 'user', 'content': 'Flu?'}, {'role': 'assistant', 'content': 'Rest.'}]
    """
    dropped: list[str] = []
    if default_role and not is_chat(value) and isinstance(value, str | int | float | None):
        text = cell_text(value)
        return Chat([{"role": default_role, "content": text}] if text else [], [], dropped)
    value = _parsed(value)
    system, tools = None, []
    if isinstance(value, dict) and (key := next((key for key in CHAT_KEYS if value.get(key) is not None), None)):
        system, tools = value.get("system"), read_tools(value.get("tools") or value.get("functions"), dropped)
        value = _parsed(value[key])
    if isinstance(value, dict) and _role_key(value):
        value = [value]
    if not isinstance(value, list | None):
        raise NotAChatError(f"{_shown(value)} instead of a list of messages")
    messages = [_read_message(message, number, dropped) for number, message in enumerate(value or [], start=1)]
    return Chat([*system_messages(system, messages), *messages], tools, dropped)


def is_chat(value: Any) -> bool:
    """Whether a cell holds messages: the first has a content and a role that is known.

    >>> is_chat([{"role": "user", "content": "Flu?"}]), is_chat("Flu?"), is_chat(["Flu?"])
    (True, False, False)
    """
    if isinstance(value, str) and not value.lstrip().startswith(("[{", "{")):
        return False
    try:
        value = _parsed(value)
    except NotAChatError:
        return False
    if isinstance(value, dict):
        value = next((value[key] for key in CHAT_KEYS if value.get(key)), [value])
    first = value[0] if isinstance(value, list) and value else None
    if not isinstance(first, dict) or (key := _role_key(first)) is None:
        return False
    return _role(first[key]) is not None and any(name in first for name in (*CONTENT_KEYS, "tool_calls"))


def system_messages(system: Any, messages: list[Message]) -> list[Message]:
    """The message of a system prompt that stands in a column of its own; none if the chat begins with it already."""
    text = cell_text(system) if isinstance(system, str | int | float | None) else ""
    begins_with_it = bool(messages) and messages[0]["role"] == "system" and messages[0]["content"] == text
    return [] if is_blank(text) or begins_with_it else [{"role": "system", "content": text}]


def read_earlier_turns(value: Any) -> Chat:
    """Earlier turns: pairs of question and answer, or messages. Raises NotAChatError.

    >>> [message["role"] for message in read_earlier_turns([["Flu?", "Rest."]]).messages]
    ['user', 'assistant']
    """
    value = _parsed(value)
    if not isinstance(value, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        return read_chat(value)
    turns = [(role, text) for pair in value for role, text in zip(("user", "assistant"), pair, strict=True)]
    if not all(isinstance(text, str | int | float | None) for _, text in turns):
        raise NotAChatError("a history whose pairs are not texts")
    return Chat([{"role": role, "content": cell_text(text)} for role, text in turns], [], [])


def read_tools(value: Any, dropped: list[str]) -> list[Any]:
    """The tools in a cell, in OpenAI's form; "tools" is added to `dropped` if it is a text that is not JSON.

    >>> read_tools('[{"name": "find"}]', [])
    [{'type': 'function', 'function': {'name': 'find'}}]
    """
    try:
        tools = parse_json(value) if isinstance(value, str) and not is_blank(value) else value
    except ValueError:
        dropped.append("tools")
        return []
    return [_wrap_function(tool) for tool in (tools if isinstance(tools, list) else [tools]) if tool]


def _wrap_function(tool: Any) -> Any:
    is_bare = isinstance(tool, dict) and "name" in tool and "function" not in tool and tool.get("type") != "function"
    return {"type": "function", "function": tool} if is_bare else tool


def _parsed(value: Any) -> Any:
    """The value of JSON text, or of a list as Python prints it, which pandas writes into CSV files."""
    if not isinstance(value, str):
        return value
    text = value.strip("\ufeff \t\r\n")
    if not text:
        return None
    for parse in (parse_json, ast.literal_eval):
        try:
            parsed = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(parsed, list | dict | None):
            return parsed
    raise NotAChatError(f"{_shown(value)} instead of a list of messages")


def _role_key(message: Message) -> str | None:
    return next((key for key in ROLE_KEYS if message.get(key) is not None), None)


def _role(name: Any) -> str | None:
    return ROLE_OF.get(name.strip().casefold()) if isinstance(name, str) else None


def _read_message(value: Any, number: int, dropped: list[str]) -> Message:
    if not isinstance(value, dict) or (key := _role_key(value)) is None:
        raise NotAChatError(f"message {number} is {_shown(value)}; expected an object with a role")
    if (role := _role(value[key])) is None:
        raise NotAChatError(
            f"message {number} has the {key} {_shown(value[key])}; expected one of {', '.join(ROLE_OF)}"
        )
    content_key = next((name for name in CONTENT_KEYS if value.get(name) is not None), "content")
    content = _join_parts(value.get(content_key), number, dropped)
    rest = {name: item for name, item in value.items() if item is not None and name not in (key, content_key)}
    calls = _tool_calls(rest.pop("tool_calls", None)) + _tool_calls(rest.pop("function_call", None))
    if role == "function_call":
        role = "assistant"
        if parsed := _tool_calls(content):
            calls, content = calls + parsed, ""
    return {"role": role, "content": content} | ({"tool_calls": calls} if calls else {}) | rest


def _tool_calls(value: Any) -> list[Any]:
    """The calls in a cell, in OpenAI's form; none if it is a text that is not JSON."""
    try:
        calls = parse_json(value) if isinstance(value, str) else value
    except ValueError:
        return []
    calls = calls if isinstance(calls, list) else [calls]
    return [_wrap_function(call) for call in calls if isinstance(call, dict) and call]


def _join_parts(content: Any, number: int, dropped: list[str]) -> str:
    """The text of a content. Its text parts are joined as chat templates join them: one directly after the other."""
    if isinstance(content, str | int | float | None):
        return cell_text(content)
    parts: Iterable[Any] = [content] if isinstance(content, dict) else content
    if not isinstance(content, list | dict):
        raise NotAChatError(f"message {number} has the content {_shown(content)}; expected text")
    texts = []
    for part in parts:
        if (text := _part_text(part)) is not None:
            texts.append(text)
        elif part is not None:
            dropped.append(_part_type(part))
    return "".join(texts)


def _part_text(part: Any) -> str | None:
    """The text of a part; None if it has another type."""
    if isinstance(part, dict) and part.get("type") in TEXT_PARTS:
        part = part.get("text")
        part = part.get("value") if isinstance(part, dict) else part
    return part if isinstance(part, str) else None


def _part_type(part: Any) -> str:
    if isinstance(part, dict):
        return str(part.get("type") or ", ".join(map(str, part)) or "empty")
    return type(part).__name__


def _shown(value: Any) -> str:
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
