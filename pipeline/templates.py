"""The prompt template, which training and evaluation share: question → prompt, answer → completion."""

from string import Formatter

from pipeline.tasks import Turn


def template_faults(prompt: str, completion: str) -> list[str]:
    """What keeps the two texts from being a template; empty if nothing does."""
    return _faults("prompt", prompt, "question") + _faults("completion", completion, "answer")


def _faults(name: str, template: str, field: str) -> list[str]:
    try:
        parsed = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        return [f"{name} {template!r} is not a template: {error}; write {{{{ and }}}} for literal braces"]
    return (
        []
        if parsed == [(field, "", None)]
        else [f"{name} {template!r} must hold {{{field}}} once and no other placeholder"]
    )


def render(turns: list[Turn], prompt: str, completion: str) -> str:
    """The prompt for a conversation's turns, the last of which is the user's and is to be answered.

    >>> render([Turn("user", "Is it flu?")], "Q: {question}\\nA:", " {answer}")
    'Q: Is it flu?\\nA:'

    Earlier turns are rendered as the model saw them when it learned: prompt, completion, next line.
    """
    text = ""
    for turn in turns:
        if turn.role == "system":
            text += turn.content + "\n\n"
        elif turn.role == "user":
            text += prompt.format(question=turn.content)
        else:
            text += completion.format(answer=turn.content) + "\n"
    return text
