"""Turns records into dialogues that the chat template can render, and leaves out those that it cannot, each with its reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.chat.control_tokens import ControlTokens
from pipeline.chat.dialogue import Dialogue
from pipeline.chat.row_format import ChatFormat
from pipeline.chat.rows import MarksError
from pipeline.chat.template import ChatTemplate
from pipeline.chat.traits import TemplateTraits, shape_dialogue
from pipeline.errors import DataError
from pipeline.format.template_checks import check_dialogue
from pipeline.records.messages import Message
from pipeline.records.tasks import Task, messages_of, tools_of

# Why a dialogue is left out → description of such rows.
CHAT_REASONS = {
    "no_answer": "without an answer to learn",
    "consecutive_assistant_turns": "with two turns of the assistant in a row",
    "tool_result_without_call": "with a tool's result that nothing called for",
    "malformed_tool_call": "with a tool call whose function or arguments cannot be read",
    "template_error": "that the chat template refuses",
    "left_out_by_template": "of which the chat template leaves out a part",
}


@dataclass
class ChatCounts:
    """What the chat template made of the dialogues."""

    learned_turns: int = 0
    dialogues_expanded: int = 0  # into one row a learned turn
    rows_with_control_tokens: int = 0  # in their texts, where they are literal
    rows_with_folded_system: int = 0
    thoughts_left_out: int = 0  # rows
    tools_left_out: int = 0  # rows whose list of tools the template does not render
    examples: dict[str, str] = field(default_factory=dict)  # reason → the first row's id and what is wrong


class ChatReader:
    """Reads records as dialogues in the form that the template expects. system: the prompt for rows that have none."""

    def __init__(
        self,
        template: ChatTemplate,
        tokens: ControlTokens,
        traits: TemplateTraits,
        row_format: ChatFormat,
        system: str | None,
    ) -> None:
        self.template, self.tokens, self.traits, self.row_format = template, tokens, traits, row_format
        self.system = system
        self.counts = ChatCounts()
        self.refused: list[tuple[int, str, str]] = []  # (id, reason, detail)
        self.end_tokens: Counter[str] = Counter()

    def read(self, record: Mapping[str, Any], task: Task) -> Dialogue | None:
        """The dialogue of a record; None if it is left out. Raises DataError if the template's marks are wrong."""
        messages = with_system(messages_of(task, record), self.system)
        given = Dialogue(record["id"], messages, tools_of(record))
        dialogue = shape_dialogue(given, self.traits)
        try:
            checked = check_dialogue(self.template, self.tokens, dialogue, self.row_format.stop_tokens)
        except MarksError as error:
            raise DataError(
                f"row {given.id}: {error}. Correct the template, or use one without generation marks: format.template.path"
            ) from None
        if checked.reason:
            self.refused.append((given.id, checked.reason, checked.detail))
            self.counts.examples.setdefault(checked.reason, f"row {given.id}{checked.detail and ': '}{checked.detail}")
            return None
        turns = [turn for row in checked.rows for turn in row.turns]
        self.end_tokens.update(token for turn in turns for token in turn.end_tokens)
        self.counts.learned_turns += len(turns)
        self.counts.dialogues_expanded += len(checked.rows) > 1
        self.counts.rows_with_control_tokens += checked.control_tokens > 0
        self.counts.rows_with_folded_system += len(dialogue.messages) < len(given.messages)
        self.counts.thoughts_left_out += checked.thoughts_left_out
        self.counts.tools_left_out += checked.tools_left_out
        return dialogue


def with_system(messages: list[Message], system: str | None) -> list[Message]:
    """The messages, with the system prompt before them if they do not begin with one.

    >>> with_system([{"role": "user", "content": "Flu?"}], "Be brief.")[0]
    {'role': 'system', 'content': 'Be brief.'}
    """
    if system is None or (messages and messages[0]["role"] == "system"):
        return messages
    return [{"role": "system", "content": system}, *messages]
