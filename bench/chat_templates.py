"""Compares our labels of dialogues with those of TRL, for each chat template that TRL ships.

    python -m bench.chat_templates      prints the table of docs/chat_templates.md; needs trl (a development dependency)

TRL learns the tokens that a template marks as generated, after it has replaced known templates by versions with marks
(`get_training_chat_template`). Each template is put on a small tokenizer that has the control tokens that it writes.

- equal: our only row has the token ids of TRL, and the same of them are learned
- same text: each turn learns the text that TRL learns of it, apart from what asks for the turn, with other tokens before it.
  That is so if a dialogue becomes a row a turn, or TRL's version renders it otherwise than the template itself
- closed: as same text, but the template asks by opening a thought, which our rows close
"""

import re
from collections import Counter
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import TemplateError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pipeline.chat.control_tokens import THINKING_TAGS, ControlTokens
from pipeline.chat.dialogue import Dialogue, learned_turns
from pipeline.chat.encoder import ChatEncoder, ChatRow
from pipeline.chat.rows import MarksError
from pipeline.chat.template import ChatTemplate, RenderingError
from pipeline.chat.traits import TOOLS, find_traits, shape_dialogue
from pipeline.errors import DataError
from pipeline.format.template_checks import check_dialogue, require_usable_template
from pipeline.modeling.encoding import Encoder

BOS, EOS = "<s>", "</s>"
SPECIAL_TOKENS = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS}
CONTROL = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|<\|\w+>|<\w+\|>|<(?:start|end)_of_\w+>|</?(?:s|think|tool_call)>"
)
STOP_TOKENS = (EOS, "<|user|>", "<|observation|>")  # GLM's models stop where the next turn opens
FUNCTION = TOOLS[0]["function"]
CALL = {"id": "call00001", "type": "function", "function": {"name": FUNCTION["name"], "arguments": {"room": 7}}}


def _turns(*texts: str, **keys: Any) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [
        {"role": roles[place % 2], "content": text, **(keys if place % 2 else {})} for place, text in enumerate(texts)
    ]


SCENARIOS: dict[str, Dialogue] = {
    "one turn": Dialogue(0, _turns("Is it flu?", "No."), []),
    "three turns": Dialogue(1, _turns("Is it flu?", "No.", "What then?", "A cold.", "Sure?", "Quite sure."), []),
    "system": Dialogue(2, [{"role": "system", "content": "Be brief."}, *_turns("Is it flu?", "No.")], []),
    "tool call": Dialogue(
        3,
        [
            {"role": "user", "content": "Where is room 7?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "name": FUNCTION["name"], "tool_call_id": CALL["id"], "content": "floor 1"},
            {"role": "assistant", "content": "On floor 1."},
        ],
        TOOLS,
    ),
    "thinking": Dialogue(
        4, _turns("Is it flu?", "No.", "Then?", "A cold.", reasoning_content="There is no fever."), []
    ),
}


class Cell(NamedTuple):
    """The comparison of one template and one dialogue."""

    result: str  # equal, same text, closed, refused or different
    rows: int = 1
    detail: str = ""

    def __str__(self) -> str:
        return (
            self.result + (f", {self.rows} rows" if self.rows > 1 else "") + (f": {self.detail}" if self.detail else "")
        )


class Setup(NamedTuple):
    """A template on a tokenizer that has its control tokens."""

    encoder: ChatEncoder
    tokenizer: PreTrainedTokenizerFast
    marked: str | None  # TRL's version, with marks; None if TRL has none


def read_templates() -> dict[str, str]:
    """The chat templates of the installed TRL, by name."""
    folder = files("trl") / "chat_templates"
    return {
        entry.name.removesuffix(".jinja"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".jinja")
    }


def set_up(source: str) -> Setup:
    """Put the template on a byte-level tokenizer with the control tokens that it writes."""
    from trl.chat_template_utils import get_training_chat_template

    alphabet = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = sorted({BOS, EOS, *CONTROL.findall(source)})
    tokenizer.add_special_tokens(
        [AddedToken(name, special=name not in THINKING_TAGS, normalized=False) for name in names]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=source, **SPECIAL_TOKENS)
    try:
        marked = get_training_chat_template(fast)
    except (ValueError, TypeError):  # TRL does not know the template
        marked = None
    template = ChatTemplate(source, special_tokens=SPECIAL_TOKENS)
    literal = Tokenizer.from_str(tokenizer.to_str())
    literal.encode_special_tokens = True
    eos_id = literal.token_to_id(EOS)
    encoder = ChatEncoder(Encoder(literal, (), eos_id, eos_id), template, ControlTokens(literal), STOP_TOKENS)
    return Setup(encoder, fast, source if template.has_generation_marks else marked)


def compare(setup: Setup, dialogue: Dialogue) -> Cell:
    """Compare our labels with TRL's."""
    template = setup.encoder.template
    try:
        require_usable_template(template, setup.encoder.tokens, "it")
    except DataError as error:
        return Cell("refused", detail=re.split("[:;]", str(error).removeprefix("it "))[0])
    shaped = shape_dialogue(dialogue, find_traits(template))
    try:
        checked = check_dialogue(template, setup.encoder.tokens, shaped, [*STOP_TOKENS])
    except MarksError:
        return Cell("refused", detail="its marks leave out the end of a turn")
    if checked.reason:
        return Cell("refused", detail=checked.reason.replace("_", " "))
    rows = setup.encoder.encode_rows(shaped, learned_turns(shaped.messages, "assistant"))
    if setup.marked is None:
        return Cell("no marks to compare with", len(rows))
    try:
        return compare_rows(setup, dialogue, shaped, rows)
    except (TemplateError, RenderingError):
        return Cell("TRL cannot render it", len(rows))


def compare_rows(setup: Setup, dialogue: Dialogue, shaped: Dialogue, rows: list[ChatRow]) -> Cell:
    """Compare our rows with the mask of TRL's version. shaped: the dialogue in the form of the template itself."""
    marked = ChatTemplate(setup.marked or "", special_tokens=SPECIAL_TOKENS)
    given = shaped if setup.marked == setup.encoder.template.source else shape_dialogue(dialogue, find_traits(marked))
    options = {"tools": given.tools or None, "chat_template": setup.marked}
    masked = setup.tokenizer.apply_chat_template(
        given.messages, return_dict=True, return_assistant_tokens_mask=True, **options
    )
    mask = [int(label >= 0) for label in rows[0].labels]
    if len(rows) == 1 and (rows[0].input_ids, mask) == (masked["input_ids"], masked["assistant_masks"]):
        return Cell("equal")
    ours = learned_texts(setup, rows)
    theirs = [marked_text(marked, given.until(turn + 1)) for row in rows for turn in row.turns]
    if len(rows) == 1:  # the texts of its turns stand side by side
        ours, theirs = ["".join(ours)], ["".join(theirs)]
    if all(learned.endswith(text) or text.endswith(learned) for learned, text in zip(ours, theirs, strict=True)):
        return Cell("same text", len(rows))
    if all(_same_after_thought(learned, text) for learned, text in zip(ours, theirs, strict=True)):
        return Cell("closed", len(rows))
    return Cell("different", len(rows), f"{ours} instead of {theirs}")


def learned_texts(setup: Setup, rows: list[ChatRow]) -> list[str]:
    """The learned text of each row, without spaces."""
    texts = [
        setup.encoder.tokenizer.decode([label for label in row.labels if label >= 0], skip_special_tokens=False)
        for row in rows
    ]
    return ["".join(text.split()) for text in texts]


def marked_text(template: ChatTemplate, dialogue: Dialogue) -> str:
    """The text that the template marks of the dialogue's last turn, without spaces and what asks for the turn."""
    text, marks = template.render_marked(dialogue.messages, dialogue.tools)
    before = dialogue.until(len(dialogue.messages) - 1)
    asked = template.render(before.messages, before.tools, add_generation_prompt=True)
    start = len(asked) if text.startswith(asked) else len(template.render(before.messages, before.tools))
    return "".join("".join(text[max(mark.start, start) : max(mark.end, start)] for mark in marks).split())


def _same_after_thought(learned: str, text: str) -> bool:
    """Whether both end with the same answer, after a thought or what asks for the turn."""
    answer = learned.rpartition(THINKING_TAGS[1])[2]
    return answer != "" and (text.endswith(answer) or answer.endswith(text))


def main() -> None:
    print("| template |", " | ".join(SCENARIOS), "|")
    print("|---|" + "---|" * len(SCENARIOS))
    results = Counter[str]()
    for name, source in read_templates().items():
        setup = set_up(source)
        cells = [compare(setup, dialogue) for dialogue in SCENARIOS.values()]
        results.update(cell.result for cell in cells)
        print(f"| {name} |", " | ".join(str(cell).replace("|", "\\|") for cell in cells), "|")
    print("\n" + ", ".join(f"{count} {result}" for result, count in results.most_common()))


if __name__ == "__main__":
    main()
