"""A test set of one's own: data.test_path."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from support.project import SHIPPED
from support.sources import file_rows, load_from

from pipeline.compose.composition import compose_params, parse_params
from pipeline.errors import ConfigError, DataError
from pipeline.fetch.stage import fetch_data
from pipeline.records.columns import read_column_mapping

TRAIN = "Frage,Antwort,Datum\nq0,a0,1\nq1,a1,2\nq2,a2,3\n"
COLUMNS = {"question": "Frage", "answer": "Antwort"}


@pytest.fixture
def train(tmp_path: Path) -> Path:
    (tmp_path / "train.csv").write_text(TRAIN)
    return tmp_path / "train.csv"


def test_test_rows_follow_the_limited_training_rows(
    train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test.jsonl").write_text(
        '{"Antwort": "b0", "Frage": "t0", "n": 1}\n{"Frage": "t1", "Antwort": "b1", "n": [2]}\n'
    )
    metrics = fetch_data(file_rows(train, test_path="test.jsonl", columns=COLUMNS, limit=2))
    assert pq.read_table("data/raw/rows.parquet").select(["Frage", "Antwort", "Datum"]).to_pydict() == {
        "Frage": ["q0", "q1", "t0", "t1"],
        "Antwort": ["a0", "a1", "b0", "b1"],
        "Datum": ["1", "2", None, None],
    }
    assert json.loads(Path("data/raw/columns.json").read_text())["first_test_row"] == 2
    assert read_column_mapping(Path("data/raw/columns.json")).first_test_row == 2
    assert (metrics["rows"], metrics["test_rows"]) == (2, 2)
    assert metrics["test_revision"] == load_from("test.jsonl", columns=COLUMNS).revision


def test_without_a_test_set_nothing_is_marked(train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    metrics = fetch_data(file_rows(train, columns=COLUMNS))
    assert (metrics["rows"], metrics["test_rows"], metrics["test_revision"]) == (3, 0, None)
    assert read_column_mapping(Path("data/raw/columns.json")).first_test_row is None


def test_names_that_differ_in_case_alone_are_matched(train: Path, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("FRAGE , antwort\nt0,b0\n")
    loaded = load_from(train, test_path=str(tmp_path / "test.csv"), columns=COLUMNS)
    assert loaded.table.slice(3).select(["Frage", "Antwort"]).to_pylist() == [{"Frage": "t0", "Antwort": "b0"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Frage,Reply\nt0,b0\n", "no column Antwort, which the training rows have (question ← Frage, answer ← Antwort"),
        ("Frage,Antwort\n", "has no rows; expected at least one"),
    ],
)
def test_unusable_test_file_is_an_error_before_and_in_fetch(
    train: Path, tmp_path: Path, content: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test.csv").write_text(content)
    with pytest.raises(DataError) as error:
        load_from(train, test_path=str(tmp_path / "test.csv"), columns=COLUMNS)
    assert f"data.test_path={tmp_path}/test.csv" in str(error.value)
    assert message in str(error.value)
    monkeypatch.chdir(SHIPPED)
    with pytest.raises(ConfigError, match=r"data\.test_path: ") as composed:
        compose(train, tmp_path / "test.csv")
    assert message in str(composed.value)


def compose(train: Path, test: Path) -> str:
    columns = "data.columns={question: Frage, answer: Antwort}"
    return compose_params("data=file", "model=scratch", f"data.path='{train}'", f"data.test_path='{test}'", columns)


def test_missing_test_file_is_an_error_before_fetch(
    train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SHIPPED)
    with pytest.raises(ConfigError, match=r"data\.test_path: no such file: .*tran\.csv; did you mean .*train\.csv\?"):
        compose(train, tmp_path / "tran.csv")


def test_training_file_is_no_test_file(train: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="test_path is the same as path"):
        file_rows(train, test_path=str(train))
    (tmp_path / "link.csv").symlink_to(train)
    with pytest.raises(DataError, match=r"link\.csv has all files of data\.path=.*train\.csv; expected other rows"):
        load_from(train, test_path=str(tmp_path / "link.csv"), columns=COLUMNS)


def test_copy_of_the_training_file_is_a_test_file(train: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.csv").write_text(TRAIN)
    assert load_from(train, test_path=str(tmp_path / "copy.csv"), columns=COLUMNS).test_rows == 3


def test_test_file_in_the_training_folder_is_not_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for name in ("a", "b", "held-out"):
        (tmp_path / f"{name}.csv").write_text(f"text\n{name}\n")
    loaded = load_from(tmp_path, test_path=str(tmp_path / "held-out.csv"))
    assert loaded.table.to_pydict() == {"text": ["a", "b", "held-out"]}
    assert (loaded.test_rows, loaded.mapping.first_test_row) == (1, 2)
    assert f"Not used for training, because data.test_path names them: {tmp_path}/held-out.csv" in caplog.text


def test_composition_writes_the_checksum_of_the_test_file(
    train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SHIPPED)
    (tmp_path / "test.csv").write_text("Frage,Antwort\nt,b\n")
    before = parse_params(compose(train, tmp_path / "test.csv"))["data"]
    assert len(before["test_sha256"]) == 64
    (tmp_path / "test.csv").write_text("Frage,Antwort\nt,other\n")
    after = parse_params(compose(train, tmp_path / "test.csv"))["data"]
    assert (before["sha256"], before["test_sha256"]) != (after["sha256"], after["test_sha256"])
    with pytest.raises(DataError, match=r"or does not have the checksum in data\.test_sha256"):
        load_from(train, test_path=str(tmp_path / "test.csv"), columns=COLUMNS, test_sha256=before["test_sha256"])
