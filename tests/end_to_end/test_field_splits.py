"""Splits of the tables that people bring: canned tickets, groups, a test set of their own, and very few rows."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from support.data_stages import Prepared, delimited, lines, params_for, prepare
from support.splitting import sentences

from pipeline.errors import ConfigError, DataError

ROWS: list[dict[str, Any]] = [{"question": f"Where is tool {n}?", "answer": f"On shelf {n}."} for n in range(60)]
KINDS = [
    "The import of our customers has been stuck at ninety percent for {} hours and nothing moves",
    "Please cancel our subscription at the end of month {} and tell us what becomes of our data",
    "We have moved to another street, so how do I change the address on invoice {}",
    "The webhook for paid invoices has not been called since day {} although the endpoint is up",
    "Our new colleague number {} cannot sign in because the second factor is never sent to him",
    "A customer paid invoice {} twice by mistake, so how do we send him the surplus back",
    "The export of the year {} misses all the credit notes that our tax adviser asks us for",
    "How can I give guest {} the right to read reports without letting him change anything",
    "The logo on offer {} is printed much too small and far too blurred to be of any use",
    "Why does reminder {} go out on a Sunday although we only allow working days for that",
]
REPLY = "<p>Hello,</p><p>We looked at this.<br/>Kind {} is done.</p>"


def write_tickets(path: Path, others: int = 0) -> Path:
    """200 tickets of ten kinds, and others that are near to none."""
    rows = [["Ticket", KINDS[n % 10].format(n), REPLY.format(n % 10)] for n in range(200)]
    rows += [["Other", text, "Done."] for text in sentences(others, 12)]
    path.write_text("\ufeff" + delimited(["Subject", "Body", "Agent reply"], rows), encoding="utf-8")
    return path


def bigrams(text: str) -> set[tuple[str, str]]:
    return {*itertools.pairwise(text.split())}


def near_pairs(prepared: Prepared) -> int:
    """The test prompts that are near to a training prompt, compared one by one."""
    train, test = ([bigrams(row["prompt"]) for row in prepared.rows[name]] for name in ("train", "test"))
    return sum(any(len(one & other) >= 0.7 * len(one | other) for other in train) for one in test)


COLUMNS = "data.columns={question: '{Subject} {Body}', answer: Agent reply}"


def test_canned_tickets_lose_no_row_and_fill_the_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepared = prepare(write_tickets(tmp_path / "rows.csv"), caplog, COLUMNS)
    assert (prepared.counts, prepared.dropped(), near_pairs(prepared)) == ((160, 20, 20), {}, 0)
    assert prepared.texts(3)[1] == "\n" + REPLY.format(3)
    assert prepared.format["leakage"] == {"exact": 0, "near": 0, "answers_exact": 0, "answers_near": 1}
    assert "The test set has only 20 rows" in prepared.log
    assert prepared.log.count("near (format.near.threshold=0.7):") == 2


def test_dropped_near_rows_are_a_warning_with_the_key_and_two_pairs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = prepare(write_tickets(tmp_path / "rows.csv", others=100), caplog, COLUMNS, "format.near.strategy=drop")
    assert (prepared.counts, prepared.dropped()) == ((76, 12, 51), {"near_held_out": 161})
    assert near_pairs(prepared) == 0
    warning = prepared.format["warnings"][0]
    assert warning.startswith("161 of 300 rows (54%) are dropped")
    assert "format.near.strategy=cluster" in warning
    assert prepared.log.count("near (format.near.threshold=0.7):") == 2


def test_equality_alone_is_compared_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepared = prepare(write_tickets(tmp_path / "rows.csv"), caplog, COLUMNS, "format.near.enabled=false")
    assert prepared.format["clusters"] == {"count": 200, "rows_with_others": 0, "largest": 1, "rows_moved": 9}
    assert (prepared.counts, prepared.dropped()) == ((153, 17, 30), {})


def test_html_becomes_text_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepared = prepare(write_tickets(tmp_path / "rows.csv"), caplog, COLUMNS, "clean.html=text")
    assert prepared.texts(3)[1] == "\nHello,\n\nWe looked at this.\nKind 3 is done."
    assert prepared.changed() == {"html": 200}
    assert "200 with HTML turned into text, such as row 0: '<p>Hello,</p><p>We looked" in prepared.log


def test_rows_of_a_group_stay_on_one_side(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [ROWS[n] | {"patient_id": n % 12} for n in range(60)]
    (tmp_path / "rows.jsonl").write_bytes(lines(rows))
    prepared = prepare(tmp_path / "rows.jsonl", caplog, "format.group=patient_id")
    sides = {(row["id"] % 12, name) for name, rows in prepared.rows.items() for row in rows}
    assert (len(sides), prepared.counts) == (12, (45, 5, 10))
    assert prepared.format["groups"] == {"count": 12, "largest": 5, "test_rows_without": 0}
    assert prepared.format["clusters"] == {"count": 12, "rows_with_others": 60, "largest": 5, "rows_moved": 0}


def test_group_without_a_value_is_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [ROWS[n] | {"patient_id": n if n else None} for n in range(60)]
    (tmp_path / "rows.jsonl").write_bytes(lines(rows))
    with pytest.raises(DataError, match="patient_id has no value in 1 of 60 rows, the first is row 0"):
        prepare(tmp_path / "rows.jsonl", caplog, "format.group=patient_id")


def test_own_test_rows_are_the_test_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "rows.jsonl").write_bytes(lines(ROWS[:40]))
    own = [ROWS[7], ROWS[8], {"question": "Where is the key?", "answer": "In the lock."}]
    (tmp_path / "own.jsonl").write_bytes(lines(own))
    prepared = prepare(tmp_path / "rows.jsonl", caplog, f"data.test_path={tmp_path}/own.jsonl")
    assert [row["id"] for row in prepared.rows["test"]] == [40, 41, 42]
    assert prepared.dropped() == {"near_test": 2}
    assert sum(prepared.counts) == 41
    assert (prepared.format["leakage"]["exact"], prepared.format["leakage"]["near"]) == (0, 0)


def test_ten_rows_are_a_warning_before_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "rows.jsonl").write_bytes(lines(ROWS[:10]))
    prepared = prepare(tmp_path / "rows.jsonl", caplog)
    assert prepared.counts == (8, 1, 1)
    assert [warning.partition(":")[0] for warning in prepared.format["warnings"][:2]] == [
        "The test set has only 1 row",
        "The validation set has only 1 row",
    ]
    assert "Warning: The test set has only 1 row: no difference between two models can be significant" in prepared.log


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("https://jo:s3cret@example.org/rows.csv", "netrc"),
        ("https://example.org/rows.csv?X-Amz-Signature=s3cret", "FSSPEC_HTTPS_"),
    ],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(address: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice) as error:
        params_for(address)
    assert "s3cret" not in str(error.value)
