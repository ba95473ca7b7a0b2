"""Two drivers for episodes: lock-step batches for in-process engines, many in flight for HTTP engines.

Both feed the same `Episode`, give it a sandbox session of its own, and turn every infrastructure failure into the
episode's stop reason. An episode that has ended leaves the batch before the next decoding, so it never gets another
turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from score.agent.episode import Episode
from score.agent.sessions import Fresh, Sessions
from score.config.schema import Sampling
from score.engine.base import AsyncEngine, BatchEngine, Completion, Engine, Request
from score.errors import InfrastructureError
from score.records import derive_seed
from score.sandbox.base import SandboxPool, Session, Tools

OnDone = Callable[[Episode], None]


def run_episodes(
    episodes: Iterable[Episode],
    engine: Engine,
    sampling: Sampling,
    pool: SandboxPool,
    tools: Tools,
    on_done: OnDone = lambda episode: None,
    *,
    plan_sampling: Sampling | None = None,
    sessions: Sessions | None = None,
) -> None:
    """Runs every episode to its stop reason; `on_done` sees each as it ends, in any order.

    Every episode has a session of its own from `sessions`, by default a fresh one.
    """
    turns = _Turns(sampling, plan_sampling or sampling)
    sessions = sessions or Fresh(pool, tools)
    if inspect.iscoroutinefunction(engine.complete):
        asyncio.run(_run_async(episodes, engine, turns, sessions, on_done))
    else:
        _run_batched(deque(episodes), engine, turns, pool, sessions, on_done)


class _Turns:
    """Makes the request of an episode's next turn; the turn's seed depends on the episode alone."""

    def __init__(self, step: Sampling, plan: Sampling) -> None:
        self.step, self.plan = step, plan

    def request(self, episode: Episode) -> Request:
        turn, sampling = ("plan", self.plan) if episode.plan is None else ("step", self.step)
        return Request(episode.conversation(), sampling, derive_seed(episode.seed, episode.turn), turn=turn)


def _run_batched(
    waiting: deque[Episode],
    engine: BatchEngine,
    turns: _Turns,
    pool: SandboxPool,
    sessions: Sessions,
    on_done: OnDone,
) -> None:
    live: dict[Episode, Session] = {}
    try:
        while waiting or live:
            while waiting and len(live) < engine.batch:
                episode = waiting.popleft()
                try:
                    live[episode] = sessions.open(episode)
                except InfrastructureError as error:
                    episode.fail(error)
                    on_done(episode)
            while forced := [(e, c) for e in live if (c := None if e.stop else e.next_forced())]:
                advance(forced, live, pool)
            free = [episode for episode in live if episode.stop is None]
            if free:
                completions = engine.complete([turns.request(episode) for episode in free])
                advance(list(zip(free, completions, strict=True)), live, pool)
            for episode in [episode for episode in live if episode.stop is not None]:
                sessions.close(episode, live.pop(episode))
                on_done(episode)
    finally:
        for session in live.values():
            session.close()


def advance(turns: Sequence[tuple[Episode, Completion]], sessions: dict[Episode, Session], pool: SandboxPool) -> None:
    """One turn of each episode: take the completion, run its code, observe."""
    running = [(episode, code) for episode, completion in turns if (code := episode.take(completion)) is not None]
    outcomes = pool.run_many([(sessions[episode], code) for episode, code in running])
    for (episode, _), outcome in zip(running, outcomes, strict=True):
        try:
            if isinstance(outcome, InfrastructureError):
                raise outcome
            episode.observe(outcome)
        except InfrastructureError as error:
            episode.fail(error)


async def _run_async(
    episodes: Iterable[Episode], engine: AsyncEngine, turns: _Turns, sessions: Sessions, on_done: OnDone
) -> None:
    waiting, loop = iter(episodes), asyncio.get_running_loop()
    # A step's clock starts with it, so no more run at once than the cores can serve in time.
    steps = ThreadPoolExecutor(max(8, 4 * len(os.sched_getaffinity(0))), "step")
    doors = ThreadPoolExecutor(1, "session")  # one session is opened or closed at a time

    async def play(episode: Episode) -> None:
        given = episode.forced
        opening = loop.run_in_executor(doors, sessions.open, episode)
        try:
            if given:  # which opening may play; else the first request does not wait for it
                await opening
            while episode.stop is None:
                completion = episode.next_forced() or await engine.complete(turns.request(episode))
                code = episode.take(completion)
                if code is not None:
                    episode.observe(await loop.run_in_executor(steps, (await opening).run, code))
        except InfrastructureError as error:
            episode.fail(error)
        finally:
            with contextlib.suppress(InfrastructureError):  # it could not be opened, which the episode has met
                await loop.run_in_executor(doors, sessions.close, episode, await opening)

    async def work() -> None:
        for episode in waiting:
            await play(episode)
            on_done(episode)

    try:
        async with engine, asyncio.TaskGroup() as group:
            for _ in range(engine.concurrency):
                group.create_task(work())
    finally:
        for threads in (steps, doors):
            threads.shutdown(wait=False, cancel_futures=True)
