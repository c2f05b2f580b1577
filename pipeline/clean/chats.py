"""Cleans chats: assembles the messages of a row, cleans their texts, and ends the chat with its last answer."""

from typing import Any

from pipeline.clean.transforms import Changes, Transforms, apply_steps
from pipeline.records.messages import (
    Chat,
    Message,
    read_chat,
    read_earlier_turns,
    read_tools,
    system_messages,
)
from pipeline.records.text import is_blank

# Name in metrics/details/clean.json → description of the changed rows.
CHAT_CHANGES = {
    "trailing_turns": "with unanswered turns removed",
    "empty_turns": "with empty turns removed",
    "dropped_parts": "with parts removed that are not text",
}
LEARNED_KEYS = ("role", "content", "tool_calls", "reasoning_content", "name", "weight")
ANSWERS = ("answer", "response", "completion", "output")


class ChatCleaner:
    def __init__(self, transforms: Transforms) -> None:
        self.transforms = transforms
        self.steps = {
            "system": transforms.context,
            "tool": transforms.context,
            "user": transforms.text,
            "assistant": [*transforms.text, *transforms.outer],
        }

    def clean(self, source: dict[str, Any], changes: Changes) -> dict[str, Any]:
        """The record of a row: its messages up to the last answer, and its tools. Raises NotAChatError."""
        chat = assemble_chat(source)
        messages = self.clean_turns(chat, changes)
        end = next((number for number in range(len(messages), 0, -1) if is_answer(messages[number - 1])), len(messages))
        if end < len(messages):
            changes.setdefault("trailing_turns", (_shown(messages[end:]), ""))
            messages = messages[:end]
        if messages and is_answer(messages[-1]):
            answer = messages[-1]
            answer["content"] = apply_steps(
                answer["content"], [*self.transforms.endings, *self.transforms.outer], changes
            )
        return {"messages": messages, "tools": chat.tools or None}

    def clean_turns(self, chat: Chat, changes: Changes) -> list[Message]:
        """The messages with cleaned texts, without those that are empty."""
        if chat.dropped_parts:
            changes.setdefault("dropped_parts", (", ".join(dict.fromkeys(chat.dropped_parts)), ""))
        messages = [
            message | {"content": apply_steps(message["content"], self.steps[message["role"]], changes)}
            for message in chat.messages
        ]
        kept = [message for message in messages if not is_empty(message)]
        # Without any turn of its role, an empty one says why the row cannot be learned from.
        roles = {message["role"] for message in kept}
        if len(kept) < len(messages):
            kept = [
                m
                for m in messages
                if not is_empty(m) or (m["role"] in ("user", "assistant") and m["role"] not in roles)
            ]
        if len(kept) < len(messages):
            changes.setdefault("empty_turns", (_shown([message for message in messages if is_empty(message)]), ""))
        return kept

    def question_and_answer(self, messages: list[Message]) -> tuple[str, str, str | None]:
        """(all that the user says, the answer, the reason if one of them is missing)."""
        if not messages or messages[-1]["role"] != "assistant":
            return "", "", "no_answer"
        users = [message["content"] for message in messages if message["role"] == "user"]
        if not users:
            return "", "", "no_answer"
        if is_empty(messages[-1]) or all(map(is_blank, users)):
            return "", "", "empty"
        if not is_answer(messages[-1]):  # all of its answers have the weight 0
            return "", "", "no_answer"
        return "\n".join(users), messages[-1]["content"], None

    def has_question(self, messages: list[Message]) -> bool:
        return any(message["role"] == "user" and not is_blank(message["content"]) for message in messages)


def assemble_chat(source: dict[str, Any]) -> Chat:
    """The chat of a row's cells: system prompt, history, then the messages, or question and answer in this order.

    >>> assemble_chat({"prompt": "Flu?", "completion": [{"role": "assistant", "content": "Rest."}]}).messages
    [{'role': 'user', 'content': 'Flu?'}, {'role': 'assistant', 'content': 'Rest.'}]
    """
    messages: list[Message] = []
    dropped: list[str] = []
    tools = read_tools(source.get("tools"), dropped)
    for name, value in sorted(source.items(), key=lambda item: _position(item[0])):
        if name in ("system", "tools"):
            continue
        chat = read_earlier_turns(value) if name == "history" else read_chat(value, _default_role(name))
        messages += chat.messages
        tools += chat.tools
        dropped += chat.dropped_parts
    return Chat([*system_messages(source.get("system"), messages), *messages], tools, dropped)


def _position(name: str) -> int:
    return 0 if name == "history" else 2 if name in ANSWERS else 1


def _default_role(name: str) -> str | None:
    if name == "messages":
        return None
    return "assistant" if name in ANSWERS else "user"


def is_empty(message: Message) -> bool:
    """Whether a turn says and calls nothing; a tool may well return nothing."""
    return message["role"] != "tool" and is_blank(message["content"]) and not message.get("tool_calls")


def is_answer(message: Message) -> bool:
    """Whether a turn is to be learned: one of the assistant's, not empty, whose weight is not 0."""
    return message["role"] == "assistant" and message.get("weight") not in (0, "0") and not is_empty(message)


def _shown(messages: list[Message]) -> str:
    return "; ".join(f"{message['role']}: {message['content']}" for message in messages)
