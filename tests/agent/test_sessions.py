"""Sessions that go on from a state that was reached before."""

from __future__ import annotations

import dataclasses

import pytest

from fakes import LocalPool, ScriptedAsyncEngine, ScriptedEngine
from score.agent.drivers import run_episodes
from score.agent.episode import Episode, Forced, forced_prefix
from score.agent.protocol import plan_message, step_message
from score.agent.sessions import Rewinding, branched
from score.config.schema import Protocol, Sampling
from score.errors import InfrastructureError
from score.records import Step, StopReason, Task
from score.sandbox.base import Limits
from score.sandbox.zygote import ZygotePool

TASK = Task("t", "What?", ("1",), "toy")
PLAN = "<first_thought>Plan</first_thought>"


def turn(code: str) -> str:
    return f"<thought>T</thought><code>{code}</code>"


def engine(*codes: str, kind=ScriptedEngine):
    """Plays a plan, then these steps, by the number of turns in the conversation."""
    turns = [PLAN, *map(turn, codes)]

    def reply(request):
        return turns[sum(message.role == "assistant" for message in request.messages)]

    return kind(reply)


@pytest.fixture(scope="module")
def real():
    with ZygotePool(Limits(timeout_s=2.0, memory_mb=1024)) as pool:
        yield pool


@pytest.fixture(params=["local", "real"])
def pool(request):
    return LocalPool() if request.param == "local" else request.getfixturevalue("real")


def corrected(trajectory, k: int, code: str) -> tuple[Forced, ...]:
    """The turns before step k as they were, and another in its place."""
    fix = Forced(step_message(Step("T", code, text=turn(code))))
    return (*forced_prefix(plan_message(trajectory), trajectory.steps[: k - 1]), fix)


def timeless(trajectory) -> dict:
    steps = tuple(dataclasses.replace(step, seconds=0.0) for step in trajectory.steps)
    return dataclasses.replace(trajectory, steps=steps).to_json()


FIRST = ("x = 1\nprint(x)", "undefined", "x += 1\nprint(x, web_search('a'))", "x = 'wrong'", "final_answer_print(x)")
SECOND = (*FIRST[:3], "x += 1", "print(x, web_search('b'))", "final_answer_print(x)")


@pytest.mark.parametrize("kind", [ScriptedEngine, ScriptedAsyncEngine])
def test_a_corrected_attempt_goes_on_in_the_session_of_its_predecessor(pool, kind):
    asked = []
    tools = {"web_search": lambda query: asked.append(query) or query.upper()}
    first = Episode(TASK, Protocol(), seed=0)
    with Rewinding(pool, tools, most=4) as sessions:
        run_episodes([first], engine(*FIRST, kind=kind), Sampling(), pool, tools, sessions=sessions)
        forced = corrected(first.trajectory(), 4, SECOND[3])
        second = Episode(TASK, Protocol(), seed=1, forced=forced)
        run_episodes([second], engine(*SECOND, kind=kind), Sampling(), pool, tools, sessions=sessions)
        assert sessions.resumed == 1
    replayed = Episode(TASK, Protocol(), seed=1, forced=forced)
    run_episodes([replayed], engine(*SECOND, kind=kind), Sampling(), pool, tools)
    assert second.answer == "3"
    assert timeless(second.trajectory()) == timeless(replayed.trajectory())


def test_going_back_asks_no_tool_again(real):
    asked = []
    tools = {"web_search": lambda query: asked.append(query) or query.upper()}
    first = Episode(TASK, Protocol(), seed=0)
    with Rewinding(real, tools, most=4) as sessions:
        run_episodes([first], engine(*FIRST), Sampling(), real, tools, sessions=sessions)
        second = Episode(TASK, Protocol(), seed=1, forced=corrected(first.trajectory(), 4, SECOND[3]))
        run_episodes([second], engine(*SECOND), Sampling(), real, tools, sessions=sessions)
    assert asked == ["a", "b"]
    assert second.trajectory().meta["tool_calls"] == {"web_search": 2}


def test_a_step_that_ran_into_its_time_is_no_state(real):
    codes = ("x = 1", "while True: pass", "x = 2", "final_answer_print(x)")
    first = Episode(TASK, Protocol(), seed=0)
    with Rewinding(real, {}, most=4) as sessions:
        run_episodes([first], engine(*codes), Sampling(), real, {}, sessions=sessions)
        second = Episode(TASK, Protocol(), seed=1, forced=corrected(first.trajectory(), 3, "x += 5"))
        run_episodes([second], engine(*codes[:2], "x += 5", codes[3]), Sampling(), real, {}, sessions=sessions)
        assert sessions.resumed == 1
    assert [step.error for step in second.steps] == [None, "timeout", None, None]
    assert second.answer == "6"


def test_only_so_many_are_kept_and_others_start_afresh():
    pool, episodes = LocalPool(), []
    tasks = [dataclasses.replace(TASK, id=str(i)) for i in range(3)]
    with Rewinding(pool, {"web_search": str}, most=2) as sessions:
        for task in tasks:
            episodes.append(Episode(task, Protocol(), seed=0))
            run_episodes(episodes[-1:], engine(*FIRST), Sampling(), pool, {}, sessions=sessions)
        for first in episodes:
            forced = corrected(first.trajectory(), 4, SECOND[3])
            second = Episode(first.task, Protocol(), seed=1, forced=forced)
            run_episodes([second], engine(*SECOND), Sampling(), pool, {}, sessions=sessions)
            assert second.answer == "3"
        assert (sessions.resumed, pool.opened) == (2, 4)


def test_an_attempt_with_other_turns_starts_afresh():
    pool = LocalPool()
    first = Episode(TASK, Protocol(), seed=0)
    with Rewinding(pool, {"web_search": str}, most=2) as sessions:
        run_episodes([first], engine(*FIRST), Sampling(), pool, {}, sessions=sessions)
        trajectory = first.trajectory()
        other = dataclasses.replace(trajectory.steps[0], text=turn("x = 1\nprint(x )"))
        trajectory = dataclasses.replace(trajectory, steps=(other, *trajectory.steps[1:]))
        second = Episode(TASK, Protocol(), seed=1, forced=corrected(trajectory, 4, SECOND[3]))
        run_episodes([second], engine(*SECOND), Sampling(), pool, {}, sessions=sessions)
        assert (sessions.resumed, second.answer) == (0, "3")


def test_a_failure_is_not_gone_on_from(pool):
    def fail(query):
        raise InfrastructureError("down")

    first = Episode(TASK, Protocol(), seed=0)
    with Rewinding(pool, {"web_search": fail}, most=2) as sessions:
        run_episodes([first], engine(*FIRST), Sampling(), pool, {}, sessions=sessions)
        assert first.stop == StopReason.INFRASTRUCTURE_ERROR
        assert sessions._kept == {}


def test_rollouts_of_one_prefix_play_it_once(real):
    asked = []
    tools = {"web_search": lambda query: asked.append(query) or query.upper()}
    recorded = Episode(TASK, Protocol(), seed=0)
    codes = ("import os\nsecret = os.urandom(8).hex()\nx = web_search('a')\nprint(x)", "x += 'b'", "")
    run_episodes([recorded], engine(*codes[:2], "final_answer_print(x)"), Sampling(), real, tools)
    forced = forced_prefix(plan_message(recorded.trajectory()), recorded.steps[:2])
    episodes = [Episode(TASK, Protocol(), seed=i, forced=forced) for i in range(5)]
    asked.clear()
    with branched(episodes, real, tools) as sessions:
        assert all(episode.forced == () and episode.turn == 3 for episode in episodes)
        assert not any(session.reversible for session in sessions.ready.values())
        kept = sorted(len(session._process.snapshots) for session in sessions.ready.values())
        assert kept == [0, 0, 0, 0, 1]  # one state is kept, that which the others were branched from
        run_episodes(
            episodes, engine(*codes[:2], "final_answer_print(x + secret)"), Sampling(), real, tools, sessions=sessions
        )
    assert asked == ["a"]
    assert len({episode.answer for episode in episodes}) == 1
    assert episodes[0].answer.startswith("Ab")
    assert [len(episode.steps) for episode in episodes] == [3] * 5


def test_a_prefix_that_prints_otherwise_has_no_outcome(pool):
    recorded = Episode(TASK, Protocol(), seed=0)
    run_episodes([recorded], engine("print(1)", "final_answer_print(1)"), Sampling(), pool, {})
    step = dataclasses.replace(recorded.steps[0], observation="2")
    episodes = [Episode(TASK, Protocol(), seed=i, forced=forced_prefix(recorded.plan, [step])) for i in range(3)]
    with branched(episodes, pool, {}) as sessions:
        run_episodes(episodes, engine("", "final_answer_print(1)"), Sampling(), pool, {}, sessions=sessions)
    assert all("printed '1', recorded '2'" in episode.failure for episode in episodes)
