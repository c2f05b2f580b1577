"""Reads the rows of a JSON file, whatever its extension: one object a line, or any of the usual shapes of one document.

- `{…}` a line, or objects one after another, on as many lines as they take
- a list of objects
- an object with a key that holds such a list, as in `{"version": 1, "data": […]}`
- an object of columns, a single row, and what json_shapes.py lists

Only a document that is one object, of at most MAX_OBJECT characters, is held in memory; a longer one is read row by row.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from pipeline.core.files import json_decoder
from pipeline.errors import DataError
from pipeline.fetch.json_shapes import (
    is_turn,
    log_opened_key,
    not_an_object_error,
    rows_of_object,
    several_lists_error,
)
from pipeline.fetch.json_stream import BLOCK, JsonStream, TooLongError
from pipeline.fetch.streams import iter_lines
from pipeline.fetch.text_streams import decode_line

MAX_OBJECT = 1 << 24  # characters of an object that is parsed at once, and bytes of a first line
# Bytes of values outside the list of rows that are held in memory, such as those of a document of columns. A value counts as
# VALUE_SIZE bytes and its text.
MAX_HELD, VALUE_SIZE = 1 << 29, 64
Rows = Iterator[tuple[int, dict[str, Any]]]


def iter_json_rows(stream: Any, name: str, field: str | None, columns: Mapping[str, str] | None) -> Rows:
    """(size in characters, object) of each row. `field` is data.field, the key that holds the rows; `columns` data.columns.

    Raises DataError, with the line or row where it is known, if the file has no rows of a known shape.
    """
    number, first = _first_line(stream, name)
    if first.endswith(b"\n") and (row := _object_of_line(first)) is not None:
        rest = ((line, text) for line, text in _numbered(stream, name, number) if text.strip())
        if (second := next(rest, None)) is not None:
            _require_no_field(field, name)
            yield len(first), row
            yield from _rows_of_lines(chain([second], rest), name)
            return
        yield from ((0, value) for value in rows_of_object(row, name, field, columns))
        return
    document = JsonStream(stream, name, head=first, line=number)
    if (start := document.peek()) == "[":
        _require_no_field(field, name)
        yield from _require_objects(document.iter_list(), name)
        _require_end(document)
    elif start == "{":
        yield from _rows_of_document(document, field, columns)
    else:
        raise DataError(f"{name}, line {number}: not a JSON object; {_EXPECTED}")


_EXPECTED = "expected a JSON list of objects, or one object a line"


def _first_line(stream: Any, name: str) -> tuple[int, bytes]:
    """(number, the first line with text); of a long line, the beginning."""
    number = 1
    while line := stream.readline(BLOCK):
        if text := line.removeprefix(b"\xef\xbb\xbf").strip():
            is_cut_object = text.startswith(b"{") and not line.endswith(b"\n")
            return number, line + (stream.readline(MAX_OBJECT) if is_cut_object else b"")
        number += line.endswith(b"\n")
    raise DataError(f"{name} is empty; {_EXPECTED}")


def _object_of_line(line: bytes) -> dict[str, Any] | None:
    """The object that is all of a line, or None; the reader of documents then finds the reason."""
    try:
        value = json_decoder.decode(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _numbered(stream: Any, name: str, before: int) -> Iterator[tuple[int, bytes]]:
    return ((before + number, line) for number, line in iter_lines(stream, name))


def _rows_of_lines(lines: Iterator[tuple[int, bytes]], name: str) -> Rows:
    for number, line in lines:
        text = decode_line(line, name, number)
        try:
            row = json_decoder.decode(text.removeprefix("\ufeff"))  # which joined files have within them
        except json.JSONDecodeError as error:
            problem = f"not JSON ({error.msg}, column {error.colno})"
            raise DataError(f"{name}, line {number}: {problem}; expected one object a line") from None
        except (
            ValueError,
            RecursionError,
        ) as error:  # a key twice, a number of thousands of digits, thousands of brackets
            raise DataError(
                f"{name}, line {number}: not readable as JSON ({error}); expected one object a line"
            ) from None
        if not isinstance(row, dict):
            raise not_an_object_error(f"{name}, line {number}", row)
        yield len(line), row


def _require_objects(values: Iterator[tuple[int, Any]], location: str) -> Rows:
    for number, (size, value) in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise not_an_object_error(f"{location}, row {number}", value)
        yield size, value


def _require_end(document: JsonStream) -> None:
    if document.peek():
        raise document.syntax_error("more text after the end of the list", document.position)


def _require_no_field(field: str | None, name: str) -> None:
    if field is not None:
        raise DataError(f"data.field={field}: {name} has no keys around its rows; leave data.field out")


def _rows_of_document(document: JsonStream, field: str | None, columns: Mapping[str, str] | None) -> Rows:
    """The rows of a document that begins with an object: the only one, or the first of several."""
    try:
        size, value = document.read_value(limit=MAX_OBJECT)
    except TooLongError:
        yield from _rows_of_long_object(document, field, columns)
        _require_end(document)
        return
    if not document.peek():
        yield from ((0, row) for row in rows_of_object(value, document.name, field, columns))
        return
    _require_no_field(field, document.name)
    yield from _require_objects(chain([(size, value)], _remaining_values(document)), document.name)


def _remaining_values(document: JsonStream) -> Iterator[tuple[int, Any]]:
    while document.peek():
        yield document.read_value()


def _rows_of_long_object(document: JsonStream, field: str | None, columns: Mapping[str, str] | None) -> Rows:
    """The rows in the one list of objects that an object holds; its other values are held in memory."""
    opened, others, held = None, dict[str, Any](), _HeldValues(document.name)
    for key in document.iter_keys():
        if document.peek() != "[" or field not in (None, key):
            others[key] = held.add(key, *document.read_value())
            continue
        values = document.iter_list()
        first = next(values, None)
        if first is None or not isinstance(first[1], dict) or (field is None and is_turn(first[1])):
            others[key] = [held.add(key, *value) for value in chain([first] if first else [], values)]
            continue
        if opened is not None:
            raise several_lists_error([opened, key], document.name)
        opened = key
        yield from _require_objects(chain([first], values), f"{document.name}, {key}")
    if opened is None:
        yield from ((0, row) for row in rows_of_object(others, document.name, field, columns))
    else:
        log_opened_key(opened, others, document.name)


class _HeldValues:
    """Counts the size of the values of a document that are held in memory."""

    def __init__(self, name: str) -> None:
        self.name, self.size = name, 0

    def add(self, key: str, size: int, value: Any) -> Any:
        """The value. Raises DataError if all of them are larger than MAX_HELD."""
        self.size += size + VALUE_SIZE
        if self.size > MAX_HELD:
            raise DataError(
                f"{self.name}, {key[:80]}: more than {MAX_HELD >> 20} MiB of values that are no list of objects; write one JSON "
                "object a line, which is read row by row"
            )
        return value
