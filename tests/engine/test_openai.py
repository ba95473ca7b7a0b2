"""The HTTP client against a local server that misbehaves: retries, refusals, overflow, lost replies."""

import asyncio
import http.server
import json
import threading

import pytest

from score.agent.protocol import Message
from score.config.schema import Model, Sampling
from score.engine import openai as client
from score.engine.base import Request
from score.errors import InfrastructureError, ScoreError

REQUEST = Request(
    (Message("system", "s"), Message("user", "hello")), Sampling(top_k=20, repetition_penalty=1.1), seed=7
)


def reply(text: str | None, finish: str = "stop") -> tuple[int, dict]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return 200, {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


@pytest.fixture
def server():
    """A server with a queue of (status, body) answers; the last one repeats. Keeps what it was sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.seen.append(body)
            answers = self.server.answers
            status, content = answers.pop(0) if len(answers) > 1 else answers[0]
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args): ...

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.seen, httpd.answers = [], []
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd
    httpd.shutdown()


def ask(server, *answers, retries=3, timeout_s=5.0):
    server.answers[:] = answers
    model = Model(
        engine="endpoint", url=f"http://127.0.0.1:{server.server_port}/v1", timeout_s=timeout_s, retries=retries
    )

    async def go():
        async with client.connect(model, model.url, "m") as engine:
            return await engine.complete(REQUEST)

    return asyncio.run(go())


def test_a_request_says_all_that_decides_the_reply(server):
    done = ask(server, reply("hi"))
    assert (done.text, done.finish, done.prompt_tokens, done.completion_tokens) == ("hi", "stop", 5, 2)
    (sent,) = server.seen
    assert sent["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}]
    expected = {
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
        "repetition_penalty": 1.1,
        "max_tokens": 4096,
        "seed": 7,
    }
    assert {key: sent[key] for key in expected} == expected


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_failures_are_tried_again(server, status):
    assert ask(server, (status, {"error": "busy"}), (status, {"error": "busy"}), reply("hi")).text == "hi"
    assert len(server.seen) == 3


def test_a_lasting_failure_is_an_infrastructure_error(server):
    with pytest.raises(InfrastructureError, match="InternalServerError"):
        ask(server, (500, {"error": "broken"}), retries=1)
    assert len(server.seen) == 2


def test_a_bad_request_is_not_repeated(server):
    with pytest.raises(InfrastructureError, match="refused"):
        ask(server, (400, {"error": {"message": "unknown sampling key"}}))
    assert len(server.seen) == 1


def test_an_overlong_conversation_is_an_overflow_not_an_error(server):
    body = {"error": {"message": "This model's maximum context length is 8192 tokens."}}
    assert ask(server, (400, body)).finish == "context"


def test_a_limit_that_does_not_fit_is_left_to_the_server(server):
    """Half a context of new tokens may not fit after a long conversation; the room that is left does."""
    body = {"error": {"message": "This model's maximum context length is 8192 tokens."}}
    assert ask(server, (400, body), reply("hi")).text == "hi"
    assert ["max_tokens" in sent for sent in server.seen] == [True, False]


def test_a_cut_reply_is_named(server):
    assert ask(server, reply("hal", "length")).finish == "length"


def test_a_reply_without_content_is_no_answer(server):
    with pytest.raises(InfrastructureError, match="without content"):
        ask(server, reply(None))


def test_nobody_listening_is_an_infrastructure_error():
    model = Model(engine="endpoint", url="http://127.0.0.1:9/v1", timeout_s=1, retries=0)

    async def go():
        async with client.connect(model, model.url, "m") as engine:
            return await engine.complete(REQUEST)

    with pytest.raises(InfrastructureError):
        asyncio.run(go())


def test_a_missing_key_is_named(monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ScoreError, match="SOME_KEY"):
        client.endpoint_key(Model(engine="endpoint", url="http://x", api_key_env="SOME_KEY"))
