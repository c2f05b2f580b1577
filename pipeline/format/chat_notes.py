"""What the user should know about the rendering of the rows: what renders them, which rows it leaves out, and why."""

from collections import Counter
from typing import Any

from pipeline.chat.row_format import ChatFormat, TextFormat
from pipeline.format.chat_rows import CHAT_REASONS
from pipeline.format.conversations import Conversations
from pipeline.records.tasks import Task

OTHER_TEMPLATE = (
    "Another template may render them: model.chat_template=chatml with model.replace_chat_template=true knows system prompts, "
    "tool calls and results"
)
ADVICE = {"template_error": OTHER_TEMPLATE, "left_out_by_template": OTHER_TEMPLATE}
NEEDS_CHAT_TEMPLATE = "have tool calls or tool results, which the prompt template (format.template) cannot express"


def describe_row_format(row_format: TextFormat | ChatFormat, task: Task) -> str:
    """How the rows are rendered, for the log."""
    if isinstance(row_format, ChatFormat):
        given = ", ".join(f"{name}={value!r}" for name, value in row_format.chat_template_kwargs.items())
        return f"Rows are chats, rendered by the chat template{f' with {given}' if given else ''}"
    if row_format.prompt is None:
        return f"Rows are learned as they are ({task.name})"
    return "Rows are rendered by the prompt template (format.template)"


def describe_chat(chat: dict[str, Any]) -> str:
    """What the chat template made of the dialogues, for the log."""
    ends = " or ".join(chat["end_tokens"]) or "no token"
    parts = [f"{chat['learned_turns']:,} turns of the assistant to learn, each ends with {ends}"]
    notes = {
        "dialogues_expanded": "dialogues become one row a turn, because the template renders earlier turns otherwise",
        "rows_with_control_tokens": "rows have control tokens in their texts, which stay text",
        "rows_with_folded_system": "system prompts start the first user turn, because the template knows no system role",
        "thoughts_left_out": "rows have thoughts (reasoning_content) that the template leaves out",
        "tools_left_out": "rows list tools, which the template leaves out",
    }
    parts += [f"{chat[name]:,} {note}" for name, note in notes.items() if chat[name]]
    return "; ".join(parts)


def refusal_warnings(conversations: Conversations) -> list[str]:
    """Sentences about the rows that the rows' format cannot express."""
    total = len(conversations.rows) + len(conversations.refused)
    counts = Counter(reason for _, reason, _ in conversations.refused)
    examples = conversations.chat.examples if conversations.chat else {}
    warnings = []
    for reason, count in counts.items():
        described = NEEDS_CHAT_TEMPLATE if reason == "needs_chat_template" else f"are dialogues {CHAT_REASONS[reason]}"
        example = f" (the first is {examples[reason]})" if reason in examples else ""
        advice = f". {ADVICE[reason]}" if reason in ADVICE else ""
        warnings.append(
            f"{count:,} of {total:,} rows {described}{example}; they are left out, and stay in data/clean{advice}"
        )
    return warnings
