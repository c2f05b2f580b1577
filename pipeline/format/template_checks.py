"""Checks of a chat template before it renders the rows, and of each dialogue.

What a template cannot render is never lost unseen: it is an error, or the dialogue is left out with a reason.
"""

import json
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pipeline.chat.control_tokens import REASONING_KEYS, THINKING_TAGS, ControlTokens
from pipeline.chat.dialogue import Dialogue, learned_turns, structure_error
from pipeline.chat.rows import RowText, render_rows
from pipeline.chat.template import ChatTemplate, RenderingError, required_variables
from pipeline.chat.traits import has_malformed_calls
from pipeline.chat.turns import TOKEN_SHAPE
from pipeline.errors import DataError

MAX_SECONDS = 20.0  # for one dialogue, which takes a thousandth
SAMPLE = ("q1vx", "a1kd", "q2zp", "a2ht", "q3mw")  # texts that no template writes


class CheckedDialogue(NamedTuple):
    """What a template makes of a dialogue, or the reason why the dialogue is left out."""

    rows: list[RowText]
    control_tokens: int = 0  # in its texts
    thoughts_left_out: bool = False  # whether a learned turn has a thought that the template does not render
    tools_left_out: bool = False  # whether the template does not render the list of tools
    reason: str | None = None
    detail: str = ""


def require_usable_template(template: ChatTemplate, tokens: ControlTokens, name: str) -> None:
    """Raise DataError if the template cannot render a plain dialogue, or not as it must. name: what messages call it."""
    known = {*template.kwargs, *template.special_tokens}
    missing = sorted(v for v in required_variables(template.source) - known if not v.endswith("_token"))
    if missing:
        raise DataError(
            f"{name} needs {', '.join(missing)}, which it is not given. Set it: "
            f"+format.template.chat_template_kwargs.{missing[0]}=…"
        )
    roles = ("user", "assistant", "user", "assistant", "user")
    messages = [{"role": role, "content": text} for role, text in zip(roles, SAMPLE, strict=True)]
    try:
        with limit_time(MAX_SECONDS):
            text = template.render(messages, add_generation_prompt=True)
    except TimeoutError:
        raise DataError(f"{name} did not render three short turns in {MAX_SECONDS:g} seconds: it loops") from None
    except RenderingError as error:
        hint = re.search(r"'(\w+)' is undefined", str(error))
        advice = f". Set it: +format.template.chat_template_kwargs.{hint[1]}=…" if hint else ""
        raise DataError(f"{name} cannot render a question and an answer: {error}{advice}") from None
    counts = {message["content"]: (message["role"], text.count(message["content"])) for message in messages}
    if wrong := [(role, count) for role, count in counts.values() if count != 1]:
        role, count = wrong[0]
        raise DataError(f"{name} renders a text of the {role} {count} times; expected once")
    if spelled := sorted({token for token in TOKEN_SHAPE.findall(text) if token not in tokens.ids}):
        raise DataError(
            f"{name} writes {', '.join(spelled)}, which the model's tokenizer does not have as a token and would spell letter by "
            "letter. Add the template to the model, with its tokens: model.chat_template=chatml, or the path of the template"
        )


class _TimeIsUp(BaseException):
    """Not an Exception, which the body may catch."""


@contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the body after that many seconds: templates can loop. Only in the main thread of a process."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise _TimeIsUp

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TimeIsUp:
        raise TimeoutError from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def check_dialogue(
    template: ChatTemplate, tokens: ControlTokens, dialogue: Dialogue, stop_tokens: list[str]
) -> CheckedDialogue:
    """Render the dialogue and see that nothing of it is missing. Raises MarksError."""
    if reason := structure_error(dialogue.messages):
        return CheckedDialogue([], reason=reason)
    if has_malformed_calls(dialogue):
        return CheckedDialogue([], reason="malformed_tool_call")
    escaped = tokens.escape(dialogue)
    learned = learned_turns(dialogue.messages, "assistant")
    try:
        with limit_time(MAX_SECONDS):
            rows = render_rows(template, tokens, escaped.dialogue, learned, stop_tokens)
    except TimeoutError:
        return CheckedDialogue([], reason="template_error", detail=f"no result in {MAX_SECONDS:g} seconds")
    except RenderingError as error:
        return CheckedDialogue([], reason="template_error", detail=str(error))
    if missing := missing_text(escaped.dialogue, rows[-1].text):
        return CheckedDialogue([], reason="left_out_by_template", detail=missing)
    thoughts = any(
        _loses_thought(escaped.dialogue.messages[turn.message], turn.answer) for row in rows for turn in row.turns
    )
    return CheckedDialogue(rows, escaped.tokens, thoughts, _loses_tools(template, escaped.dialogue))


def missing_text(dialogue: Dialogue, text: str) -> str:
    """What of the messages is not in a rendered text, in their order, as "role: text"; "" if nothing is.

    Thoughts may be missing: templates drop them from earlier turns, in the content of a turn, too.
    """
    position = 0
    for message in dialogue.messages:
        content = _without_thought(message).strip()
        found = _find(text, content, position)
        if found is None:
            return f"{message['role']}: {content}"
        position = found
        for call in message.get("tool_calls") or []:
            if call["function"]["name"] not in text:
                return f"{message['role']}: the call of {call['function']['name']}"
    return ""


def _find(text: str, content: str, position: int) -> int | None:
    """The end of the content in the text from a position on, as it is or in JSON; None if it is not there."""
    for form in (content, _in_json(content)):
        start = text.find(form, position)
        if start >= 0:
            return start + len(form)
    # A system prompt may be rendered after other texts, a tool's result with other spaces.
    return position if content in text or "".join(content.split()) in "".join(text.split()) else None


def _in_json(content: str) -> str:
    return json.dumps(content, ensure_ascii=False)[1:-1]


def _without_thought(message: dict[str, Any]) -> str:
    content = str(message["content"] or "")
    return content.rpartition(THINKING_TAGS[1])[2] if message["role"] == "assistant" else content


def _loses_tools(template: ChatTemplate, dialogue: Dialogue) -> bool:
    """Whether the text is the same without the list of tools."""
    if not dialogue.tools:
        return False
    try:
        return template.render(dialogue.messages, dialogue.tools) == template.render(dialogue.messages)
    except RenderingError:  # of calls without tools
        return False


def _loses_thought(message: dict[str, Any], answer: str) -> bool:
    thought = next((message[key] for key in REASONING_KEYS if message.get(key)), None)
    return isinstance(thought, str) and bool(thought.strip()) and thought.strip() not in answer
