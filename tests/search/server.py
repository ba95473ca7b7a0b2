"""A search service on this machine, for tests: real HTTP, with a script of what goes wrong."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """What is sent back. `promised`: bytes announced, if not those sent; `every_s`: wait before each byte sent."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None
    every_s: float = 0.0


HANG_UP = None
"""In place of an `Answer`: the connection is closed without one."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: dict | None


class Server:
    """Answers its requests with a script; the last entry is repeated."""

    def __init__(self) -> None:
        self.script: list[Answer | None] = [Answer()]
        self.requests: list[Request] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
                path, _, params = self.path.partition("?")
                headers = {name.lower(): value for name, value in self.headers.items()}
                given = dict(urllib.parse.parse_qsl(params))
                server.requests.append(Request(self.command, path, given, headers, body))
                answer = server.script.pop(0) if len(server.script) > 1 else server.script[0]
                if answer is HANG_UP:
                    self.close_connection = True
                else:
                    self._send(answer)

            do_GET = do_HEAD = do_POST

            def _send(self, answer: Answer) -> None:
                body = answer.body.encode()
                self.send_response(answer.status)
                self.send_header("Content-Length", str(answer.promised or len(body)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    size = 1 if answer.every_s else len(body)
                    for start in range(0, len(body), size or 1):
                        self.wfile.write(body[start : start + size])
                        time.sleep(answer.every_s)
                except OSError:
                    pass  # the client has given up, as it should

            def log_message(self, *args: object) -> None: ...

        return Handler
