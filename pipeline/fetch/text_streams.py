"""Decodes text files.

A byte order mark decides the encoding, else `data.encoding`, else it is UTF-8. No other encoding is assumed: an error names the
line and suggests one.
"""

import codecs
import io
import re
from contextlib import suppress
from typing import Any

from pipeline.core.console import preview
from pipeline.errors import DataError
from pipeline.fetch.signatures import SIGNATURES
from pipeline.fetch.streams import BLOCK_SIZE

BYTE_ORDER_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
BINARY = re.compile(rb"[^\t\r\n\x20-\x7e]")
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # characters that a text has few kinds of
SUGGESTED_ENCODINGS = ["cp1252", "cp1250", "cp1251", "gb18030", "shift_jis", "euc_kr", "big5", "mac_roman"]


def utf8_stream(stream: Any, name: str, encoding: str | None) -> Any:
    """The stream itself if it is UTF-8, else one that encodes its text as UTF-8.

    Raises DataError if the stream begins like a binary file, or like UTF-16 without a byte order mark.
    """
    head = stream.peek(64)[:64]
    for mark, marked_encoding in BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            encoding = marked_encoding
            break
    else:
        _require_text(head, name, encoding)
    if encoding is None or codecs.lookup(encoding).name == "utf-8":
        return stream
    return io.BufferedReader(_Utf8Encoder(stream, name, encoding), BLOCK_SIZE)


def _require_text(head: bytes, name: str, encoding: str | None) -> None:
    for start, description, extension in SIGNATURES:
        if head.startswith(start) and BINARY.search(head):
            advice = f"; give it the extension {extension}" if extension else ""
            raise DataError(f"{name} is not text, but {description}{advice}")
    for first, order in ((1, "le"), (0, "be")):  # Western text in UTF-16 has a zero in every other byte
        if encoding is None and len(head) >= 4 and not any(head[first::2]) and all(head[1 - first :: 2]):
            raise DataError(
                f"{name} looks like UTF-16 without a byte order mark; set data.encoding=utf-16-{order}, "
                "or save the file as UTF-8"
            )
    if encoding is None and (len(set(CONTROL.findall(head))) > 2 or head.count(0) > len(head) // 2):
        raise DataError(f"{name} holds binary data; expected text, as the extension says")


class _Utf8Encoder(io.RawIOBase):
    """The text of a stream in another encoding, as UTF-8."""

    def __init__(self, stream: Any, name: str, encoding: str) -> None:
        self.stream, self.name, self.encoding = stream, name, encoding
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.pending, self.line = b"", 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        is_complete = False
        while not self.pending and not is_complete:
            block = self.stream.read(BLOCK_SIZE)
            is_complete = not block
            try:
                text = self.decoder.decode(block, final=is_complete)
            except UnicodeDecodeError as error:
                line = self.line + error.object[: error.start].decode(self.encoding, errors="ignore").count("\n")
                raise DataError(
                    f"{self.name}, about line {line}: not {self.encoding} text ({error.reason}); "
                    "is the file cut short, or in another encoding? Set data.encoding to that"
                ) from None
            self.line += text.count("\n")
            self.pending = text.encode()
        size = min(len(buffer), len(self.pending))
        buffer[:size], self.pending = self.pending[:size], self.pending[size:]
        return size


def decode_line(line: bytes, name: str, number: int) -> str:
    """The text of a line, without a byte order mark. Raises DataError if it is not UTF-8."""
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise encoding_error(name, number, line, error.start, error.reason) from None


def encoding_error(name: str, number: int, line: bytes, at: int, reason: str) -> DataError:
    """The error for a line that is not UTF-8, with the line in likely encodings. `at`: the index of the first bad byte."""
    advice = "".join(
        f"\n  data.encoding={encoding} reads the line as {preview(text)!r}"
        for encoding, text in _likely_texts(line).items()
    )
    return DataError(
        f"{name}, line {number}: not UTF-8 text (byte {at + 1}: {reason}); save the file as UTF-8, or set data.encoding"
        + (f", perhaps to one of these:{advice}" if advice else "")
    )


def _likely_texts(line: bytes) -> dict[str, str]:
    """The line in likely encodings. Which of two single-byte encodings is right, only a reader can tell."""
    from charset_normalizer import from_bytes

    texts = {}
    with suppress(UnicodeDecodeError):
        texts["cp1252"] = line.decode("cp1252")
    if (guess := from_bytes(line[: 1 << 16], cp_isolation=SUGGESTED_ENCODINGS).best()) is not None:
        is_latin = guess.encoding in ("cp1250", "cp1252", "mac_roman")
        if str(guess) not in texts.values():
            texts = (texts if is_latin else {}) | {guess.encoding.replace("_", "-"): str(guess)}
    return texts
