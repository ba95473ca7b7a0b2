"""A program that takes vLLM's command line and answers as vLLM does, at once: `SCORE_VLLM_PYTHON` for tests.

It says first, as one line of JSON, what it was given: its words, its GPUs, and its process group.
"""

import http.server
import itertools
import json
import os
import signal
import socketserver
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("CUDA_VISIBLE_DEVICES", "VLLM_API_KEY")


def install(folder: Path, *behaviour: str) -> str:
    """Writes it as a program and returns its path. Behaviour: deaf, forks, slow (to get ready)."""
    file = folder / "vllm"
    text = Path(__file__).read_text(encoding="utf-8")
    file.write_text(f"#!{sys.executable}\n{text}\nrun({list(behaviour)!r})\n", encoding="utf-8")
    file.chmod(0o755)
    return str(file)


def said(log: Path) -> dict:
    """What the last such server that wrote to the log was given."""
    return json.loads([line for line in log.read_text().splitlines() if line.startswith('{"words"')][-1])


def after(word: str, words: list[str]) -> str | None:
    return words[words.index(word) + 1] if word in words else None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(503 if time.monotonic() < self.server.ready else 200, {})
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": name} for name in self.server.names]})
        else:
            self.answer(200, {"version": "0"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = f"{body['model']} says: {body['messages'][-1]['content']}"
        choice = {"message": {"content": text}, "finish_reason": "stop", "token_ids": [7, 8, 0]}
        known = body["model"] in self.server.names
        self.answer(200 if known else 404, {"choices": [choice], "usage": {}} if known else {"error": "no such model"})

    def answer(self, status: int, reply: dict) -> None:
        key = os.environ.get("VLLM_API_KEY")
        if key and self.path.startswith("/v1") and self.headers["Authorization"] != f"Bearer {key}":
            status, reply = 401, {"error": "Unauthorized"}
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None: ...


class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple:
        return self.socket.accept()[0], ("", 0)


def run(behaviour: list[str]) -> None:
    if "deaf" in behaviour:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "forks" in behaviour:
        subprocess.Popen(["sleep", "300"])
    words = sys.argv[1:]
    given = {"words": words, "group": os.getpgrp(), **{name: os.environ.get(name) for name in NAMES}}
    print(json.dumps(given), flush=True)
    if place := after("--uds", words):
        server = Unix(place, Handler)
    else:
        server = http.server.ThreadingHTTPServer((after("--host", words), int(after("--port", words))), Handler)
    adapters = [word.split("=")[0] for word in words if "=" in word]
    called = itertools.takewhile(
        lambda word: not word.startswith("--"), words[words.index("--served-model-name") + 1 :]
    )
    server.names = [*called, *adapters]
    server.ready = time.monotonic() + (2 if "slow" in behaviour else 0)
    server.serve_forever()
