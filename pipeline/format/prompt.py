"""Renders the prompt template. Training and evaluation read the same rendered prompts."""

from pipeline.records.tasks import Turn


def render_prompt(turns: list[Turn], prompt: str, completion: str) -> str:
    """The prompt for the turns of a conversation; the last turn is the user's question to answer.

    prompt, completion: the templates, with {question} and {answer}.

    >>> render_prompt([Turn("user", "Is it flu?")], "Q: {question}\\nA:", " {answer}")
    'Q: Is it flu?\\nA:'

    Earlier turns are rendered as they were for training: prompt, completion, line break.
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
