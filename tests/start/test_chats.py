"""Chats, tool calls and questions of a model that has a chat template: shown and measured as format and tokenize treat them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.project import ROOT, SHIPPED
from support.sources import folder_model
from support.tickets import Start

from pipeline.chat.dialogue import Dialogue
from pipeline.chat.model_template import load_chat_encoder
from pipeline.chat.row_format import ChatFormat
from pipeline.chat.truncate import encode_fitted_rows
from pipeline.compose.composition import compose_params, parse_params
from pipeline.config.params import Clean, Format
from pipeline.format.rendering import chat_reader_of
from pipeline.records.columns import ColumnMapping
from pipeline.records.tasks import CHAT
from pipeline.start import sample as sample_module
from pipeline.start.lengths import ChatLengths, Lengths
from pipeline.start.model_facts import model_facts
from pipeline.start.sample import Rows, Sample, render_sample

TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": {"who": "Ann"}}}
THOUGHTS_TEMPLATE = """
{%- for message in messages %}
{{- '<|' + message.role + '|>' }}
{%- if message.reasoning_content and loop.last %}{{ '<think>' + message.reasoning_content + '</think>' }}{% endif %}
{{- message.content + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""
Message = dict[str, Any]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str, **keys: Any) -> Message:
    return {"role": "assistant", "content": text, **keys}


def two_turns(number: int) -> list[Message]:
    return [user(f"Why {number}?"), assistant(f"So {number}."), user("Sure?"), assistant("Yes.")]


def call_and_result(number: int) -> list[Message]:
    result = {"role": "tool", "content": "B12", "tool_call_id": "1"}
    return [user(f"Where, {number}?"), assistant("", tool_calls=[CALL]), result, assistant("In B12.")]


def write_chats(path: Path, chats: list[list[Message]], **columns: Any) -> None:
    path.write_text("".join(json.dumps({"messages": chat, **columns}) + "\n" for chat in chats))


def write_rows(path: Path, **columns: str) -> None:
    """Twelve rows; {n} in a cell is the row's number."""
    rows = [{name: cell.replace("{n}", str(n)) for name, cell in columns.items()} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sample_of(folder: Path, chats: list[list[Message]], loss: str = "assistant", tools: Any = None) -> Sample:
    table = pa.table({"messages": [json.dumps(chat) for chat in chats], "tools": [json.dumps(tools)] * len(chats)})
    params = parse_params((SHIPPED / "params.yaml").read_text())
    clean, options = Clean.model_validate(params["clean"]), Format.model_validate(params["format"])
    mapping = ColumnMapping(CHAT, {"messages": "messages", "tools": "tools"}, "set by the test")
    facts = model_facts(folder_model(folder))
    return render_sample(Rows(table, True, None), mapping, clean, options, loss, facts)


def test_chats_are_shown_through_the_models_template(start: Start, write_chat_model: Any) -> None:
    write_chat_model(Path("models/chatty"))
    write_chats(Path("chats.jsonl"), [two_turns(n) for n in range(10)])
    code, output, error = start("chats.jsonl", "--model", "models/chatty", "--yes")
    assert (code, error) == (0, "")
    assert "Rows: rendered by the model's chat template\n" in output
    assert "Chats: 20 turns of the assistant to learn, each ends with <|end|>\n" in output
    assert (
        "Row 0, prompt:\n  | <|user|>Why 0?<|end|><|assistant|>So 0.<|end|><|user|>Sure?<|end|><|assistant|>\n"
        "Row 0, completion (what the model learns to write, as it does 1 earlier turn of the assistant):\n"
        "  | Yes.<|end|>\n"
    ) in output
    assert "will be dropped" not in output


def test_lengths_count_control_tokens_once_and_the_whole_dialogue(start: Start, write_chat_model: Any) -> None:
    write_chat_model(Path("models/chatty"))
    write_chats(Path("chats.jsonl"), [two_turns(n) for n in range(10)])
    _, output, _ = start("chats.jsonl", "--model", "models/chatty", "--yes")
    # 6 + 5 + 5 + 4 letters, and two control tokens for each of the four turns
    assert "tokenize.max_length = 64: the longest row has 28 tokens" in output
    assert "the longest answer has 6 tokens" in output  # "So 0." and its end, which is not the last turn
    assert parse_params(compose_params())["tokenize"]["max_length"] == 64


def test_tool_calls_are_rendered(start: Start, write_chat_model: Any) -> None:
    write_chat_model(Path("models/chatty"))
    write_chats(Path("chats.jsonl"), [call_and_result(n) for n in range(10)], tools=TOOLS)
    code, output, _ = start("chats.jsonl", "--model", "models/chatty", "--yes")
    assert code == 0
    assert (
        '  | <|tool|>find<|user|>Where, 0?<|end|><|assistant|>{"name": "find", "arguments": {"who": "Ann"}}<|end|>'
        "<|tool|>B12<|end|><|assistant|>\n"
    ) in output
    assert "  | In B12.<|end|>\n" in output
    assert "will be dropped" not in output


def test_control_tokens_that_people_wrote_stay_text(write_chat_model: Any, tmp_path: Path) -> None:
    chats = [[user("What is <|end|>?"), assistant("A token.")]]
    sample = sample_of(write_chat_model(tmp_path / "model"), chats)
    assert sample.rows[0].prompt == "<|user|>What is <|end|>?<|end|><|assistant|>"
    assert sample.rendered.lengths.prompts == [len("What is <|end|>?") + 3]
    assert sample.rendered.chat is not None
    assert sample.rendered.chat["rows_with_control_tokens"] == 1


def test_chats_that_the_template_cannot_render_are_counted_with_a_reason(start: Start, write_chat_model: Any) -> None:
    write_chat_model(Path("models/chatty"))
    consecutive = [user("Why?"), assistant("So."), assistant("And so.")]
    orphan = [user("Why?"), {"role": "tool", "content": "B12"}, assistant("So.")]
    write_chats(Path("chats.jsonl"), [*(two_turns(n) for n in range(10)), consecutive, orphan, [user("Hm?")]])
    code, output, _ = start("chats.jsonl", "--model", "models/chatty", "--yes")
    assert code == 0
    assert "Of 13 rows, 3 will be dropped: " in output
    for reason in ("no_answer", "consecutive_assistant_turns", "tool_result_without_call"):
        assert f"1 {reason}" in output
    assert "  1 of 12 rows are dialogues with two turns of the assistant in a row (the first is row 10)\n" in output
    assert "  1 of 12 rows are dialogues with a tool's result that nothing called for (the first is row 11)\n" in output


def test_a_template_error_is_quoted_and_another_template_advised(start: Start, write_chat_model: Any) -> None:
    strict = "{%- if messages | length > 6 %}{{ raise_exception('six at most') }}{% endif %}"
    folder = write_chat_model(Path("models/chatty"))
    template = folder / "chat_template.jinja"
    template.write_text(strict + template.read_text())
    long = [message for n in range(4) for message in two_turns(n)[:2]]
    write_chats(Path("chats.jsonl"), [*(two_turns(n) for n in range(10)), long])
    code, output, _ = start("chats.jsonl", "--model", "models/chatty", "--yes")
    assert code == 0
    assert "dialogues that the chat template refuses (the first is row 10: six at most). Another template may" in output


def test_questions_and_answers_are_chats_of_two_turns(start: Start, write_chat_model: Any) -> None:
    write_chat_model(Path("models/chatty"))
    write_rows(Path("faq.jsonl"), question="Why {n}?", answer="So {n}.")
    code, output, _ = start("faq.jsonl", "--model", "models/chatty", "--yes")
    assert code == 0
    assert "Rows: rendered by the model's chat template\n" in output
    assert "  | <|user|>Why 0?<|end|><|assistant|>\n" in output
    assert "(what the model learns to write):\n  | So 0.<|end|>\n" in output


def test_prompts_without_context_stay_as_they_are(start: Start, write_chat_model: Any) -> None:
    write_chat_model(Path("models/chatty"))
    write_rows(Path("pairs.jsonl"), prompt="Why {n}?", completion=" So {n}.")
    _, output, _ = start("pairs.jsonl", "--model", "models/chatty", "--yes")
    assert "Rows: learned as they are\n" in output
    assert "Row 0, prompt:\n  | Why 0?\nRow 0, completion (what the model learns to write):\n" in output
    write_rows(Path("system.jsonl"), prompt="Why {n}?", completion="So {n}.", system="Be brief.")
    columns = "{prompt: prompt, completion: completion, system: system}"
    _, output, _ = start("system.jsonl", "--model", "models/chatty", "--columns", columns, "--yes")
    assert "Rows: rendered by the model's chat template\n" in output
    assert "  | <|system|>Be brief.<|end|><|user|>Why 0?<|end|><|assistant|>\n" in output


@pytest.mark.parametrize("model", ["nano", "scratch"])
def test_without_a_chat_template_tool_calls_are_dropped_with_advice(start: Start, model: str) -> None:
    write_chats(Path("chats.jsonl"), [*(two_turns(n) for n in range(10)), call_and_result(0)])
    code, output, _ = start("chats.jsonl", "--model", model, "--yes")
    assert code == 0
    assert "Rows: rendered by the prompt template\n" in output
    assert "Of 11 rows, 1 will be dropped: 1 needs_chat_template\n  1 of 11 rows have tool calls or tool" in output
    assert "A chat template can: model.chat_template=chatml\n" in output
    assert "  | ### Question:\n  | Why 0?\n" in output


def test_only_tool_calls_without_a_chat_template_are_an_error_with_advice(start: Start) -> None:
    write_chats(Path("chats.jsonl"), [call_and_result(n) for n in range(10)])
    code, _, error = start("chats.jsonl", "--model", "nano", "--yes")
    assert code == 1
    assert "none of the 10 rows can be learned from (10 needs_chat_template). 10 of 10 rows have tool calls" in error
    assert "model.chat_template=chatml" in error
    assert not Path("conf/data/chats.yaml").exists()


def test_a_chosen_prompt_template_is_used_and_auto_advised(start: Start, write_chat_model: Any) -> None:
    write_chat_model(Path("models/chatty"))
    config = Path("conf/format/default.yaml")
    config.write_text(config.read_text().replace("template: auto", "template: tutorial"))
    write_chats(Path("chats.jsonl"), [*(two_turns(n) for n in range(10)), call_and_result(0)])
    code, output, _ = start("chats.jsonl", "--model", "models/chatty", "--yes")
    assert code == 0
    assert "Rows: rendered by the prompt template\n" in output
    assert "A chat template can: format/template=auto\n" in output


def test_an_unusable_template_is_an_error_and_nothing_is_written(start: Start, write_chat_model: Any) -> None:
    write_chat_model(Path("models/broken"), template="{% for message in messages %}")
    write_chats(Path("chats.jsonl"), [two_turns(n) for n in range(10)])
    before = Path("conf/config.yaml").read_bytes()
    code, _, error = start("chats.jsonl", "--model", "models/broken", "--yes")
    assert code == 1
    assert "the chat template does not compile" in error
    assert (Path("conf/config.yaml").read_bytes(), Path("conf/data/chats.yaml").exists()) == (before, False)


@pytest.mark.parametrize("loss", ["assistant", "last", "full"])
@pytest.mark.parametrize("template", [None, THOUGHTS_TEMPLATE])
def test_lengths_are_those_of_tokenize(write_chat_model: Any, tmp_path: Path, loss: str, template: str | None) -> None:
    folder = write_chat_model(tmp_path / "model")
    if template:
        (folder / "chat_template.jinja").write_text(template)
    thoughts = [user("Why?"), assistant("So.", reasoning_content="Hm"), user("<|end|>?"), assistant("Yes, 東.")]
    chats = [two_turns(1), thoughts] if template else [two_turns(1), thoughts, call_and_result(2)]
    sample = sample_of(folder, chats, loss, None if template else TOOLS)
    row_format = sample.renderer.row_format
    assert isinstance(row_format, ChatFormat)
    reader, encoder = chat_reader_of(row_format, None, folder), load_chat_encoder(row_format, folder)
    tools = None if template else json.dumps(TOOLS)
    dialogues = [reader.read({"id": n, "messages": chat, "tools": tools}, CHAT) for n, chat in enumerate(chats)]
    fitted = [encode_fitted_rows(encoder, d, loss, 10_000) for d in dialogues if isinstance(d, Dialogue)]
    rows = [row.row for rows in fitted for row in rows]
    lengths = sample.rendered.lengths
    assert lengths.prompts == [row.prompt_tokens for row in rows]
    assert lengths.totals.tolist() == [len(row.input_ids) for row in rows]
    assert lengths.chat is not None
    assert lengths.chat.rows_per_chat == len(rows) / len(chats)
    assert (len(rows) > len(chats)) == (template is not None and loss == "assistant")
    assert len(sample.rows) == len(chats)


def test_a_dialogue_that_becomes_several_rows_is_shown_by_its_last(write_chat_model: Any, tmp_path: Path) -> None:
    folder = write_chat_model(tmp_path / "model", THOUGHTS_TEMPLATE)
    chat = [user("Why?"), assistant("So.", reasoning_content="Hm"), user("Sure?"), assistant("Yes.")]
    (row,) = sample_of(folder, [chat]).rows
    assert row.prompt == "<|user|>Why?<|end|><|assistant|>So.<|end|><|user|>Sure?<|end|><|assistant|>"
    assert (row.completion, row.earlier_turns) == ("Yes.<|end|>", 0)


def test_many_chats_are_sampled_evenly(write_chat_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_module, "MAX_CHATS", 5)
    sample = sample_of(write_chat_model(tmp_path / "model"), [two_turns(n) for n in range(21)])
    assert (sample.read, len(sample.rows)) == (5, 5)
    assert sample.rows[-1].prompt.startswith("<|user|>Why 20?")


def test_rendering_imports_no_torch(write_chat_model: Any, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from test_chats import sample_of, two_turns\n"
        f"assert sample_of(Path({str(write_chat_model(tmp_path / 'model'))!r}), [two_turns(1)]).rows\n"
        "assert 'torch' not in sys.modules"
    )
    paths = [str(Path(__file__).parent), str(ROOT / "tests"), str(ROOT)]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})


def test_a_long_answer_before_the_last_turn_loses_its_end() -> None:
    lengths = Lengths([200, 20], [10, 10], is_estimate=False, chat=ChatLengths([100, 10], rows_per_chat=1.5))
    assert (lengths.longest_row, lengths.longest_answer) == (210, 100)
    assert (lengths.too_long(100), lengths.unended(100), lengths.unended(210)) == (1, 1, 0)
    assert lengths.tokens_per_record == 180
