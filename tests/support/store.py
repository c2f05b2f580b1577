"""A local server that serves the files of a folder like a web server or S3, with ranges and bucket listings."""

import email.utils
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class Store(ThreadingHTTPServer):
    """Serves root/…, with `ranges` also parts of files. `sent` counts the bytes of files that clients have received.

    `authorization`: the header that each request must have; None: none is needed.
    """

    daemon_threads = True

    def __init__(self, root: Path, ranges: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.ranges = root, ranges
        self.sent = 0
        self.requests: list[str] = []
        self.authorization: str | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Store
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        parts = urlsplit(self.path)
        file, query = self.server.root / unquote(parts.path).lstrip("/"), parse_qs(parts.query)
        if self.server.authorization not in (None, self.headers.get("Authorization")):
            self.answer(401, b"", {}, body)
        elif file.is_dir() and "list-type" in query:
            self.answer(
                200, self.listing(file, query.get("prefix", [""])[0]), {"Content-Type": "application/xml"}, body
            )
        elif not file.is_file():
            self.answer(404, b"", {}, body)
        else:
            self.answer_file(file.read_bytes(), body)

    def listing(self, bucket: Path, prefix: str) -> bytes:
        files = sorted(file for file in bucket.rglob("*") if file.is_file())
        names = [(file.relative_to(bucket).as_posix(), file.stat().st_size) for file in files]
        entries = "".join(
            f"<Contents><Key>{name}</Key><Size>{size}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            '<ETag>"x"</ETag><StorageClass>STANDARD</StorageClass></Contents>'
            for name, size in names
            if name.startswith(prefix)
        )
        head = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        return f"{head}<Name>{bucket.name}</Name><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()

    def answer_file(self, content: bytes, body: bool) -> None:
        requested = self.headers.get("Range", "")
        headers = {"Accept-Ranges": "bytes"} if self.server.ranges else {}
        if requested.startswith("bytes=") and self.server.ranges:
            first, _, last = requested.removeprefix("bytes=").partition("-")
            start = int(first) if first else len(content) - int(last)
            stop = min(int(last) + 1 if last and first else len(content), len(content))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            self.answer(206, content[start:stop], headers, body)
        else:
            self.answer(200, content, headers, body)

    def answer(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        modified = email.utils.formatdate(0, usegmt=True)
        for name, value in {"Last-Modified": modified, "ETag": '"x"', **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for start in range(0, len(content) if body else 0, 1 << 14):
            try:
                self.wfile.write(content[start : start + (1 << 14)])
            except OSError:  # the client has closed the connection
                self.close_connection = True
                return
            self.server.sent += len(content[start : start + (1 << 14)])

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: tests check standard error."""


@contextmanager
def serve_store(root: Path, ranges: bool = True) -> Iterator[Store]:
    store = Store(root, ranges)
    thread = Thread(target=store.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield store
    finally:
        store.shutdown()
        thread.join()
        store.server_close()
