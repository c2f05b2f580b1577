"""pipeline/clean/stage.py and pipeline/records/text.py on literal tables, with the options of conf/clean/default.yaml."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.clean.stage import REASONS, Cleaner, clean_batches, records_schema, write_cleaned
from pipeline.clean.transforms import mask_contacts, strip_prefixes
from pipeline.config.params import Clean
from pipeline.errors import ConfigError, DataError
from pipeline.records.columns import ColumnMapping, resolve_columns
from pipeline.records.text import collapse_whitespace, tidy_lines, words

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = Clean(**yaml.safe_load((ROOT / "conf/clean/default.yaml").read_text(encoding="utf-8")))
BOILERPLATE = "Hi. For further doubts consult a sexologist online -->"

Rows = list[dict[str, Any]]


def cleaned(
    rows: list[dict[str, Any]] | pa.Table, columns: dict[str, str] | None = None, **changed: Any
) -> tuple[Rows, Rows]:
    """(records, dropped with id and reason), with the options changed so."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    found = Cleaner(resolve_columns(table.column_names, columns), options(**changed)).batch(table)
    return found.records, [{"id": row["id"], "reason": row["reason"]} for row in found.dropped]


def run(
    rows: Rows, folder: Path, monkeypatch: pytest.MonkeyPatch, size: int = 100
) -> tuple[ColumnMapping, dict[str, Any]]:
    """Clean the rows in batches of some size, and write data/clean below the folder: (what was taken, metrics)."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    table = pa.Table.from_pylist(rows)
    taken = resolve_columns(table.column_names, None)
    batches = [table.slice(start, size) for start in range(0, len(rows), size)]
    return taken, write_cleaned(clean_batches(batches, taken, OPTIONS), taken)


def options(**changed: Any) -> Clean:
    return Clean.model_validate(OPTIONS.model_dump() | changed)


def chat(*turns: tuple[str | None, str | None]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Hi\u00a0\u00a0doctor", "Hi doctor", id="no-break spaces"),
        pytest.param("\u3000a\u2009b\u202fc\u2028d\x85e", "a b c d e", id="Unicode spaces and line ends"),
        pytest.param(" a\r\n\tb ", "a b", id="CRLF and tab"),
        pytest.param("\ufeffzero\u200bwidth\u2060\x00", "zerowidth", id="invisible characters"),
        pytest.param("\u00a0 \n\u200b", "", id="nothing but space"),
        pytest.param("naïve, 中文 — ok", "naïve, 中文 — ok", id="letters stay"),
    ],
)
def test_collapse(text: str, expected: str) -> None:
    assert collapse_whitespace(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a\nb\n\nc", "a\nb\n\nc", id="line breaks stay"),
        pytest.param("a\r\n\u00a0\r\n\n\nb", "a\n\nb", id="at most two in a row"),
        pytest.param("if x:\n    return  1\t", "if x:\n    return 1", id="indentation stays"),
        pytest.param("a \u00a0 b\u200b", "a b", id="runs within a line"),
    ],
)
def test_tidy(text: str, expected: str) -> None:
    assert tidy_lines(text) == expected


def test_words_fold_case_width_and_punctuation() -> None:
    assert words("ＦＬＵ, Straße: ﬁne_2 — 流感!") == ["flu", "strasse", "fine_2", "流感"]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        pytest.param("Q. Quick heartbeat?", "Quick heartbeat?", id="the next word keeps its Q"),
        pytest.param("Quick heartbeat?", "Quick heartbeat?", id="Quick is no prefix"),
        pytest.param("\u00a0Q.\u00a0What is flu?", "What is flu?", id="no-break spaces around"),
        pytest.param("Q.What is flu?", "What is flu?", id="no space after"),
        pytest.param("Is it Q. fever?", "Is it Q. fever?", id="in the middle it stays"),
        pytest.param("Q. Q. Twice?", "Q. Twice?", id="once"),
        pytest.param("q. Small?", "q. Small?", id="small letter"),
    ],
)
def test_question_prefix(question: str, expected: str) -> None:
    records, _ = cleaned([{"question": question, "answer": "Q. Rest."}])
    assert records == [{"id": 0, "question": expected, "answer": "Q. Rest."}]


def test_each_prefix_is_removed_in_the_order_given() -> None:
    assert strip_prefixes("Question: Q. Flu?", ["Question:", "Q."]) == "Flu?"
    assert strip_prefixes("Question: Q. Flu?", ["Q.", "Question:"]) == "Q. Flu?"


def test_columns_are_mapped_whitespace_is_collapsed_and_ids_are_row_numbers() -> None:
    rows = [
        {"Description": "Q. What\u00a0is flu?", "Patient": "Hello", "Doctor": "Flu\n is  an infection."},
        {"Description": "", "Patient": "Hello", "Doctor": "Rest."},
        {"Description": "Q. Why?", "Patient": "Hello", "Doctor": "A virus."},
    ]
    assert cleaned(rows, {"question": "Description", "answer": "Doctor"}) == (
        [
            {"id": 0, "question": "What is flu?", "answer": "Flu is an infection."},
            {"id": 2, "question": "Why?", "answer": "A virus."},
        ],
        [{"id": 1, "reason": "empty"}],
    )


def test_every_reason_is_counted_and_the_counts_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        chat(("user", "Flu?"), ("assistant", "Rest.")),
        chat(("user", "Flu?"), ("assistant", "\u00a0")),
        chat(("user", "Flu?")),
        chat(("user", "Flu?"), ("assistant", BOILERPLATE)),
        chat(("user", " Flu?"), ("assistant", "Rest. ")),
        chat(("user", "Flu?"), ("assistant", "Sleep.")),
        chat(("user", "Flu?"), ("assistant", "Rest.")),
        chat(("user", "Flu?"), ("bot", "Rest.")),
    ]
    taken, metrics = run(rows, tmp_path, monkeypatch)
    assert metrics == {
        "rows_in": 8,
        "rows_kept": 2,
        "dropped": dict.fromkeys(REASONS, 0)
        | {"malformed": 1, "empty": 1, "no_answer": 1, "boilerplate": 1, "duplicate": 2},
        "changed": {"mended": 0, "stripped": 1, "masked": 0},
    }
    assert metrics["rows_in"] == metrics["rows_kept"] + sum(metrics["dropped"].values())
    records = pq.read_table("data/clean/records.parquet")
    assert records.schema == records_schema(taken)
    assert records.column("id").to_pylist() == [0, 5]


def test_dropped_rows_can_be_read_with_their_texts_as_they_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"question": "Q.  Flu?", "answer": "Rest.", "n": 1},
        {"question": "Q.\u00a0流感?", "answer": None, "n": 2},
        {"question": "Q. Flu?", "answer": "Rest.", "n": 3},
    ]
    run(rows, tmp_path, monkeypatch)
    texts = Path("data/clean/dropped.jsonl").read_text(encoding="utf-8")
    assert texts == (
        '{"id":1,"reason":"empty","question":"Q.\u00a0流感?","answer":null}\n'
        '{"id":2,"reason":"duplicate","same_as":0,"question":"Q. Flu?","answer":"Rest."}\n'
    )
    assert pq.read_table("data/clean/dropped.parquet").to_pylist() == [
        {"id": 1, "reason": "empty"},
        {"id": 2, "reason": "duplicate"},
    ]


def test_batches_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"question": f"Q. {n % 7}", "answer": ["a", "", None, "b"][n % 4]} for n in range(50)]
    _, whole = run(rows, tmp_path / "whole", monkeypatch)
    outputs = {file.name: file.read_bytes() for file in Path("data/clean").iterdir()}
    _, parts = run(rows, tmp_path / "parts", monkeypatch, size=3)
    assert parts == whole
    assert pq.read_table("data/clean/records.parquet").equals(
        pq.read_table(pa.BufferReader(outputs["records.parquet"]))
    )
    assert Path("data/clean/dropped.jsonl").read_bytes() == outputs["dropped.jsonl"]


def test_no_row_left_is_an_error_that_counts_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"no row left of 2: dropped 1 malformed, 1 no_answer. Look at .* messages are"):
        run([chat(("bot", "x")), chat(("user", "x"))], tmp_path, monkeypatch)
    assert list(Path("data").iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        pytest.param([{"question": "", "answer": BOILERPLATE}], ["empty"], id="empty before boilerplate"),
        pytest.param([{"question": None, "answer": "a"}] * 2, ["empty", "empty"], id="empty before duplicate"),
        pytest.param(
            [{"question": "q", "answer": BOILERPLATE}] * 2, ["boilerplate"] * 2, id="boilerplate before duplicate"
        ),
        pytest.param([{"question": "Q.", "answer": "a"}], ["empty"], id="nothing but the prefix"),
        pytest.param([{"question": "q", "answer": "a"}, {"question": "q", "answer": "b"}], [], id="other answer"),
        pytest.param([{"question": "q", "answer": "a"}, {"question": "Q", "answer": "a"}], [], id="other case"),
        pytest.param([chat(("user", ""), ("user", "x"))], ["no_answer"], id="no answer before empty"),
        pytest.param([chat(("user", "x"), ("user", BOILERPLATE))], ["no_answer"], id="no answer before boilerplate"),
    ],
)
def test_first_reason_that_holds_is_the_one(rows: list[dict[str, Any]], reasons: list[str]) -> None:
    _, dropped = cleaned(rows)
    assert [row["reason"] for row in dropped] == reasons


@pytest.mark.parametrize(
    "answer",
    [
        BOILERPLATE,
        "Hello. Consult a nutritionist online for further follow up --->",
        "Hi. I have gone through your query with diligence and would like you to know that I am here to help you. "
        "For further information consult a neurologist online -->",
        "Hello. Revert back with the reports to an ENT otolaryngologist online -->",
        "Hi,\u00a0welcome to icliniq.com. I have read your query. Hope this helps. Take care. Regards.",
    ],
    ids=["doubts", "follow up", "diligence", "revert", "welcome"],
)
def test_answer_of_nothing_but_boilerplate_is_dropped(answer: str) -> None:
    assert cleaned([{"question": "q", "answer": answer}]) == ([], [{"id": 0, "reason": "boilerplate"}])


@pytest.mark.parametrize(
    "answer",
    [
        "Hello. What are the symptoms in it? How long has it been there?",
        "Yes.",
        "हाँ",
        "42",
        "Consult your doctor about the dose.",
        "->",
    ],
    ids=[
        "questions back",
        "one word",
        "Devanagari",
        "number",
        "consult without online",
        "signs alone",
    ],
)
def test_answer_that_says_something_is_kept_whole(answer: str) -> None:
    assert cleaned([{"question": "q", "answer": answer}], strip=[]) == (
        [{"id": 0, "question": "q", "answer": answer}],
        [],
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param(chat(("user", "x")), "no_answer", id="question alone"),
        pytest.param(chat(("assistant", "x")), "no_answer", id="answer alone"),
        pytest.param(chat(("system", "s"), ("assistant", "x")), "no_answer", id="no user"),
        pytest.param(chat(("user", "x"), ("assistant", None)), "empty", id="answer null"),
        pytest.param(chat(("user", " "), ("assistant", "x")), "empty", id="question empty"),
        pytest.param(chat(("user", "x"), ("assistant", BOILERPLATE)), "boilerplate", id="boilerplate last"),
    ],
)
def test_chat_that_teaches_nothing_is_dropped(row: dict[str, Any], reason: str) -> None:
    assert cleaned([row]) == ([], [{"id": 0, "reason": reason}])


def test_a_chat_ends_with_its_last_answer_and_an_empty_system_turn_is_none() -> None:
    row = chat(("system", ""), ("user", "x"), ("assistant", "y"), ("user", "z"))
    assert cleaned([row])[0] == [{"id": 0, **chat(("user", "x"), ("assistant", "y"))}]


def test_line_breaks_stay_where_they_may_mean_something() -> None:
    row = {"instruction": "Write  f.", "input": "", "output": "def f(x):\n    return x"}
    assert cleaned([row])[0] == [{"id": 0, **row, "instruction": "Write f."}]


def test_nan_is_an_empty_cell_and_a_whole_float_a_whole_number() -> None:
    table = pa.table({"question": ["a", "b"], "answer": [float("nan"), 3.0]})
    records, dropped = cleaned(table)
    assert (records, dropped) == ([{"id": 1, "question": "b", "answer": "3"}], [{"id": 0, "reason": "empty"}])


def test_chat_without_messages_has_no_answer() -> None:
    table = pa.table(
        {"messages": pa.array([[], None], pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})))}
    )
    assert cleaned(table) == ([], [{"id": 0, "reason": "no_answer"}, {"id": 1, "reason": "no_answer"}])


def test_chat_keeps_turns_and_line_breaks() -> None:
    row = chat(("system", " Be brief. "), ("user", "Q. a\u00a0b\nc"), ("assistant", BOILERPLATE), ("user", "d"))
    row["messages"].append({"role": "assistant", "content": "Hi.\n\n\n\nRest."})
    records, _ = cleaned([row])
    assert [message["content"] for message in records[0]["messages"]] == [
        "Be brief.",
        "Q. a b\nc",
        BOILERPLATE,
        "d",
        "Hi.\n\nRest.",
    ]


def test_list_in_a_cell_of_text_is_a_data_error() -> None:
    with pytest.raises(DataError, match="row 0, question: a list; expected text"):
        cleaned(pa.table({"question": [["x"]], "answer": ["y"]}))


PARTS = [{"role": role, "content": [{"type": "text", "text": "x"}]} for role in ("user", "assistant")]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "x"}, {"role": "bot", "content": "y"}],
        [{"role": None, "content": "x"}],
        [{"content": "x"}],
        [{"from": "human", "value": "x"}, {"from": "function_call", "value": "y"}],
        [{"from": "gpt", "value": 3}],
        "x",
        7,
        ["x"],
        PARTS,
    ],
    ids=[
        "unknown role",
        "no role",
        "no role at all",
        "unknown sender",
        "number",
        "text",
        "a number",
        "list of texts",
        "parts",
    ],
)
def test_chat_of_no_known_form_is_dropped_and_counted(messages: Any) -> None:
    assert cleaned(pa.table({"messages": [messages]})) == ([], [{"id": 0, "reason": "malformed"}])


def test_one_malformed_chat_leaves_the_others() -> None:
    rows = [chat(("user", "a"), ("tool", "b")), chat(("user", "c"), ("assistant", "d"))]
    assert cleaned(rows) == ([{"id": 1, **rows[1]}], [{"id": 0, "reason": "malformed"}])


SHAREGPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Is it flu?"},
    {"from": "gpt", "value": "Fever?"},
    {"from": "human", "value": "Yes."},
    {"from": "gpt", "value": "Rest."},
]
TURNS = chat(
    ("system", "Be brief."), ("user", "Is it flu?"), ("assistant", "Fever?"), ("user", "Yes."), ("assistant", "Rest.")
)


@pytest.mark.parametrize("columns", [None, {"messages": "conversations"}], ids=["detected", "mapped"])
def test_sharegpt_turns_become_messages(columns: dict[str, str] | None) -> None:
    assert cleaned([{"id": "x1", "conversations": SHAREGPT}], columns)[0] == [{"id": 0, **TURNS}]


def test_openai_and_sharegpt_rows_may_stand_in_one_column() -> None:
    keys = {"role": None, "content": None, "from": None, "value": None}
    mixed = [
        [{**keys, **turn} for turn in row] for row in (SHAREGPT, chat(("user", "a"), ("assistant", "b"))["messages"])
    ]
    assert cleaned([{"messages": turns} for turns in mixed])[0] == [
        {"id": 0, **TURNS},
        {"id": 1, **chat(("user", "a"), ("assistant", "b"))},
    ]


def test_template_joins_columns_and_is_empty_where_all_of_them_are() -> None:
    rows = [
        {"Description": "Q. Flu?", "Patient": "Since  Monday.", "age": 7.0, "Doctor": "Rest."},
        {"Description": None, "Patient": "I cough.", "age": None, "Doctor": "Drink."},
        {"Description": "", "Patient": None, "age": None, "Doctor": "Sleep."},
    ]
    mapping = {"prompt": "{Description}\n\n{Patient} ({{age}} {age})", "completion": "Doctor"}
    assert cleaned(rows, mapping) == (
        [
            {"id": 0, "prompt": "Flu?\n\nSince Monday. ({age} 7)", "completion": "Rest."},
            {"id": 1, "prompt": "I cough. ({age} )", "completion": "Drink."},
        ],
        [{"id": 2, "reason": "empty"}],
    )


def test_template_over_what_is_no_text_is_a_data_error() -> None:
    with pytest.raises(DataError, match="row 0, b: a list; expected text"):
        cleaned([{"a": "x", "b": ["y"]}], {"text": "{a} {b}"})


@pytest.mark.parametrize("given", [{}, {"input": ""}, {"input": None}], ids=["absent", "empty", "null"])
def test_alpaca_needs_no_input(given: dict[str, Any]) -> None:
    records, dropped = cleaned([{"instruction": "Q. Count.", "output": "1 2"} | given])
    assert records == [{"id": 0, "instruction": "Count.", **({"input": ""} if given else {}), "output": "1 2"}]
    assert dropped == []


def test_numbers_become_text() -> None:
    assert cleaned([{"prompt": 0, "completion": 2.5}])[0] == [{"id": 0, "prompt": "0", "completion": "2.5"}]


def test_plain_text_keeps_its_line_breaks() -> None:
    assert cleaned([{"text": "Q. one\u00a0 two\n\n\n  three\n"}])[0] == [{"id": 0, "text": "Q. one two\n\n  three"}]


STRIPPED = [
    ("Drink water. For more information consult an internal medicine physician online -->", "Drink water."),
    ("Drink water. For further queries, consult a dentist online --->", "Drink water."),
    ("Drink water. Revert back with the reports to a neurologist online. -->", "Drink water."),
    ("Drink water:\u00a0For more information consult a neurologist online -->", "Drink water:"),
    ("Drink water. -->", "Drink water."),
    ("Buy it online --> it is cheap.", "Buy it online --> it is cheap."),
    ("You can buy it online.", "You can buy it online."),
]


@pytest.mark.parametrize(("answer", "left"), STRIPPED)
def test_advertisement_at_the_end_of_an_answer_is_stripped(answer: str, left: str) -> None:
    assert cleaned([{"question": "q", "answer": answer}])[0] == [{"id": 0, "question": "q", "answer": left}]


def test_only_the_answer_of_a_chat_is_stripped() -> None:
    said = "Rest. For more information consult a dentist online -->"
    records, _ = cleaned([chat(("user", said), ("assistant", said))])
    assert records == [{"id": 0, **chat(("user", said), ("assistant", "Rest."))}]


def test_rows_whose_texts_were_changed_are_counted() -> None:
    table = pa.table({"question": ["donâ€™t", "q", "b"], "answer": ["a@b.org", "Rest. -->", "c"]})
    cleaner = Cleaner(resolve_columns(table.column_names, None), options(mend_encoding=True, contacts="mask"))
    found = cleaner.batch(table)
    assert found.changed == {"mended": 1, "masked": 1, "stripped": 1}
    assert [row["question"] for row in found.records] == ["don’t", "q", "b"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("ann.lee+x@mail.example.co.uk", "[email]"),
        ("(ask bob@example.org)", "(ask [email])"),
        ("call +91 98765 43210 now", "call [phone] now"),
        ("+1 (555) 010-9999", "[phone]"),
        ("555-010-9999 or (555) 010-9999", "[phone] or [phone]"),
        ("98765 43210, 9876543210, 02079460958", "[phone], [phone], [phone]"),
        ("120/80 mm Hg on 2019-04-01 10:30", "120/80 mm Hg on 2019-04-01 10:30"),
        ("100-150 mg, 200 300 400, 1234567", "100-150 mg, 200 300 400, 1234567"),
        ("TSH 3.456, platelets 150000, +2 oedema", "TSH 3.456, platelets 150000, +2 oedema"),
        ("12345678901234567890", "12345678901234567890"),
        ("a @ b", "a @ b"),
    ],
)
def test_addresses_and_telephone_numbers_are_told_from_other_numbers(text: str, masked: str) -> None:
    assert mask_contacts(text) == masked


LONG = {"min_characters": None, "max_characters": None, "min_tokens": None, "max_tokens": None}
ENGLISH = "I have had a sore throat for three days and it hurts when I swallow."
SPANISH = "Tengo dolor de garganta desde hace tres días y me duele al tragar."


@pytest.mark.parametrize(
    ("row", "changed", "reason"),
    [
        ({"question": "q", "answer": "abcd"}, {"answer": LONG | {"max_characters": 3}}, "too_long"),
        ({"question": "q", "answer": "abc"}, {"answer": LONG | {"max_characters": 3}}, None),
        ({"question": "ab", "answer": "x"}, {"question": LONG | {"min_characters": 3}}, "too_short"),
        ({"question": "abc", "answer": "x"}, {"question": LONG | {"min_characters": 3}}, None),
        ({"question": "q", "answer": "Hi. Rest. Thanks, regards."}, {"max_boilerplate": 0.5}, "mostly_boilerplate"),
        ({"question": "q", "answer": "Hi. Rest."}, {"max_boilerplate": 0.5}, None),
        ({"question": "q", "answer": "1 2 3 a"}, {"max_nonletters": 0.7}, "mostly_nonletters"),
        ({"question": "12", "answer": "a"}, {"max_nonletters": 0.7}, "mostly_nonletters"),
        ({"question": "हाँ", "answer": "नहीं"}, {"max_nonletters": 0.0}, None),
        ({"question": "q", "answer": "Write to a@b.org"}, {"contacts": "drop"}, "contacts"),
        ({"question": "q", "answer": "Rest."}, {"contacts": "drop"}, None),
        ({"question": ENGLISH, "answer": ENGLISH}, {"languages": ["es"]}, "other_language"),
        ({"question": ENGLISH, "answer": ENGLISH}, {"languages": ["es", "en"]}, None),
        ({"question": SPANISH, "answer": SPANISH}, {"languages": ["en"]}, "other_language"),
    ],
)
def test_filters_drop_what_they_are_asked_to(row: dict[str, Any], changed: dict[str, Any], reason: str | None) -> None:
    dropped = cleaned([row], **changed)[1]
    assert [each["reason"] for each in dropped] == ([reason] if reason else [])
    assert cleaned([row])[1] == []


def test_length_in_tokens_is_counted_by_the_base_models_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.clean.filters.BASE", ROOT / "models/nano")
    rows = [{"question": "q", "answer": "flu " * count} for count in (9, 3)]
    _, dropped = cleaned(rows, answer=LONG | {"max_tokens": 8})
    assert dropped == [{"id": 0, "reason": "too_long"}]


def test_unknown_language_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"clean.languages: xx unknown; expected some of .*en, "):
        cleaned([{"question": "q", "answer": "a"}], languages=["xx"])


def test_duplicates_stay_where_asked() -> None:
    rows = [{"question": "q", "answer": "a"}] * 2
    assert cleaned(rows, deduplicate=False) == ([{"id": 0, **rows[0]}, {"id": 1, **rows[0]}], [])
