"""Cells that hold JSON: columns of lists, objects or mixed types are stored as JSON text (Arrow's type `json`)."""

import json
from typing import Any

import orjson
import pyarrow as pa


def parse_json(text: str) -> Any:
    r"""The value of JSON text. Integers of any size and lone surrogates come back as they are.

    Raises ValueError if the text is not JSON.

    >>> parse_json('[12345678901234567890123, "\\ud800"]')
    [12345678901234567890123, '\ud800']
    """
    try:
        return json.loads(text)  # orjson turns large integers into floats and rejects lone surrogates
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dump_json(value: Any) -> str:
    r"""The value as compact JSON text, which `parse_json` turns into the same value; equal values have equal texts.

    >>> dump_json({"room": 12345678901234567890123, "name": "Büro"})
    '{"room":12345678901234567890123,"name":"Büro"}'
    >>> dump_json([float("nan"), None]), dump_json("\ud800")
    ('[NaN,null]', '"\\ud800"')
    """
    try:
        text = dump_json_bytes(value)
    except UnicodeEncodeError:  # a surrogate that stands alone: only an escape can express it
        return json.dumps(value, separators=(",", ":"), default=str)
    return _dump_slowly(value) if b"null" in text else text.decode()  # orjson writes NaN and infinity as null


def dump_json_bytes(value: Any) -> bytes:
    """As `dump_json`, in UTF-8. Raises UnicodeEncodeError if a surrogate stands alone."""
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits, a date, a surrogate that stands alone
        return _dump_slowly(value).encode()


def _dump_slowly(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def to_python(column: pa.ChunkedArray) -> list[Any]:
    """The cells of a column as Python values; those of type `json` are parsed, and objects have no keys that are null."""
    cells: list[Any] = column.to_pylist()
    if isinstance(column.type, pa.JsonType):
        return [None if cell is None else parse_json(cell) for cell in cells]
    return [drop_nulls(cell) for cell in cells] if pa.types.is_nested(column.type) else cells


def drop_nulls(value: Any) -> Any:
    """The value without the keys that are null: Arrow gives every object of a column the keys of all of them.

    >>> drop_nulls([{"role": "user", "tool_calls": None}])
    [{'role': 'user'}]
    """
    if isinstance(value, dict):
        return {key: drop_nulls(item) for key, item in value.items() if item is not None}
    return [drop_nulls(item) for item in value] if isinstance(value, list) else value
