"""The driver for many requests in flight: what waits for what, and that nothing is left behind."""

import threading

import pytest

from fakes import LocalPool, ScriptedAsyncEngine, by_turn
from score.agent.drivers import run_episodes
from score.agent.episode import Episode
from score.agent.protocol import plan_text, step_text
from score.agent.sessions import Fresh
from score.config.schema import Protocol, Sampling
from score.engine.base import Completion
from score.errors import InfrastructureError
from score.records import StopReason, Task

GOOD = (plan_text("add"), step_text("answer", "final_answer_print(5)"))


def episodes(count: int):
    for n in range(count):
        yield Episode(Task(str(n), f"question {n}", ("5",), "toy"), Protocol(), seed=n)


class Watched(Fresh):
    """Fresh sessions; counts those that are open. `wait` is called before each opening."""

    def __init__(self, wait=lambda: None) -> None:
        super().__init__(LocalPool(), {})
        self.wait, self.now, self.most = wait, 0, 0

    def open(self, episode):
        self.wait()
        self.now += 1
        self.most = max(self.most, self.now)
        return super().open(episode)

    def close(self, episode, session) -> None:
        self.now -= 1
        super().close(episode, session)


def play(given, engine, sessions) -> list[Episode]:
    done = []
    run_episodes(given, engine, Sampling(), sessions.pool, {}, done.append, sessions=sessions)
    return done


def test_the_first_request_does_not_wait_for_the_sandbox():
    """A sandbox that opens only once the model has been asked."""
    asked = threading.Event()

    def reply(request):
        asked.set()
        return by_turn(*GOOD)(request)

    def wait() -> None:
        if not asked.wait(10):
            raise InfrastructureError("nobody was asked")

    (episode,) = play(episodes(1), ScriptedAsyncEngine(reply), Watched(wait))
    assert episode.stop == StopReason.ANSWERED


def test_no_more_episodes_are_begun_than_may_be_in_flight():
    begun = []

    def counted():
        for episode in episodes(50):
            begun.append(episode)
            assert sum(episode.stop is None for episode in begun) <= 3
            yield episode

    sessions = Watched()
    done = play(counted(), ScriptedAsyncEngine(by_turn(*GOOD), concurrency=3), sessions)
    assert len(done) == 50
    assert 1 <= sessions.most <= 3
    assert sessions.now == 0


@pytest.mark.parametrize(
    ("reply", "stop"),
    [
        (Completion("", "context"), StopReason.CONTEXT_OVERFLOW),
        ("no block at all", StopReason.PARSE_ERROR),
        (InfrastructureError("gone"), StopReason.INFRASTRUCTURE_ERROR),
    ],
)
def test_an_episode_that_runs_no_code_leaves_no_sandbox(reply, stop):
    sessions = Watched()
    (episode,) = play(episodes(1), ScriptedAsyncEngine(lambda request: reply), sessions)
    assert (episode.stop, sessions.now) == (stop, 0)


def test_a_sandbox_that_does_not_open_fails_its_episode_only():
    failures = iter([True, False, False])

    def wait() -> None:
        if next(failures):
            raise InfrastructureError("no room for a process")

    done = play(episodes(3), ScriptedAsyncEngine(by_turn(*GOOD), concurrency=1), Watched(wait))
    assert [episode.stop for episode in done] == [
        StopReason.INFRASTRUCTURE_ERROR, StopReason.ANSWERED, StopReason.ANSWERED,
    ]  # fmt: skip
    assert "no room" in done[0].failure
