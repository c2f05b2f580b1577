"""format.group: the values of a source's column, by the row's id."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.paths import RAW_ROWS
from pipeline.errors import DataError
from pipeline.format.groups import read_groups


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def write(values: list[Any] | pa.Array, name: str = "patient_id") -> None:
        monkeypatch.chdir(tmp_path)
        RAW_ROWS.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({name: values, "question": ["q"] * len(values)}), RAW_ROWS)

    return write


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", "b", "a"], {0: "a", 2: "a"}),
        ([1, 2, 1], {0: "1", 2: "1"}),
        ([1.0, 2.5, None], {0: "1"}),
        (pa.array(['["a"]', '{"b": 1}', '"c"'], pa.json_()), {0: '["a"]', 2: "c"}),
    ],
    ids=["text", "integers", "floats", "JSON"],
)
def test_groups_are_read_by_row_id(store: Any, values: Any, expected: dict[int, str]) -> None:
    store(values)
    assert read_groups("patient_id", [0, *([2] if 2 in expected else [])], None) == expected


def test_rows_without_a_value_are_an_error(store: Any) -> None:
    store(["a", None, " ", "b"])
    message = r"patient_id has no value in 2 of 4 rows, the first is row 1 \(counted from 0\)"
    with pytest.raises(DataError, match=message):
        read_groups("patient_id", [0, 1, 2, 3], None)
    assert read_groups("patient_id", [0, 3], None) == {0: "a", 3: "b"}
    assert read_groups("patient_id", [0, 2, 3], first_test_row=2) == {0: "a", 3: "b"}


def test_unknown_column_is_an_error_with_the_closest_name(store: Any) -> None:
    store(["a"])
    message = "no column patientid; did you mean patient_id\\? It has patient_id, question"
    with pytest.raises(DataError, match=message):
        read_groups("patientid", [0], None)
