"""Parses a JSON text value by value, so that a list of rows need not fit into memory."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from pipeline.core.files import json_decoder
from pipeline.errors import DataError
from pipeline.fetch.streams import CORRUPTION_ERRORS, MAX_ROW_BYTES, row_size_error
from pipeline.fetch.text_streams import encoding_error

BLANK = re.compile(r"[ \t\n\r\ufeff]*")  # with the byte order marks of files that were joined
BLOCK = 1 << 20
MAX_TOKEN = 16  # characters of a literal or an escape sequence that the end of the text may cut


class TooLongError(DataError):
    """A value is longer than the limit."""


class JsonStream:
    """The part of a JSON text that is being parsed; reads more when a value does not end in it.

    `head`: bytes that were read from the stream already; `line`: the number of their first line.
    """

    def __init__(self, stream: Any, name: str, head: bytes = b"", line: int = 1) -> None:
        self.stream, self.name, self.head, self.line = stream, name, head, line
        self.text, self.position, self.column = "", 0, 0  # column: characters of the line before the text
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

    def expect(self, delimiters: str) -> str:
        """Skip and return the next character. Raises DataError if it is not one of the delimiters."""
        found = self.peek()
        if not found or found not in delimiters:
            expected = " or ".join(f"'{delimiter}'" for delimiter in delimiters)
            raise self.syntax_error(f"Expecting {expected}", self.position)
        self.position += 1
        return found

    def read_value(self, limit: int = MAX_ROW_BYTES) -> tuple[int, Any]:
        """(size in characters, value) of the next value.

        Raises TooLongError if it is longer than `limit` characters; then nothing is skipped. Raises DataError if it is not JSON.
        """
        self.peek()
        while True:
            try:
                value, end = json_decoder.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                is_cut = error.pos > len(self.text) - MAX_TOKEN or error.msg.startswith("Unterminated string")
                self._require_within(limit)
                if not is_cut or not self._read_more():
                    raise self.syntax_error(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:  # a key twice, thousands of digits or brackets
                line = self._line_at(self.position)
                raise DataError(f"{self.name}, line {line}: not readable as JSON ({error})") from None
            else:
                if end == len(self.text) and not isinstance(value, dict | list | str) and self._read_more():
                    continue  # a number may go on
                size, self.position = end - self.position, end
                return size, value

    def _require_within(self, limit: int) -> None:
        if len(self.text) - self.position > limit:
            raise TooLongError(str(row_size_error(f"{self.name}, line {self._line_at(self.position)}")))

    def iter_list(self) -> Iterator[tuple[int, Any]]:
        """(size, value) for each element of the list that begins here."""
        self.expect("[")
        if self.peek() == "]":
            self.position += 1
            return
        while True:
            yield self.read_value()
            if self.expect(",]") == "]":
                return

    def iter_keys(self) -> Iterator[str]:
        """Each key of the object that begins here. The caller reads the value before it asks for the next key."""
        self.expect("{")
        keys = set[str]()
        if self.peek() == "}":
            self.position += 1
            return
        while True:
            if self.peek() != '"':
                raise self.syntax_error("Expecting property name enclosed in double quotes", self.position)
            key: str = self.read_value()[1]
            if key in keys:
                raise self.syntax_error(f"the key {key!a} occurs twice", self.position)
            keys.add(key)
            self.expect(":")
            yield key
            if self.expect(",}") == "}":
                return

    def _read_more(self) -> bool:
        """Drop what is parsed, and read at least as much as remains; False at the end."""
        self.line, self.column = self._line_at(self.position), self._column_at(self.position)
        self.text, self.position = self.text[self.position :], 0
        try:
            block, self.head = self.head or self.stream.read(max(BLOCK, len(self.text))), b""
            self.text += self.decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = self.text.encode() + error.object[: error.start]
            number, at = self.line + before.count(b"\n"), len(before.rpartition(b"\n")[2])
            line = before[len(before) - at :] + error.object[error.start :].partition(b"\n")[0]
            raise encoding_error(self.name, number, line, at, error.reason) from None
        except CORRUPTION_ERRORS as error:
            raise self.syntax_error(f"damaged or cut short: {error}", len(self.text)) from None
        return bool(block)

    def _line_at(self, position: int) -> int:
        return self.line + self.text.count("\n", 0, position)

    def _column_at(self, position: int) -> int:
        line_break = self.text.rfind("\n", 0, position)
        return self.column + position if line_break < 0 else position - line_break - 1

    def syntax_error(self, problem: str, position: int) -> DataError:
        line, column = self._line_at(position), 1 + self._column_at(position)
        return DataError(f"{self.name}, line {line}: not JSON ({problem}, column {column})")
