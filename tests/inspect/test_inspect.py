"""python -m pipeline.inspect: rows as the model sees them, with the learned tokens marked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.chats import CHATML, END, THINKING, assistant, byte_tokenizer, chat_folder, user
from support.commands import run_main
from support.tokenizing import tokenize_options

from pipeline.chat.row_format import ChatFormat
from pipeline.core.files import write_jsonl
from pipeline.core.paths import BASE, FORMATTED, TOKENIZED
from pipeline.inspect import cli
from pipeline.tokenize.examples import example_rows
from pipeline.tokenize.masked_text import Segment, segments_of
from pipeline.tokenize.row_tokenizer import load_row_tokenizer
from pipeline.tokenize.stage import tokenize_files

Inspect = Callable[..., tuple[int, str, str]]
TOKENIZER = byte_tokenizer()


def write_rows(template: str, rows: list[dict[str, Any]], **options: Any) -> None:
    """Tokenize the rows in the working directory."""
    chat_folder(BASE, template)
    FORMATTED.mkdir(parents=True, exist_ok=True)
    sources = {name: FORMATTED / f"{name}.jsonl" for name in ("train", "validation")}
    write_jsonl(sources["train"], rows)
    write_jsonl(sources["validation"], [{**rows[0], "id": 100}])
    write_jsonl(FORMATTED / "test.jsonl", [{**rows[0], "id": 200}])
    write_jsonl(FORMATTED / "dropped.jsonl", [{"id": 300, "reason": "template_error", "split": None}])
    tokenizer = load_row_tokenizer(ChatFormat(source=template, stop_tokens=[END], end_tokens=[END]), BASE)
    tokenize_files(sources, TOKENIZED, tokenizer, tokenize_options(**options))


ROWS = [
    {"id": number, "messages": [user(f"Is it {number}?"), assistant("No."), user("What\nthen?"), assistant("Fünf.")]}
    for number in range(5)
]


@pytest.fixture
def inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inspect:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return lambda *arguments: run_main(cli.main, ["inspect", *arguments], monkeypatch, capsys)


def test_learned_text_and_line_breaks_are_marked(inspect: Inspect) -> None:
    write_rows(CHATML, ROWS)
    code, output, _ = inspect("--rows", "1")
    assert (code, output) == (
        0,
        "Learned text stands between ⟦ and ⟧; ↵ is a line break.\n\n"
        "Row 0 of train: 69 tokens, 11 learned\n"
        "<|im_start|>user↵\nIs it 0?<|im_end|>↵\n<|im_start|>assistant↵\n⟦No.<|im_end|>⟧↵\n"
        "<|im_start|>user↵\nWhat↵\nthen?<|im_end|>↵\n<|im_start|>assistant↵\n⟦Fünf.<|im_end|>⟧↵\n\n",
    )
    assert inspect()[1].count("Row ") == 3
    assert inspect("--split", "validation")[1].count("Row 100 of validation") == 1


def test_colors_are_for_terminals_and_on_request(inspect: Inspect, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(CHATML, ROWS)
    assert "\x1b" not in inspect()[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "⟦\x1b[32mNo.\x1b[0m\x1b[32m\x1b[1m<|im_end|>\x1b[0m⟧" in inspect()[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in inspect()[1]


def test_a_dialogue_of_several_rows_is_shown_whole(inspect: Inspect) -> None:
    write_rows(THINKING, ROWS)
    output = inspect("--row", "3")[1]
    assert "Row 3 of train (1 of 2 rows of this dialogue)" in output
    assert "Row 3 of train (2 of 2 rows of this dialogue)" in output
    assert output.count("⟦<think></think>") == 2


def test_truncation_is_said(inspect: Inspect) -> None:
    write_rows(CHATML, ROWS, max_length=60)
    assert "dropped by truncation" in inspect("--row", "1")[1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("100", ""),
        ("200", "it is a test row, see data/predictions"),
        ("300", "format left it out (template_error; see data/formatted/dropped.jsonl)"),
        ("400", "clean left it out (data/clean/dropped.parquet), or the source has no such row"),
    ],
)
def test_a_row_that_was_not_tokenized_is_located(inspect: Inspect, row: str, message: str) -> None:
    write_rows(CHATML, ROWS)
    code, _, error = inspect("--row", row)
    assert (code, message in error) == (int(bool(message)), True)


def test_without_tokenized_rows_the_command_that_writes_them_is_named(inspect: Inspect) -> None:
    code, _, error = inspect()
    assert code == 1
    assert "data/tokenized/train.parquet does not exist" in error
    assert "dvc repro tokenize" in error


def test_escape_sequences_of_the_data_are_shown(inspect: Inspect) -> None:
    write_rows(CHATML, [{"id": 0, "messages": [user("\x1b[31mred"), assistant("No.")]}])
    assert "\\x1b[31mred" in inspect()[1]


@given(st.text(max_size=30), st.lists(st.booleans(), min_size=40, max_size=40))
def test_segments_hold_every_token_once(text: str, mask: list[bool]) -> None:
    ids = TOKENIZER.encode(f"a<|im_start|>{text}<|im_end|>", add_special_tokens=False).ids[:40]
    labels = [token if is_learned else -100 for token, is_learned in zip(ids, mask, strict=False)]
    segments = segments_of(TOKENIZER, ids, labels)
    if not any(mask[: len(ids)]):
        assert "".join(segment.text for segment in segments) == TOKENIZER.decode(ids, skip_special_tokens=False)
    assert all(segment.text == "<|im_start|>" for segment in segments if segment.is_special and "start" in segment.text)


def test_characters_of_several_tokens_are_whole() -> None:
    ids = TOKENIZER.encode("é<|im_end|>流", add_special_tokens=False).ids
    assert segments_of(TOKENIZER, ids, [-100] * 2 + ids[2:]) == [
        Segment("é", False, False),
        Segment("<|im_end|>", True, True),
        Segment("流", True, False),
    ]


def test_the_report_gets_the_first_middle_and_last_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(CHATML, ROWS)
    examples = example_rows(TOKENIZED / "train.parquet", TOKENIZER)
    assert [(row["id"], row["tokens"], row["learned_tokens"]) for row in examples] == [
        (0, 69, 11),
        (2, 69, 11),
        (4, 69, 11),
    ]
    learned = [part["text"] for part in examples[0]["parts"][0] if part["learned"]]
    assert learned == ["No.", "<|im_end|>", "Fünf.", "<|im_end|>"]
    long = [{"id": 0, "messages": [user("a" * 1000), assistant("b" * 1000)]}]
    write_rows(CHATML, long, max_length=4000)
    (row,) = example_rows(TOKENIZED / "train.parquet", TOKENIZER)
    assert len(row["parts"]) == 2
    assert sum(len(part["text"]) for part in row["parts"][1]) < 250
