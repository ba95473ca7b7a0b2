"""The HTTP client against a local server that misbehaves: retries, refusals, overflow, lost replies."""

import asyncio
import dataclasses
import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from score.agent.protocol import Message
from score.config.schema import Model, Sampling
from score.engine import openai as client
from score.engine.balance import Balancer
from score.engine.base import Request
from score.engine.serve import Server, serve
from score.errors import InfrastructureError, ScoreError

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


@pytest.fixture
def server():
    yield from answering()


@pytest.fixture
def second():
    yield from answering()


def answering():
    """A server with a queue of (status, body) answers; the last one repeats. Keeps what it was sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.seen.append(body)
            answers = self.server.answers
            status, content, *headers = answers.pop(0) if len(answers) > 1 else answers[0]
            data = json.dumps(content).encode()
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


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that the client would have waited before each retry."""
    waited = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("openai._base_client.anyio.sleep", sleep)
    return waited


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


def test_a_limit_above_the_whole_context_is_left_to_the_server_too(server):
    body = {"error": {"message": "max_tokens=5000 cannot be greater than max_model_len=1024. (parameter=max_tokens)"}}
    assert ask(server, (400, body), reply("hi")).text == "hi"
    assert ["max_tokens" in sent for sent in server.seen] == [True, False]


def test_a_cut_reply_is_named(server):
    assert ask(server, reply("hal", "length")).finish == "length"


def test_a_reply_without_content_is_no_answer(server):
    with pytest.raises(InfrastructureError, match="without content"):
        ask(server, reply(None))


def test_nobody_listening_is_an_infrastructure_error(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(InfrastructureError, match="APIConnectionError"):
        ask(server, retries=0)


def test_a_connection_lost_in_the_middle_of_a_reply_is_tried_again(server, pauses):
    assert ask(server, (200, CUT), (200, CUT), reply("hi")).text == "hi"
    assert len(server.seen) == 3


def test_a_connection_that_is_always_lost_is_an_infrastructure_error(server, pauses):
    with pytest.raises(InfrastructureError, match="APIConnectionError"):
        ask(server, (200, CUT), retries=2)
    assert len(server.seen) == 3


def test_a_server_that_does_not_answer_in_time_is_given_up(server, pauses):
    server.release.clear()
    with pytest.raises(InfrastructureError, match="APITimeoutError"):
        ask(server, (200, CUT), timeout_s=0.2, retries=1)
    assert len(server.seen) == 2


def test_retries_back_off_with_jitter(server, pauses):
    busy = (503, {"error": "busy"})
    for _ in range(2):
        ask(server, busy, busy, busy, reply("hi"))
    first, second = pauses[:3], pauses[3:]
    assert [0.5 * 0.75 <= pause <= 0.5 for pause in (first[0], second[0])] == [True, True]
    assert first[0] < first[1] < first[2]
    assert first != second


def test_the_server_may_say_how_long_to_wait(server, pauses):
    busy = (429, {"error": "slow down"}, ("Retry-After", "17"))
    assert ask(server, busy, reply("hi")).text == "hi"
    assert pauses == [17]


def test_retries_are_counted(server, pauses):
    server.answers[:] = [(500, {}), (500, {}), reply("hi")]
    engine, _ = asyncio.run(complete(at(server), REQUEST))
    assert engine.retried == 2


@pytest.mark.parametrize("body", ["a page for people", [], {"choices": []}, {"choices": [{"message": None}]}])
def test_what_is_no_completion_is_an_infrastructure_error(server, body):
    with pytest.raises(InfrastructureError, match="sent no completion"):
        ask(server, (200, body))


def test_no_more_connections_than_requests_may_be_in_flight(server):
    server.answers[:] = [reply("hi")]
    _, done = asyncio.run(complete(at(server, batch=4), *[REQUEST] * 40))
    assert [completion.text for completion in done] == ["hi"] * 40
    assert server.connections <= 4


# What only some servers know.

SCHEMA = {"type": "object", "properties": {"step": {"type": "integer"}}, "required": ["step"]}
WITH_SCHEMA = dataclasses.replace(REQUEST, schema=SCHEMA)


def test_a_schema_is_sent_as_a_strict_response_format(server):
    ask(server, reply("{}"), request=WITH_SCHEMA)
    (sent,) = server.seen
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": SCHEMA, "strict": True},
    }


def test_a_server_without_schemas_is_asked_without_from_then_on(server, caplog):
    server.answers[:] = [refusal("response_format is not supported"), reply("{}")]

    async def go():
        async with client.connect(at(server), "m") as engine:
            return [await engine.complete(WITH_SCHEMA) for _ in range(3)]

    assert [done.text for done in asyncio.run(go())] == ["{}"] * 3
    assert ["response_format" in sent for sent in server.seen] == [True, False, False, False]
    assert caplog.text.count("takes no schema") == 1


def test_another_refusal_does_not_make_a_server_one_without_schemas(server, caplog):
    server.answers[:] = [refusal("unknown model"), refusal("unknown model"), reply("{}")]

    async def go():
        async with client.connect(at(server), "m") as engine:
            with pytest.raises(InfrastructureError, match="unknown model"):
                await engine.complete(WITH_SCHEMA)
            await engine.complete(WITH_SCHEMA)

    asyncio.run(go())
    assert "response_format" in server.seen[-1]
    assert "takes no schema" not in caplog.text


def test_an_overflow_is_an_overflow_with_a_schema_too(server):
    too_long = refusal("This model's maximum context length is 8192 tokens.")
    assert ask(server, too_long, request=WITH_SCHEMA).finish == "context"
    assert all("response_format" in sent for sent in server.seen)


def test_token_ids_come_without_the_end_of_the_turn(server):
    choice = {"token_ids": [4, 5, 2], "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -1}, {"logprob": 0}]}}
    done = ask(server, reply("hi", **choice), token_ids=True, logprobs=True)
    assert (done.token_ids, done.logprobs) == ((4, 5), (-0.5, -1))
    assert server.seen[0]["return_token_ids"] is True
    assert server.seen[0]["logprobs"] is True
    cut = ask(server, reply("hi", "length", **choice), token_ids=True, logprobs=True)
    assert (cut.token_ids, cut.logprobs) == ((4, 5, 2), (-0.5, -1, 0))


def test_nobody_is_asked_for_what_only_a_vllm_knows(server):
    done = ask(server, reply("hi"))
    assert (done.token_ids, done.logprobs) == (None, None)
    assert not {"return_token_ids", "logprobs", "response_format"} & set(server.seen[0])


def test_cached_tokens_are_told(server):
    done = ask(server, reply("hi", usage={"prompt_tokens_details": {"cached_tokens": 3}}))
    assert done.cached_tokens == 3
    assert ask(server, reply("hi", usage={"prompt_tokens_details": None})).cached_tokens == 0


# A server of this job's own.


def test_a_server_that_dies_ends_the_requests_that_wait_for_it_at_once(tmp_path):
    program = (
        "import http.server, sys, threading\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.send_header('Content-Length', '0'); self.end_headers()\n"
        "    def do_POST(self): print('out of memory', flush=True); threading.Event().wait()\n"
        "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
    )
    model, log = Model(engine="oracle", timeout_s=600, retries=5), tmp_path / "server.log"

    async def go(server):
        async with client.connect(model, "m", server=server) as engine:
            waiting = [asyncio.create_task(engine.complete(REQUEST)) for _ in range(3)]
            while log.read_text().count("out of memory") < 3:
                await asyncio.sleep(0.02)
            server.process.kill()
            outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)
            with pytest.raises(InfrastructureError, match="code -9"):
                await engine.complete(REQUEST)
            return outcomes

    with (
        pytest.raises(InfrastructureError, match="start again"),
        serve(lambda port: [sys.executable, "-c", program, port], log, timeout_s=20) as server,
    ):
        outcomes = asyncio.run(go(server))
    assert {type(outcome) for outcome in outcomes} == {InfrastructureError}
    assert all("code -9" in str(outcome) and "out of memory" in str(outcome) for outcome in outcomes)


def test_a_server_of_our_own_is_reached_past_any_proxy(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.answers[:] = [reply("hi")]
    own = Server(f"http://127.0.0.1:{server.server_port}", None, subprocess.Popen(["sleep", "60"]), Path("log"), 0)

    async def go():
        async with client.connect(Model(engine="oracle", retries=0), "m", server=own) as engine:
            return (await engine.complete(REQUEST)).text

    try:
        assert asyncio.run(go()) == "hi"
    finally:
        own.process.kill()
        own.process.wait()


# Several servers.


def conversation(number: int, turns: int = 0) -> Request:
    said = (Message("assistant", "a"), Message("user", "o")) * turns
    return Request((Message("user", f"question {number}"), *said), Sampling(), seed=turns)


def test_an_episodes_requests_stay_on_one_of_several_servers(server, second):
    for one in (server, second):
        one.answers[:] = [reply("hi")]

    async def go():
        async with client.connect(at(server, second), "m") as engine:
            for turns in range(4):
                await asyncio.gather(*(engine.complete(conversation(n, turns)) for n in range(10)))

    asyncio.run(go())
    asked = [{sent["messages"][0]["content"] for sent in one.seen} for one in (server, second)]
    assert not asked[0] & asked[1]
    assert [len(one.seen) for one in (server, second)] == [20, 20]


def test_new_work_goes_to_the_server_with_least_in_flight():
    balancer = Balancer(["a", "b", "c"])
    with balancer.asking("a", 1), balancer.asking("b", 2), balancer.asking("b", 3):
        assert balancer.order(4)[0] == "c"
        with balancer.asking("c", 4), balancer.asking("c", 5):
            assert balancer.order(6)[0] == "a"
            assert balancer.order(2)[0] == "b", "a known conversation stays"
    assert set(balancer.in_flight.values()) == {0}


def test_a_server_that_is_down_is_stood_in_for(server, second, pauses):
    second.shutdown()
    second.server_close()
    server.answers[:] = [reply("hi")]
    _, done = asyncio.run(complete(at(server, second), *map(conversation, range(10))))
    assert [completion.text for completion in done] == ["hi"] * 10


def test_it_is_an_infrastructure_error_when_all_are_down(server, second, pauses):
    for one in (server, second):
        one.answers[:] = [(500, {"error": "broken"})]
    _, (outcome,) = asyncio.run(complete(at(server, second, retries=1), REQUEST))
    assert isinstance(outcome, InfrastructureError)
    assert [len(one.seen) for one in (server, second)] == [2, 2]


def test_an_open_server_needs_no_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert client.endpoint_key(at(server).model_copy(update={"api_key_env": None})) == "none"


def test_a_missing_key_is_named(monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ScoreError, match="SOME_KEY"):
        client.endpoint_key(Model(engine="endpoint", url="http://x", api_key_env="SOME_KEY"))
