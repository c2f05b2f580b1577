"""A stand-in for the Hugging Face hub on loopback: what huggingface_hub asks of it for snapshots, from folders on disk."""

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


TOKENS = ("hf_secret", "hf_stranger")  # the second one's account has no access to what is gated
LARGE = (".safetensors", ".parquet")  # in LFS: named by SHA-256


class Fault(NamedTuple):
    """What befalls the first requests (METHOD /path) that hold `on`: a status, a dropped connection or another body."""

    on: str
    status: int = 0  # answered with `headers`
    headers: dict[str, str] = {}  # noqa: RUF012
    drop: int | None = None  # the connection ends after so many bytes of the body; -1: before any answer
    reset: bool = False  # it is reset then, not closed
    body: Callable[[bytes], bytes] | None = (
        None  # what is sent in the place of a file or listing, its length told rightly
    )
    times: int = 1


class Hub(ThreadingHTTPServer):
    """Serves root/{datasets,models}/OWNER/NAME/; `gated` names ask for the token "hf_secret"."""

    daemon_threads = True

    def __init__(self, root: Path, gated: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.gated = root, gated
        self.asked: list[str] = []
        self.ranges: list[str] = []  # of the requests that asked for a part
        self.faults: list[Fault] = []
        self.knows_ranges = True

    def downloads(self) -> list[str]:
        """The files whose content was asked for."""
        return [path for path in self.asked if path.startswith("GET") and "/resolve/" in path]

    def fault(self, request: str) -> Fault | None:
        """The fault that is due; it is struck off the list."""
        for number, fault in enumerate(self.faults):
            if fault.on in request:
                left = [fault._replace(times=fault.times - 1)] if fault.times > 1 else []
                self.faults[number : number + 1] = left
                return fault
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet: a client that goes away in the middle is what some tests are about."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    fault: Fault | None = None

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if "Range" in self.headers:
            self.server.ranges.append(self.headers["Range"])
        self.fault = self.server.fault(f"{self.command} {self.path}")
        if self.fault and self.fault.status:
            self.answer(self.fault.status, b"{}", self.fault.headers, body=body)
            return
        if self.fault and self.fault.drop == -1:
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

    def refused(self, kind: str, name: str, revision: str, body: bool) -> bool:
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
        self, kind: str, name: str, what: str | None, revision: str | None, _: str | None, body: bool
    ) -> None:
        if self.refused(kind, name, revision or "main", body):
            return
        root = self.server.root / kind / name
        files = sorted(file for file in root.rglob("*") if file.is_file())
        entries = [described(file.relative_to(root).as_posix(), file.read_bytes()) for file in files]
        if what == "tree":
            tree = [{"type": "file", "path": each["rfilename"], "oid": each["blobId"], **each} for each in entries]
            self.answer_json(tree, body)
            return
        sha = REVISIONS[revision or "main"]
        self.answer_json({"id": name, "sha": sha, "private": False, "siblings": entries}, body)

    def answer_file(self, kind: str, name: str, revision: str, path: str, body: bool) -> None:
        if self.refused(kind, name, revision, body):
            return
        file, commit = self.server.root / kind / name / path, {"X-Repo-Commit": REVISIONS[revision]}
        if not file.is_file():
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound", **commit}, body=body)
            return
        content = file.read_bytes()
        headers = {"ETag": f'"{etag(path, content)}"', **commit}
        if self.fault and self.fault.body:
            content = self.fault.body(content)
        asked = self.headers.get("Range", "bytes=0-") if self.server.knows_ranges else "bytes=0-"
        first, _, last = asked.removeprefix("bytes=").partition("-")
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
        if self.fault and self.fault.body:
            content = self.fault.body(content)
        self.answer(200, content, {"Content-Type": "application/json"}, body=body)

    def answer(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        drop = self.fault.drop if self.fault else None
        if body:
            self.wfile.write(content[:drop])
        if drop is not None:
            self.close_connection = True
        if self.fault and self.fault.reset:  # close sends RST where nothing may linger
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the tests read standard error."""


def described(path: str, content: bytes) -> dict[str, Any]:
    """A file as the hub lists it."""
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
def serving(root: Path, gated: tuple[str, ...] = ()) -> Iterator[Hub]:
    hub = Hub(root, gated)
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
