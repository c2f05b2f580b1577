"""A local server that answers huggingface_hub's snapshot requests like the Hugging Face hub, from folders on disk."""

import hashlib
import json
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

COMMIT, OLDER = "a" * 40, "b" * 40
REVISIONS = {"main": COMMIT, COMMIT: COMMIT, "v1": OLDER, OLDER: OLDER}
TOKENS = ("hf_secret", "hf_stranger")  # the second account has no access to gated repositories
LARGE = (".safetensors", ".parquet")  # stored in LFS, with their SHA-256 as ETag


class Failure(NamedTuple):
    """A failure of the first requests (METHOD /path) that contain `on`: a status, a broken connection or a changed body."""

    on: str
    status: int = 0  # sent with `headers`
    headers: dict[str, str] = {}  # noqa: RUF012
    drop: int | None = None  # bytes of the body after which the connection is closed; -1: before the response
    reset: bool = False  # reset the connection instead
    body: Callable[[bytes], bytes] | None = None  # changes a file or listing; Content-Length fits the changed one
    times: int = 1


class Hub(ThreadingHTTPServer):
    """Serves root/{datasets,models}/OWNER/NAME/; `gated` repositories require the token "hf_secret"."""

    daemon_threads = True

    def __init__(self, root: Path, gated: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.gated = root, gated
        self.requests: list[str] = []
        self.ranges: list[str] = []  # Range headers
        self.failures: list[Failure] = []
        self.supports_ranges = True

    def downloads(self) -> list[str]:
        """The requests for contents of files."""
        return [path for path in self.requests if path.startswith("GET") and "/resolve/" in path]

    def next_failure(self, request: str) -> Failure | None:
        """Remove and return the failure for a request."""
        for index, failure in enumerate(self.failures):
            if failure.on in request:
                remaining = [failure._replace(times=failure.times - 1)] if failure.times > 1 else []
                self.failures[index : index + 1] = remaining
                return failure
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: some tests close connections early."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    failure: Failure | None = None

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        if "Range" in self.headers:
            self.server.ranges.append(self.headers["Range"])
        self.failure = self.server.next_failure(f"{self.command} {self.path}")
        if self.failure and self.failure.status:
            self.answer(self.failure.status, b"{}", self.failure.headers, body=body)
            return
        if self.failure and self.failure.drop == -1:
            self.close_connection = True
            return
        path = self.path.split("?")[0]
        api = re.fullmatch(r"/api/(datasets|models)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(/.*)?)?", path)
        resolved = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if api:
            self.answer_api(*api.groups(), body=body)
        elif resolved:
            kind = "datasets" if resolved[1] else "models"
            self.answer_file(kind, resolved[2], resolved[3], resolved[4], body=body)
        else:
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body=body)

    def refuse(self, kind: str, name: str, revision: str, body: bool) -> bool:
        """Send an error if the client may not read this revision; returns whether it did."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            self.answer(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"}, body=body)
        elif not (self.server.root / kind / name).is_dir():
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)
        elif name in self.server.gated and token != "hf_secret":
            self.answer(403 if token else 401, b"{}", {"X-Error-Code": "GatedRepo"}, body=body)
        elif revision not in REVISIONS:
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body=body)
        else:
            return False
        return True

    def answer_api(
        self, kind: str, name: str, view: str | None, revision: str | None, _: str | None, body: bool
    ) -> None:
        if self.refuse(kind, name, revision or "main", body):
            return
        root = self.server.root / kind / name
        files = sorted(file for file in root.rglob("*") if file.is_file())
        entries = [file_entry(file.relative_to(root).as_posix(), file.read_bytes()) for file in files]
        if view == "tree":
            tree = [{"type": "file", "path": entry["rfilename"], "oid": entry["blobId"], **entry} for entry in entries]
            self.answer_json(tree, body)
            return
        sha = REVISIONS[revision or "main"]
        self.answer_json({"id": name, "sha": sha, "private": False, "siblings": entries}, body)

    def answer_file(self, kind: str, name: str, revision: str, path: str, body: bool) -> None:
        if self.refuse(kind, name, revision, body):
            return
        file, commit = self.server.root / kind / name / path, {"X-Repo-Commit": REVISIONS[revision]}
        if not file.is_file():
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound", **commit}, body=body)
            return
        content = file.read_bytes()
        headers = {"ETag": f'"{etag(path, content)}"', **commit}
        if self.failure and self.failure.body:
            content = self.failure.body(content)
        requested = self.headers.get("Range", "bytes=0-") if self.server.supports_ranges else "bytes=0-"
        first, _, last = requested.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1, len(content)) if last else len(content)
        if start >= len(content) > 0:
            self.answer(416, b"", headers, body=body)
        elif start or stop < len(content):
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            self.answer(206, content[start:stop], headers, body=body)
        else:
            self.answer(200, content, headers, body=body)

    def answer_json(self, value: Any, body: bool) -> None:
        content = json.dumps(value).encode()
        if self.failure and self.failure.body:
            content = self.failure.body(content)
        self.answer(200, content, {"Content-Type": "application/json"}, body=body)

    def answer(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        drop = self.failure.drop if self.failure else None
        if body:
            self.wfile.write(content[:drop])
        if drop is not None:
            self.close_connection = True
        if self.failure and self.failure.reset:  # with a linger time of 0, close sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: tests check standard error."""


def file_entry(path: str, content: bytes) -> dict[str, Any]:
    """A file's entry in the hub's listings."""
    entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": etag("", content)}
    if path.endswith(LARGE):
        entry["lfs"] = {
            "sha256": etag(path, content),
            "oid": etag(path, content),
            "size": len(content),
            "pointerSize": 9,
        }
    return entry


def etag(path: str, content: bytes) -> str:
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serve_hub(root: Path, gated: tuple[str, ...] = ()) -> Iterator[Hub]:
    hub = Hub(root, gated)
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
