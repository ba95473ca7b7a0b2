"""What the HTTP client asks a server for and what it reads from the reply."""

import asyncio
import dataclasses
import subprocess
from pathlib import Path

import pytest
from answering import REQUEST, ask, at, complete, refusal, reply

from score.agent.protocol import Message
from score.config.schema import Forms, Model, Sampling
from score.engine import openai as client
from score.engine.base import Request
from score.engine.serve import Server
from score.errors import InfrastructureError, ScoreError


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


def test_half_a_character_is_sent_as_its_escape(server):
    """JSON can say a lone surrogate, and so can a reply that is sent back to be repaired; UTF-8 cannot."""
    server.answers[:] = [reply("cut \ud83d")]
    first = ask(server, *server.answers).text
    assert first == "cut \ud83d"
    again = Request((Message("assistant", first), Message("user", "\udc00 \U0001f600")), Sampling(), seed=0)
    assert ask(server, reply("hi"), request=again).text == "hi"
    assert [message["content"] for message in server.seen[-1]["messages"]] == ["cut \\ud83d", "\\udc00 \U0001f600"]


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


@pytest.mark.parametrize("finish", ["abort", "content_filter", "tool_calls", "error", None])
def test_a_reply_that_ended_neither_by_itself_nor_at_its_limit_is_no_turn(server, finish):
    """Its text is cut, or not all of it is there: nobody is to execute it, score it or train on it."""
    with pytest.raises(InfrastructureError, match=f"ended a reply with {finish!r}"):
        ask(server, reply("print(1", finish, token_ids=[4, 5, 6]), token_ids=True)


def test_a_reply_without_content_is_no_answer(server):
    with pytest.raises(InfrastructureError, match="without content"):
        ask(server, reply(None))


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


FORMS = Forms(step="<thought>.+</thought><code>.+</code>")


@pytest.mark.parametrize(
    ("turn", "held"), [("step", {"structured_outputs": {"regex": FORMS.step}}), ("plan", {}), (None, {})]
)
def test_a_turn_is_held_to_its_form_and_nothing_else_is(server, turn, held):
    ask(server, reply("x"), request=dataclasses.replace(REQUEST, turn=turn), forms=FORMS)
    (sent,) = server.seen
    assert {key: value for key, value in sent.items() if key == "structured_outputs"} == held


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


def test_a_server_of_our_own_is_reached_past_any_proxy(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.answers[:] = [reply("hi")]
    process = subprocess.Popen(["sleep", "60"])
    own = Server(f"http://127.0.0.1:{server.server_port}", None, process, Path("log"), 0, watchdog=process)

    async def go():
        async with client.connect(Model(engine="oracle", retries=0), "m", server=own) as engine:
            return (await engine.complete(REQUEST)).text

    try:
        assert asyncio.run(go()) == "hi"
    finally:
        own.process.kill()
        own.process.wait()


def test_an_open_server_needs_no_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert client.endpoint_key(at(server).model_copy(update={"api_key_env": None})) == "none"


def test_a_missing_key_is_named(monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ScoreError, match="SOME_KEY"):
        client.endpoint_key(Model(engine="endpoint", url="http://x", api_key_env="SOME_KEY"))
