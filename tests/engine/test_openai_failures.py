"""The HTTP client against servers that fail: retries, time-outs, lost replies, and others that stand in."""

import asyncio
import contextlib
import socket
import sys

import pytest
from answering import CUT, REQUEST, ask, at, complete, refusal, reply

from score.agent.protocol import Message
from score.config.schema import Model, Sampling
from score.engine import openai as client
from score.engine.balance import Balancer
from score.engine.base import Request
from score.engine.serve import serve
from score.errors import InfrastructureError


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


def test_a_reply_of_broken_json_is_tried_again_like_a_lost_one(server, pauses):
    broken = (200, b'{"choices": [{"mess')
    assert ask(server, broken, broken, reply("hi")).text == "hi"
    assert len(pauses) == 2
    with pytest.raises(InfrastructureError, match="not JSON"):
        ask(server, broken, retries=1)
    with pytest.raises(InfrastructureError, match="not JSON"):
        ask(server, (200, b"[" * 100_000), retries=0)


def test_a_broken_reply_ends_its_own_episode_alone(server, pauses):
    server.answers[:] = [(200, b"{"), reply("hi")]
    _, outcomes = asyncio.run(complete(at(server, retries=0, batch=1), REQUEST, REQUEST))
    assert isinstance(outcomes[0], InfrastructureError)
    assert outcomes[1].text == "hi"


def test_a_server_that_does_not_answer_in_time_is_given_up(server, pauses):
    server.release.clear()
    with pytest.raises(InfrastructureError, match="APITimeoutError"):
        ask(server, (200, CUT), timeout_s=2, retries=1)  # long enough for a busy machine to have sent it
    assert len(pauses) == 1
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


def test_all_further_sendings_are_counted(server, pauses):
    server.answers[:] = [refusal("max_tokens is too large"), (500, {}), reply("hi")]
    engine, _ = asyncio.run(complete(at(server), REQUEST))
    assert engine.retried == 2


def test_retries_are_counted(server, pauses):
    server.answers[:] = [(500, {}), (500, {}), reply("hi")]
    engine, _ = asyncio.run(complete(at(server), REQUEST))
    assert engine.retried == 2


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


@pytest.mark.parametrize("status", [502, 503])
def test_a_gateway_without_a_server_behind_it_is_stood_in_for(server, second, pauses, status):
    server.answers[:], second.answers[:] = [(status, {"error": "nobody there"})], [reply("hi")]
    engine, (done,) = asyncio.run(complete(at(server, second, retries=1), REQUEST))
    assert done.text == "hi"
    assert [len(one.seen) for one in (server, second)] == [2, 1]
    assert engine.retried == 2, "the second server was sent the request as well"


def test_it_is_an_infrastructure_error_when_all_are_down(server, second, pauses):
    for one in (server, second):
        one.answers[:] = [(503, {"error": "nobody there"})]
    _, (outcome,) = asyncio.run(complete(at(server, second, retries=1), REQUEST))
    assert isinstance(outcome, InfrastructureError)
    assert [len(one.seen) for one in (server, second)] == [2, 2]


def test_a_reply_that_takes_too_long_takes_no_longer_with_several_servers(server, second, pauses):
    """What takes one server too long takes its equals too long as well: only one is asked."""
    for one in (server, second):
        one.answers[:] = [(200, CUT)]
        one.release.clear()
    engine, (outcome,) = asyncio.run(complete(at(server, second, timeout_s=2, retries=1), REQUEST))
    assert isinstance(outcome, InfrastructureError)
    assert [len(one.seen) for one in (server, second)] == [2, 0]
    assert engine.retried == 1


def test_a_request_that_breaks_a_server_does_not_go_to_the_others_and_new_work_does(server, second, pauses):
    server.answers[:], second.answers[:] = [(500, {"error": "broken"})], [reply("hi")]

    async def go():
        async with client.connect(at(server, second, retries=1), "m") as engine:
            with pytest.raises(InfrastructureError, match="InternalServerError"):
                await engine.complete(conversation(0))
            assert len(second.seen) == 0
            return [(await engine.complete(conversation(n))).text for n in (0, 1, 2)]

    assert asyncio.run(go()) == ["hi"] * 3
    assert len(server.seen) == 2


def test_a_server_that_cannot_be_connected_to_in_time_is_stood_in_for(second, pauses):
    """Its machine is gone, so that nobody even refuses the connection."""
    second.answers[:] = [reply("hi")]
    with contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as full, contextlib.ExitStack() as held:
        for _ in range(3):
            waiting = held.enter_context(contextlib.closing(socket.socket()))
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        gone = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        model = Model(engine="endpoint", url=[gone, *at(second).urls], timeout_s=2, retries=0)
        _, (done,) = asyncio.run(complete(model, REQUEST))
    assert done.text == "hi"
