"""The prompt template, rendered: training and evaluation share it."""

from pipeline.records.tasks import Turn


def render_prompt(turns: list[Turn], prompt: str, completion: str) -> str:
    """The prompt for a conversation's turns, the last of which is the user's and is to be answered.

    >>> render_prompt([Turn("user", "Is it flu?")], "Q: {question}\\nA:", " {answer}")
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
