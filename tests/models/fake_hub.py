"""A server in this process that speaks the hub's protocol, with one model."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "lab/tiny"


class Hub(ThreadingHTTPServer):
    """One model of the hub. `cuts`: so many times half of the weights are sent, then nothing until `goes_on`, and the
    connection ends. `spoils`: so many times they are sent with another last byte."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.commit = files, COMMIT
        self.refusal: tuple[int, str] | None = None
        self.cuts = self.spoils = 0
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def downloads(self) -> list[str]:
        """Names of the files that were asked for since the last call."""
        names = [path.rsplit("/", 1)[1] for method, path in self.asked if method == "GET" and "/resolve/" in path]
        self.asked.clear()
        return sorted(names)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append((self.command, path := self.path.partition("?")[0]))
        if self.server.refusal:
            status, code = self.server.refusal
            return self.answer(status, b"{}", {"X-Error-Code": code} if code else {})
        if path in (f"/api/models/{NAME}/revision/{revision}" for revision in ("main", "v1", self.server.commit)):
            siblings = [{"rfilename": name} for name in self.server.files]
            return self.json({"id": NAME, "sha": self.server.commit, "siblings": siblings, "tags": []})
        if path.startswith(f"/api/models/{NAME}/revision/"):
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if path == f"/api/models/{NAME}/tree/{self.server.commit}":
            return self.json([_row(name, content) for name, content in self.server.files.items()])
        if path.startswith(f"/api/models/{NAME}/tree/"):
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        name = path.removeprefix(f"/{NAME}/resolve/{self.server.commit}/")
        if name in self.server.files:
            return self.file(name, self.server.files[name])
        return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def file(self, name: str, content: bytes) -> None:
        headers = {"ETag": f'"{_checksum(name, content)}"', "X-Repo-Commit": self.server.commit}
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        cut = _is_large(name) and self.command == "GET" and self.server.cuts > 0
        self.server.cuts -= cut
        if _is_large(name) and self.command == "GET" and self.server.spoils > 0:
            self.server.spoils -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.answer(206 if first else 200, content[first:], headers | {"Accept-Ranges": "bytes"}, cut=cut)

    def json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.wfile.flush()
        if cut:
            self.server.goes_on.wait(60)
            self.close_connection = True

    def log_message(self, *args: object) -> None: ...


def _is_large(name: str) -> bool:
    """Kept in git LFS, and so named by its sha256."""
    return name.endswith(".safetensors")


def _checksum(name: str, content: bytes) -> str:
    if _is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _row(name: str, content: bytes) -> dict:
    """A file in the listing of a commit."""
    row = {"type": "file", "path": name, "size": len(content), "oid": _checksum(name, content)[:40]}
    if _is_large(name):
        row["lfs"] = {"oid": _checksum(name, content), "size": len(content), "pointerSize": 130}
    return row
