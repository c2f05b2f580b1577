"""Reads a file that is one JSON list, object by object."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from pipeline.core.files import json_decoder
from pipeline.errors import DataError
from pipeline.fetch.streams import CORRUPTION_ERRORS

BLANK = re.compile(r"[ \t\n\r]*")


def iter_json_list(stream: Any, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(size in characters, object) for each object of a JSON list, which need not fit into memory.

    Raises DataError, with the line where it is known, if the file is not a JSON list of objects.
    """
    buffer = _JsonBuffer(stream, name)
    expected = "expected a JSON list of objects; for one object a line, name it .jsonl"
    if (first := buffer.peek()) != "[":
        raise DataError(f"{buffer.name}{': ' if first else ' is empty; '}{expected}")
    buffer.position += 1
    if buffer.peek() == "]":
        return
    while True:
        buffer.peek()
        size, value = buffer.read_value()
        if not isinstance(value, dict):
            raise DataError(f"{buffer.name}: {expected}")
        yield size, value
        delimiter = buffer.peek()
        buffer.position += 1
        if delimiter == "]" and not buffer.peek():
            return
        if delimiter == "]":
            raise buffer.syntax_error("Extra data", buffer.position)
        if delimiter != ",":
            raise buffer.syntax_error("Expecting ',' delimiter", buffer.position - 1)


class _JsonBuffer:
    """The part of a JSON text that is being parsed; reads more when a value does not end in it."""

    def __init__(self, stream: Any, name: str) -> None:
        self.stream, self.name = stream, name
        self.text, self.position, self.line = "", 0, 1
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()

    def peek(self) -> str:
        """Skip blanks and return the next character; an empty string at the end."""
        while True:
            if blank := BLANK.match(self.text, self.position):
                self.position = blank.end()
            if self.position < len(self.text):
                return self.text[self.position]
            if not self._read_more():
                return ""

    def read_value(self) -> tuple[int, Any]:
        """(size in characters, value) of the next value."""
        while True:
            try:
                value, end = json_decoder.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                if not self._read_more():
                    raise self.syntax_error(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:
                raise self.syntax_error(str(error), self.position) from None
            else:
                size, self.position = end - self.position, end
                return size, value

    def _read_more(self) -> bool:
        """Drop what is parsed, and read at least as much as remains; False at the end."""
        self.line += self.text.count("\n", 0, self.position)
        self.text, self.position = self.text[self.position :], 0
        try:
            block = self.stream.read(max(1 << 20, len(self.text)))
            self.text += self.decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = self.text.encode() + error.object[: error.start]
            number, byte = self.line + before.count(b"\n"), len(before.rpartition(b"\n")[2]) + 1
            raise DataError(
                f"{self.name}, line {number}: not UTF-8 text (byte {byte}: {error.reason}); save the file as UTF-8"
            ) from None
        except CORRUPTION_ERRORS as error:
            raise self.syntax_error(f"damaged or cut short: {error}", len(self.text)) from None
        return bool(block)

    def syntax_error(self, problem: str, position: int) -> DataError:
        line = self.line + self.text.count("\n", 0, position)
        column = position - self.text.rfind("\n", 0, position)
        return DataError(f"{self.name}, line {line}: not JSON ({problem}, column {column})")
