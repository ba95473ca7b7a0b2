"""Where an episode's sandbox session comes from: fresh, or the very state that its given turns led to before.

Given turns that carry what they printed have been executed once. Without more, they are executed again, in a fresh
session. `Rewinding` (mentored problem solving) goes back instead, in the session of the attempt that was corrected;
`branched` (RL) executes a prefix once and forks its session for every rollout. Either way an episode ends up in the
same state; what a second run could not make again (entropy, the clock, a search engine's mood) then is the same, too.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from score.agent.episode import Episode, Forced
from score.errors import InfrastructureError
from score.sandbox.base import SandboxPool, Session, Tools


class Sessions(Protocol):
    """A source of sessions for a driver; its calls come from one thread at a time."""

    def open(self, episode: Episode) -> Session:
        """A session in the state after the episode's played turns; may play given turns whose outcome is known."""

    def close(self, episode: Episode, session: Session) -> None:
        """Takes back the session of an episode that has ended, or is given up."""


class Fresh:
    """A new session for every episode, ended with it."""

    def __init__(self, pool: SandboxPool, tools: Tools) -> None:
        self.pool, self.tools = pool, tools

    def open(self, episode: Episode) -> Session:
        return self.pool.open(self.tools)

    def close(self, episode: Episode, session: Session) -> None:
        session.close()


class Rewinding:
    """Keeps the sessions of at most `most` ended episodes, so that a corrected attempt goes on in its predecessor's.

    Those that wait already are kept before others, as they are needed sooner. An attempt whose predecessor is not kept
    runs its given turns again, in a fresh session.
    """

    def __init__(self, pool: SandboxPool, tools: Tools, most: int) -> None:
        self.pool, self.tools, self.most = pool, tools, most
        self.resumed = 0
        self._kept: dict[str, tuple[Episode, Session]] = {}  # by task id

    def open(self, episode: Episode) -> Session:
        earlier, session = self._kept.pop(episode.task.id, (None, None))
        if earlier is not None:
            given = [turn for turn in episode.forced[1:] if turn.observation is not None]
            if _continues(episode.forced, given, earlier):
                with contextlib.suppress(InfrastructureError), contextlib.ExitStack() as undo:
                    undo.callback(session.close)
                    session.restore(_completed(earlier, len(given)))
                    episode.replay(earlier.observations[: len(given)])
                    undo.pop_all()
                    self.resumed += 1
                    return session
            session.close()
        return self.pool.open(self.tools, reversible=True)

    def close(self, episode: Episode, session: Session) -> None:
        if episode.failure is not None or len(self._kept) >= self.most:
            session.close()
        else:
            if earlier := self._kept.pop(episode.task.id, None):
                earlier[1].close()
            self._kept[episode.task.id] = (episode, session)

    def forget(self, but: Collection[str] = ()) -> None:
        """Ends the kept sessions of all tasks except some."""
        for task in [task for task in self._kept if task not in but]:
            self._kept.pop(task)[1].close()

    def __enter__(self) -> Rewinding:
        return self

    def __exit__(self, *exc: object) -> None:
        self.forget()


def _continues(forced: Sequence[Forced], given: Sequence[Forced], earlier: Episode) -> bool:
    """Whether the first turns of an episode are the first ones of an earlier one."""
    if not given or earlier.plan is None or forced[0].message.content != earlier.plan.content:
        return False
    played = [(step.text, step.observation) for step in earlier.steps[: len(given)]]
    return [(turn.message.content, turn.observation) for turn in given] == played


def _completed(episode: Episode, steps: int) -> int:
    """How many of an episode's first steps its session completed: those that ran code and were not lost."""
    seen = episode.observations[:steps]
    return sum(o is not None and o.error not in ("timeout", "died") for o in seen)


class Branched:
    """Sessions of episodes with the same given turns: one of each kind has played them, the others are its branches."""

    def __init__(self, pool: SandboxPool, tools: Tools) -> None:
        self.fresh = Fresh(pool, tools)
        self.ready: dict[Episode, Session] = {}

    def open(self, episode: Episode) -> Session:
        return self.ready.pop(episode, None) or self.fresh.open(episode)

    def close(self, episode: Episode, session: Session) -> None:
        session.close()

    def end(self) -> None:
        while self.ready:
            self.ready.popitem()[1].close()


@contextlib.contextmanager
def branched(episodes: Sequence[Episode], pool: SandboxPool, tools: Tools) -> Iterator[Branched]:
    """Plays the given turns of each kind of episode once and branches; an episode whose turns did not print what they
    had printed before has ended with that failure."""
    from score.agent.drivers import advance

    groups: dict[tuple, list[Episode]] = defaultdict(list)
    for episode in episodes:
        if len(episode.forced) > 1:
            turns = tuple((turn.message.content, turn.observation) for turn in episode.forced)
            groups[episode.task.id, turns].append(episode)
    sessions = Branched(pool, tools)
    leaders = [group[0] for group in groups.values() if len(group) > 1]
    try:
        for leader in leaders:
            sessions.ready[leader] = session = pool.open(tools, reversible=True)
            session.reversible = False  # nobody goes back in a rollout: it is branched once, where the prefix ends
        while forced := [(e, c) for e in leaders if (c := None if e.stop else e.next_forced())]:
            advance(forced, sessions.ready, pool)
        for leader, *others in (group for group in groups.values() if len(group) > 1):
            if leader.failure is not None:
                continue
            session = sessions.ready[leader]
            with contextlib.suppress(InfrastructureError):  # then each of the others plays the turns itself
                for other, branch in zip(others, session.branch(session.steps, len(others)), strict=True):
                    sessions.ready[other] = branch
                    other.replay(leader.observations)
        yield sessions
    finally:
        sessions.end()
