"""Templates: of the prompt, which training and evaluation share, and of texts that are made of several columns."""

from collections.abc import Mapping
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


def pieces(template: str) -> list[tuple[str, str | None]]:
    """Literal texts, each with the placeholder that follows it; ValueError if the braces do not match.

    >>> pieces("Q: {Title} ({Body})")
    [('Q: ', 'Title'), (' (', 'Body'), (')', None)]
    """
    found = []
    for literal, name, form, conversion in Formatter().parse(template):
        if name == "" or form or conversion:
            raise ValueError(
                f"a placeholder holds the name of a column alone, not {name + ':' * bool(form) + (form or '')!r}"
            )
        found.append((literal, name))
    return found


def column_faults(columns: Mapping[str, str]) -> list[str]:
    """What keeps values of data.columns that hold braces from being templates of the source's columns."""
    faults = []
    for name, value in columns.items():
        try:
            has_column = any(field is not None for _, field in pieces(value))
        except ValueError as error:
            faults.append(
                f"columns.{name}: {value!r} is not a template: {error}; write {{{{ and }}}} for literal braces"
            )
        else:
            if ("{" in value or "}" in value) and not has_column:
                faults.append(f"columns.{name}: {value!r} names no column; expected some, such as {{Title}}")
    return faults


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
