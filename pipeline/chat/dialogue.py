"""Dialogues: the messages of a row with its tools, and which of their turns are learned."""

from typing import Any, NamedTuple

from pipeline.records.messages import Message
from pipeline.records.text import is_blank


class Dialogue(NamedTuple):
    id: int
    messages: list[Message]
    tools: list[Any]

    def until(self, end: int) -> "Dialogue":
        """The dialogue with the messages before `end` alone."""
        return self._replace(messages=self.messages[:end])


def learned_turns(messages: list[Message], loss: str) -> list[int]:
    """The indices of the assistant turns that are learned; those of weight 0 and empty ones are not.

    loss: "last" for the last of them alone, otherwise all.

    >>> learned_turns([{"role": "user", "content": "Flu?"}, {"role": "assistant", "content": "Rest."}], "assistant")
    [1]
    """
    turns = [index for index, message in enumerate(messages) if is_learned(message)]
    return turns[-1:] if loss == "last" else turns


def is_learned(message: Message) -> bool:
    if message["role"] != "assistant" or message.get("weight") in (0, "0", 0.0):
        return False
    return not is_blank(message["content"] or "") or bool(message.get("tool_calls"))


def structure_error(messages: list[Message]) -> str | None:
    """The reason why the messages are no dialogue to learn from; None if they are one.

    >>> structure_error([{"role": "tool", "content": "38.5"}, {"role": "assistant", "content": "Rest."}])
    'tool_result_without_call'
    """
    if not learned_turns(messages, "assistant"):
        return "no_answer"
    calls: set[str] | None = None  # the ids of the open calls; None if none is open
    previous = ""
    for message in messages:
        role = message["role"]
        if role == "tool":
            if calls is None or (calls and message.get("tool_call_id", next(iter(calls))) not in calls):
                return "tool_result_without_call"
        else:
            if role == previous == "assistant":
                return "consecutive_assistant_turns"
            calls = _call_ids(message)
        previous = role
    return None


def _call_ids(message: Message) -> set[str] | None:
    calls = message.get("tool_calls")
    if not calls:
        return None
    ids = {call.get("id") for call in calls if isinstance(call, dict)}
    return set() if None in ids else {str(id) for id in ids}
