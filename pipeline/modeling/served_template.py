"""The chat template that is saved with the fine-tuned model, so that servers ask it as it was trained.

For rows of messages it is the template that rendered them, unchanged. For rows of prompt and completion it is one that renders
messages as the prompt template does.
"""

import json
from typing import Any

from pipeline.chat.row_format import ChatFormat, TextFormat


def served_template(row_format: TextFormat | ChatFormat, start_tokens: str, eos_token: str) -> str | None:
    """The chat template to save; None for plain text, which is no answer to anything.

    start_tokens: those that open each row, such as <s>.
    """
    if isinstance(row_format, ChatFormat):
        return with_defaults(row_format.source, row_format.chat_template_kwargs)
    if row_format.prompt is None or row_format.completion is None:
        return None
    return text_template(row_format.prompt, row_format.completion, start_tokens, eos_token)


def served_tool_template(row_format: TextFormat | ChatFormat) -> str | None:
    """The chat template to save for requests with tools; None if that is `served_template`, too."""
    if isinstance(row_format, TextFormat) or row_format.tool_source is None:
        return None
    return with_defaults(row_format.tool_source, row_format.chat_template_kwargs)


def with_defaults(source: str, kwargs: dict[str, Any]) -> str:
    """The template with `kwargs` as defaults of its variables, which a request can still set.

    >>> with_defaults("{{ x }}", {"x": False})
    '{%- if x is not defined %}{%- set x = false %}{%- endif %}{{ x }}'
    """
    return (
        "".join(
            f"{{%- if {name} is not defined %}}{{%- set {name} = {_jinja_literal(value)} %}}{{%- endif %}}"
            for name, value in kwargs.items()
        )
        + source
    )


def _jinja_literal(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return "none" if value is None else text


def text_template(prompt: str, completion: str, start_tokens: str, eos_token: str) -> str:
    """A chat template that renders messages as a prompt template does (pipeline/format/prompt.py).

    prompt, completion: the templates, with {question} and {answer}. The last answer ends with `eos_token`.
    """
    question_parts, answer_parts = (
        [part.replace("{{", "{").replace("}}", "}") for part in text.split(placeholder)]
        for text, placeholder in ((prompt, "{question}"), (completion, "{answer}"))
    )
    question, answer = (
        " + ".join([_literal(parts[0]), "message['content']", _literal(parts[1])])
        for parts in (question_parts, answer_parts)
    )
    return (
        f"{{{{- {_literal(start_tokens)} }}}}"
        "{%- for message in messages %}"
        "{%- if message['role'] == 'system' %}"
        "{{- message['content'] + '\\n\\n' }}"
        "{%- elif message['role'] == 'user' %}"
        f"{{{{- {question} }}}}"
        "{%- elif message['role'] == 'assistant' %}"
        f"{{%- generation %}}{{{{- {answer} + ({_literal(eos_token)} if loop.last else '') }}}}{{%- endgeneration %}}"
        "{%- if not loop.last %}{{- '\\n' }}{%- endif %}"
        "{%- else %}"
        "{{- raise_exception('This model knows the roles system, user and assistant, not ' + message['role']) }}"
        "{%- endif %}"
        "{%- endfor %}"
    )


def _literal(text: str) -> str:
    r"""A text as a Jinja literal.

    >>> _literal("it's\n")
    "'it\\'s\\n'"
    """
    escaped = (
        text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return f"'{escaped}'"
