"""A local model server that answers as it is told, and what a test asks it."""

import asyncio
import http.server
import json
import threading

from score.agent.protocol import Message
from score.config.schema import Model, Sampling
from score.engine import openai as client
from score.engine.base import Request

REQUEST = Request(
    (Message("system", "s"), Message("user", "hello")), Sampling(top_k=20, repetition_penalty=1.1), seed=7
)

CUT = {"cut": "in the middle"}
"""A reply of which the head arrives and the body does not."""


def reply(text: str | None, finish: str = "stop", usage: dict | None = None, **choice) -> tuple[int, dict]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **choice}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, **(usage or {})}
    return 200, {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


def refusal(message: str) -> tuple[int, dict]:
    return 400, {"error": {"message": message}}


def answering():
    """A server with a queue of (status, body) answers, JSON or bytes; the last one repeats. Keeps what it was sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.seen.append(body)
            answers = self.server.answers
            status, content, *headers = answers.pop(0) if len(answers) > 1 else answers[0]
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            cut = len(data) if content is not CUT else 0
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[:cut])
            self.close_connection = cut < len(data)
            self.server.release.wait(10)

        def log_message(self, *args): ...

    class Server(http.server.ThreadingHTTPServer):
        def get_request(self):
            self.connections += 1
            return super().get_request()

    httpd = Server(("127.0.0.1", 0), Handler)
    httpd.seen, httpd.answers, httpd.connections, httpd.release = [], [], 0, threading.Event()
    httpd.release.set()
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield httpd
    httpd.release.set()
    httpd.shutdown()


def at(*servers, **settings) -> Model:
    urls = [f"http://127.0.0.1:{server.server_port}/v1" for server in servers]
    return Model(engine="endpoint", url=urls, **{"timeout_s": 5.0, "retries": 3, **settings})


async def complete(model: Model, *requests: Request):
    """What became of each request, all at once."""
    async with client.connect(model, "m") as engine:
        return engine, await asyncio.gather(*map(engine.complete, requests), return_exceptions=True)


def ask(server, *answers, request=REQUEST, **settings):
    server.answers[:] = answers
    _, (outcome,) = asyncio.run(complete(at(server, **settings), request))
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
