"""JSON replies: what is read, what is not, and what happens to what is not. Every bad input has its outcome here."""

import asyncio
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from score import replies
from score.agent.protocol import Message
from score.correct.teacher import _Location
from score.engine.base import Completion
from score.errors import InfrastructureError
from score.judge.verdicts import Verdict

PROMPT = (Message("system", "s"), Message("user", "u"))


class Found(BaseModel):
    step: int | None
    analysis: str = ""


READ = {
    '{"step": 2}': 2,
    ' {"step": 2, "analysis": "x"}\n': 2,
    '{"step": null}': None,
    '{"step": -1}': -1,
    '{"step": 10000}': 10000,
    '```json\n{"step": 2}\n```': 2,
    '```\n{"step": 2}```': 2,
    '```JSON {"step": 2} ```': 2,
    '{"step": 2, "confidence": 0.9}': 2,
    '{"step": 2, "analysis": "第二步算错了：5 不是 6"}': 2,
    '{"step": 2, "analysis": "```json {\\"step\\": 3} ```"}': 2,
    '{"step": 2, "analysis": "\\ud800"}': 2,
}
NOT_READ = {
    "": "Expecting value",
    "2": "expected an object, found int",
    "null": "expected an object, found NoneType",
    '[{"step": 2}]': "expected an object, found list",
    '{"step": 2': "delimiter",
    '{"step": 2, "analysis": "the pro': "Unterminated string",
    'The wrong step is {"step": 2}': "Expecting value",
    '{"step": 2} is my answer': "Extra data",
    '{"step": 1} {"step": 2}': "Extra data",
    'Here it is:\n```json\n{"step": 2}\n```': "Expecting value",
    '```json\n{"step": 2}': "Expecting value",
    '{"step": "2"}': "step: Input should be a valid integer",
    '{"step": true}': "step: Input should be a valid integer",
    '{"step": 2.0}': "step: Input should be a valid integer",
    '{"step": [2]}': "step: Input should be a valid integer",
    '{"step": 2, "step": 3}': "the same key twice",
    '{"step": 2, "analysis": null}': "analysis: Input should be a valid string",
    '{"analysis": "x"}': "step: Field required",
    '{"step": NaN}': "NaN is not JSON",
    '{"step": 1e400}': "step: Input should be a valid integer",
    '{"step": ' + "9" * 5000 + "}": "digits",
    '{"step": ' + "[" * 100_000 + "}": "nested too deeply",
    "第二步是错的": "Expecting value",
    "｛“step”：2｝": "Expecting value",
    "<think>hm</think>": "Expecting value",
    "{'step': 2}": "double quotes",
}


@pytest.mark.parametrize("text", READ)
def test_json_as_asked_for_is_read(text):
    assert replies.read_json(text, Found).step == READ[text]


@pytest.mark.parametrize("text", NOT_READ, ids=lambda text: text[:40])
def test_everything_else_is_not_read_and_says_why(text):
    with pytest.raises(ValueError, match=NOT_READ[text]):
        replies.read_json(text, Found)


@given(st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_text_whatever_raises_anything_but_a_reason(text):
    with contextlib.suppress(ValueError):
        assert isinstance(replies.read_json(text, Verdict).equivalent, bool)


def asked(*completions):
    """The reply of a scripted model, and the prompts that it read."""
    queue, prompts = list(completions), []

    async def complete(prompt, schema):
        prompts.append(prompt)
        assert schema == replies.json_schema(Found)
        done = queue.pop(0)
        if isinstance(done, Exception):
            raise done
        return done if isinstance(done, Completion) else Completion(done)

    return asyncio.run(replies.ask(complete, PROMPT, Found)), prompts


def test_a_good_reply_is_asked_for_once():
    reply, prompts = asked('{"step": 1}')
    assert (reply.value.step, reply.failure, prompts) == (1, None, [PROMPT])
    assert (reply.first, reply.repaired) == (None, False)


def test_a_bad_reply_is_shown_to_the_model_with_what_is_wrong_about_it():
    reply, prompts = asked('{"step": "1"}', '{"step": 1}')
    assert reply.value.step == 1
    assert (reply.first, reply.text, reply.repaired) == ('{"step": "1"}', '{"step": 1}', True)
    assert prompts[1][:2] == PROMPT
    assert prompts[1][2] == Message("assistant", '{"step": "1"}')
    assert "step: Input should be a valid integer" in prompts[1][3].content


CUT = Completion('{"step": 1, "analysis": "the', "length")
FULL = Completion("", "context")


@pytest.mark.parametrize(
    ("completions", "failure", "text"),
    [
        (["hm", "still hm"], "unreadable", "still hm"),
        ([CUT, CUT], "truncated", CUT.text),
        (["hm", CUT], "truncated", CUT.text),
        ([CUT, "hm"], "unreadable", "hm"),
        ([FULL], "context", ""),
        (["hm", FULL], "unreadable", "hm"),
        ([CUT, FULL], "truncated", CUT.text),
        ([Completion('{"step": 1}', "length")] * 2, "truncated", '{"step": 1}'),
    ],
)
def test_after_one_repair_the_failure_has_a_name_and_both_replies_are_kept(completions, failure, text):
    reply, prompts = asked(*completions)
    assert (reply.value, reply.failure, reply.text) == (None, failure, text)
    assert len(prompts) == len(completions)
    first = completions[0] if isinstance(completions[0], str) else completions[0].text
    assert (reply.first, reply.repaired) == (first if len(completions) > 1 else None, False)


def test_a_cut_reply_can_be_repaired():
    assert asked(CUT, '{"step": 1}')[0].value.step == 1


def test_an_endpoint_that_is_down_is_no_bad_reply():
    with pytest.raises(InfrastructureError):
        asked(InfrastructureError("down"))
    with pytest.raises(InfrastructureError):
        asked("hm", InfrastructureError("down"))


def test_the_schemas_are_what_strict_servers_take():
    """All fields required, none added, texts bounded: an unbounded one is cut in the middle of the JSON."""
    for model, fields in ((Verdict, ["equivalent"]), (_Location, ["step", "analysis"])):
        schema = replies.json_schema(model)
        assert (schema["type"], schema["required"], schema["additionalProperties"]) == ("object", fields, False)
    properties = replies.json_schema(_Location)["properties"]
    assert properties["analysis"]["maxLength"] > 0
    assert {kind["type"] for kind in properties["step"]["anyOf"]} == {"integer", "null"}
    assert replies.read_json('{"step": 1, "analysis": "%s"}' % ("x" * 5000), _Location).step == 1, "a bound for servers"
