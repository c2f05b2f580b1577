"""A stand-in for the Hugging Face hub on loopback: what huggingface_hub asks of it for snapshots, from folders on disk."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT, OLDER = "a" * 40, "b" * 40
REVISIONS = {"main": COMMIT, COMMIT: COMMIT, "v1": OLDER, OLDER: OLDER}


class Hub(ThreadingHTTPServer):
    """Serves root/{datasets,models}/OWNER/NAME/; `gated` names ask for the token "hf_secret"."""

    daemon_threads = True

    def __init__(self, root: Path, gated: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.gated = root, gated
        self.asked: list[str] = []

    def downloads(self) -> list[str]:
        """The files whose content was asked for."""
        return [path for path in self.asked if path.startswith("GET") and "/resolve/" in path]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
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
        if not (self.server.root / kind / name).is_dir():
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)
        elif name in self.server.gated and self.headers.get("Authorization") != "Bearer hf_secret":
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"}, body=body)
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
        files = sorted(file for file in (self.server.root / kind / name).rglob("*") if file.is_file())
        names = [file.relative_to(self.server.root / kind / name).as_posix() for file in files]
        if what == "tree":
            entries = [
                {"type": "file", "path": path, "size": file.stat().st_size, "oid": etag(file.read_bytes())}
                for path, file in zip(names, files, strict=True)
            ]
            self.answer_json(entries, body)
            return
        self.answer_json(
            {
                "id": name,
                "sha": REVISIONS[revision or "main"],
                "private": False,
                "siblings": [{"rfilename": n} for n in names],
            },
            body,
        )

    def answer_file(self, kind: str, name: str, revision: str, path: str, body: bool) -> None:
        if self.refused(kind, name, revision, body):
            return
        file, commit = self.server.root / kind / name / path, {"X-Repo-Commit": REVISIONS[revision]}
        if not file.is_file():
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound", **commit}, body=body)
            return
        content = file.read_bytes()
        self.answer(200, content, {"ETag": f'"{etag(content)}"', **commit}, body=body)

    def answer_json(self, value: Any, body: bool) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body=body)

    def answer(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the tests read standard error."""


def etag(content: bytes) -> str:
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
