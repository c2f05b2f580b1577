"""Where rows begin and answers end: the gates find what is wrong on the ids and labels alone, whatever made them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.chats import (
    BOS,
    CHATML,
    END,
    MARKED_CHATML,
    TWO_TURNS,
    byte_tokenizer,
    chat_folder,
)
from support.tokenizing import tokenize_options

from pipeline.chat import encoder as encoder_module
from pipeline.chat.row_format import ChatFormat
from pipeline.core.files import write_jsonl
from pipeline.errors import DataError
from pipeline.tokenize.row_tokenizer import load_row_tokenizer
from pipeline.tokenize.stage import tokenize_files

ROWS = [{"id": number, "messages": TWO_TURNS.messages} for number in range(4)]


def tokenize(folder: Path, template: str, bos: str = "", end: str = END, **options: Any) -> dict[str, Any]:
    model = chat_folder(folder / "model", template, bos)
    for name in ("train", "validation"):
        write_jsonl(folder / f"{name}.jsonl", ROWS)
    sources = {name: folder / f"{name}.jsonl" for name in ("train", "validation")}
    row_format = ChatFormat(source=template, stop_tokens=[END], end_tokens=[end])
    return tokenize_files(
        sources, folder / "tokenized", load_row_tokenizer(row_format, model), tokenize_options(**options)
    )


def test_rows_of_chats_pass_the_gates(tmp_path: Path) -> None:
    metrics = tokenize(tmp_path, CHATML)["train"]
    found = [metrics[f"rows{name}"] for name in ("", "_unended", "_wrong_start", "_prompt_mismatch")]
    assert found == [4, 0, 0, 0]


def shifted(by: int) -> Callable[..., list[int]]:
    original = encoder_module.label_spans

    def label(encoded: Any, learned: Any) -> list[int]:
        labels = original(encoded, learned)
        ids, places = encoded.ids, [place + by for place, label in enumerate(labels) if label >= 0]
        return [token if place in places else -100 for place, token in enumerate(ids)]

    return label


@pytest.mark.parametrize(
    ("by", "gates"), [(1, ["max_prompt_mismatch"]), (-1, ["max_unended"]), (-2, ["max_unended"])], ids=str
)
def test_a_mask_that_is_shifted_stops_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: int, gates: list[str]
) -> None:
    monkeypatch.setattr(encoder_module, "label_spans", shifted(by))
    with pytest.raises(DataError) as error:
        tokenize(tmp_path, CHATML)
    assert all(f"tokenize.gates.{gate}: 4 of 4 rows of train" in str(error.value) for gate in gates)


def test_an_end_token_that_is_not_learned_stops_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = byte_tokenizer().token_to_id(END)
    original = encoder_module.label_spans
    monkeypatch.setattr(
        encoder_module, "label_spans", lambda *given: [-100 if label == end else label for label in original(*given)]
    )
    with pytest.raises(
        DataError, match=r"tokenize\.gates\.max_unended: 4 of 4 rows of train .*teach the model not to stop"
    ):
        tokenize(tmp_path, CHATML)


def test_a_template_that_ends_no_turn_stops_the_stage(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"max_unended: 4 of 4 rows"):
        tokenize(tmp_path, CHATML.replace("<|im_end|>", ""))


def test_an_end_token_outside_the_marks_stops_the_stage(tmp_path: Path) -> None:
    template = MARKED_CHATML.replace(
        "m.content + '<|im_end|>' }}{% endgeneration %}{{ '", "m.content }}{% endgeneration %}{{ '<|im_end|>"
    )
    with pytest.raises(DataError, match=r"train\.jsonl, row 1 \(id 0\): its template marks 'No\.' as generated"):
        tokenize(tmp_path, template)


@pytest.mark.parametrize(
    ("template", "bos", "wrong"),
    [
        ("{{ bos_token }}" + CHATML, BOS, 0),
        ("{{ bos_token }}{{ bos_token }}" + CHATML, BOS, 4),
        (CHATML, BOS, 4),
        (CHATML, "", 0),
        ("{{ bos_token }}" + CHATML, "", 0),
        ("{{ bos_token }}{{ bos_token }}" + CHATML, "", 4),
    ],
    ids=["one", "two", "none", "none wanted", "one, none wanted", "two, none wanted"],
)
def test_rows_begin_with_one_beginning_token(tmp_path: Path, template: str, bos: str, wrong: int) -> None:
    metrics = tokenize(tmp_path, template, bos, gates={"max_wrong_start": None})["train"]
    assert metrics["rows_wrong_start"] == wrong
    if wrong:
        with pytest.raises(DataError, match=r"max_wrong_start: 4 of 4 rows of train .*exactly one beginning token"):
            tokenize(tmp_path, template, bos)


def test_rows_that_do_not_begin_with_the_served_prompt_stop_the_stage(tmp_path: Path) -> None:
    template = CHATML.replace("{{ '<|im_start|>assistant\\n' }}", "{{ '<|im_start|>doctor\\n' }}")
    with pytest.raises(DataError, match=r"max_prompt_mismatch: 4 of 4 rows of train .*otherwise than it asks for one"):
        tokenize(tmp_path, template)


@pytest.mark.parametrize(("loss", "learned"), [("assistant", 12), ("last", 8), ("full", 71)])
def test_the_loss_decides_which_tokens_are_learned(tmp_path: Path, loss: str, learned: int) -> None:
    metrics = tokenize(tmp_path, CHATML, loss=loss)["train"]
    assert round(metrics["supervised_share"] * metrics["tokens"] / 4) == learned


def test_rows_that_are_no_dialogues_are_named(tmp_path: Path) -> None:
    ROWS_WITHOUT = [{"id": 0, "prompt": "a"}]
    model = chat_folder(tmp_path / "model")
    write_jsonl(tmp_path / "train.jsonl", ROWS_WITHOUT)
    row_format = ChatFormat(source=CHATML, stop_tokens=[END], end_tokens=[END])
    tokenizer = load_row_tokenizer(row_format, model)
    with pytest.raises(DataError, match=r"train\.jsonl is damaged \(row 1 has no messages\)"):
        tokenize_files({"train": tmp_path / "train.jsonl"}, tmp_path / "out", tokenizer, tokenize_options())
