"""A file that is one JSON list, read object by object."""

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
    """(size, object) of a JSON list, one by one: the whole of it may not fit into memory."""
    window = _Window(stream, name)
    expected = "expected a JSON list of objects; for one object a line, name it .jsonl"
    if (first := window.next()) != "[":
        raise DataError(f"{window.name}{': ' if first else ' is empty; '}{expected}")
    window.at += 1
    if window.next() == "]":
        return
    while True:
        window.next()
        size, value = window.value()
        if not isinstance(value, dict):
            raise DataError(f"{window.name}: {expected}")
        yield size, value
        sign = window.next()
        window.at += 1
        if sign == "]" and not window.next():
            return
        if sign != ",":
            raise window.fault("Extra data" if sign == "]" else "Expecting ',' delimiter", window.at - (sign != "]"))


class _Window:
    """The part of a JSON text that is being looked at; more is read where it ends too early."""

    def __init__(self, stream: Any, name: str) -> None:
        self.stream, self.name = stream, name
        self.text, self.at, self.line = "", 0, 1
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()

    def next(self) -> str:
        """The next sign that is no space, or nothing at the end."""
        while True:
            self.at = BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self) -> Any:
        """The next value, and how many signs it takes."""
        while True:
            try:
                value, end = json_decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if not self.more():
                    raise self.fault(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:
                raise self.fault(str(error), self.at) from None
            else:
                size, self.at = end - self.at, end
                return size, value

    def more(self) -> bool:
        """Forget what was looked at, and read as much as is left again; false at the end."""
        self.line += self.text.count("\n", 0, self.at)
        self.text, self.at = self.text[self.at :], 0
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
            raise self.fault(f"damaged or cut short: {error}", len(self.text)) from None
        return bool(block)

    def fault(self, what: str, at: int) -> DataError:
        line, column = self.line + self.text.count("\n", 0, at), at - self.text.rfind("\n", 0, at)
        return DataError(f"{self.name}, line {line}: not JSON ({what}, column {column})")
