"""A learned turn of a dialogue as texts: the prompt that a served model is asked with, and the answer that it generates.

The prompt is the rendering of the messages before the turn, with the generation prompt; prompt and answer together are the
rendering of the messages up to the turn. Some templates keep to that only roughly:

- The generation prompt opens a thought that the rendered turn does not have (DeepSeek), or spaces it otherwise (Nemotron): the
  thought is closed at the start of the answer.
- A turn ends where the next one opens (GLM ends an answer by <|user|>, where it stops generating): that token is appended.

Where the prompt still is no start of the rendering, the turn is learned as rendered and counted (`is_prompted`).
"""

import re
from collections.abc import Collection
from typing import NamedTuple

from pipeline.chat.control_tokens import REASONING_KEYS, THINKING_TAGS, ControlTokens
from pipeline.chat.dialogue import Dialogue
from pipeline.chat.template import ChatTemplate, RenderingError, Span

OPEN, CLOSE = THINKING_TAGS
# What looks like a control token, and is spelled letter by letter if the tokenizer does not have it.
TOKEN_SHAPE = re.compile(r"<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|<(?:start|end)_of_turn>")
EMPTY_THOUGHT = f"\n{CLOSE}\n\n"  # after "<think>\n", as Qwen and DeepSeek write a thought that is empty
NEXT_MESSAGES = {
    "user": {"role": "user", "content": "?"},
    "tool": {"role": "tool", "content": "?", "name": "find", "tool_call_id": "call_0001"},
}


class TurnText(NamedTuple):
    """A learned turn. `prompt + answer` is the row to learn it from, if it is learned alone."""

    message: int  # its index
    prompt: str
    answer: str  # the rest of the row
    end: int  # characters of the answer through the last token that ends the turn; 0 if none does
    end_tokens: tuple[str, ...]  # the control tokens that end the turn
    start: int  # where its own text starts, the generation prompt included; only for templates with generation marks
    is_rendered: bool  # whether prompt + answer is what the template renders
    is_prompted: bool  # whether the row starts with the generation prompt

    @property
    def text(self) -> str:
        return self.prompt + self.answer

    @property
    def span(self) -> Span:
        """The characters of `text` that are generated."""
        return Span(len(self.prompt), len(self.prompt) + self.end)


def render_turn(
    template: ChatTemplate, tokens: ControlTokens, dialogue: Dialogue, index: int, stop_tokens: Collection[str]
) -> TurnText:
    """The turn of the message `index`. dialogue: escaped. stop_tokens: those at which the model stops generating.

    Raises RenderingError.
    """
    before, tools = dialogue.messages[:index], dialogue.tools
    prompt = template.render(before, tools, add_generation_prompt=True)
    upto = template.render(dialogue.messages[: index + 1], tools)
    answer, is_prompted = answer_after(prompt, upto)
    if not is_prompted:
        prompt = prompt[: common_length(prompt, upto)]
    is_rendered = prompt + answer == upto
    end, end_tokens = find_end(tokens, answer, dialogue.messages[index])
    if not set(end_tokens) & set(stop_tokens):
        appended = _next_opener(template, tokens, dialogue, index)
        if appended in stop_tokens:
            answer, end_tokens = answer + appended, (appended,)
            end = len(answer)
    start = len(prompt)
    if template.has_generation_marks and before:
        start = common_length(template.render(before, tools), prompt)
    return TurnText(index, prompt, answer, end, end_tokens, start, is_rendered, is_prompted)


def answer_after(prompt: str, upto: str) -> tuple[str, bool]:
    r"""(what follows the prompt in the rendering up to the turn, whether the prompt can precede it).

    >>> answer_after("A:", "A:Rest.</s>"), answer_after("A:<think>\n", "A:Rest.</s>")
    (('Rest.</s>', True), ('\n</think>\n\nRest.</s>', True))
    >>> answer_after("A:<think>\n", "A:<think></think>Rest.</s>"), answer_after("B:", "A:Rest.</s>")
    (('</think>Rest.</s>', True), ('A:Rest.</s>', False))
    >>> answer_after("A:<think>\n", "A:<call></s>")
    ('\n</think>\n\n<call></s>', True)
    """
    if upto.startswith(prompt):
        return upto[len(prompt) :], True
    shared = common_length(prompt, upto)
    opening = prompt.rfind(OPEN)
    if 0 <= opening < shared < opening + len(OPEN):  # the turn begins by another token that starts with "<"
        shared = opening
    extra, rest = prompt[shared:], upto[shared:]
    if extra.isspace():
        return rest, True
    if extra.strip() == OPEN and CLOSE not in rest:
        return EMPTY_THOUGHT + rest, True
    return rest, False


def common_length(one: str, other: str) -> int:
    """The number of characters that both texts begin with.

    >>> common_length("A:Rest", "A:Red")
    4
    """
    differing = (place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    return next(differing, min(len(one), len(other)))


def find_end(tokens: ControlTokens, answer: str, message: dict[str, object]) -> tuple[int, tuple[str, ...]]:
    """(the end of the answer's last control token, the control tokens that end it); (0, ()) if text follows them or none does."""
    found = tokens.find(answer)
    if not found or answer[found[-1].end() :].strip():
        return 0, ()
    if message.get("tool_calls"):
        return found[-1].end(), (found[-1][0],)
    content = str(message["content"] or "").strip()
    position = answer.rfind(content) + len(content) if content in answer else found[-1].start()
    tail = [match for match in found if match.start() >= position]
    return (tail[-1].end(), tuple(match[0] for match in tail)) if tail else (0, ())


def _next_opener(template: ChatTemplate, tokens: ControlTokens, dialogue: Dialogue, index: int) -> str:
    """The control token that opens the turn after this one; "" if none does."""
    turn = {key: value for key, value in dialogue.messages[index].items() if key not in REASONING_KEYS}
    messages = [*dialogue.messages[:index], turn]
    try:
        upto = template.render(messages, dialogue.tools)
        text = template.render([*messages, NEXT_MESSAGES["tool" if turn.get("tool_calls") else "user"]], dialogue.tools)
    except RenderingError:
        return ""
    following = text.removeprefix(upto).lstrip() if text.startswith(upto) else ""
    first = next(iter(tokens.find(following)), None)
    return first[0] if first and first.start() == 0 else ""
