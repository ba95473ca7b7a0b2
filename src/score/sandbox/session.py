"""The host's side of one session: sends a step, serves its tool calls, judges how it ended, returns to earlier states.

The time limit counts the code's own wall-clock time; what the host spends in a tool is left out.

A reversible session keeps a snapshot of the state before every step: a fork of its interpreter, which sleeps, and what
its working folder held. Going back to it is exact, but for threads, which no fork takes along. Without a snapshot (the
session is not reversible, the system has no `gate`, or the folder holds too much) a fresh interpreter runs the
completed steps again, their tool calls answered from memory; only code that asks for the time or for system entropy may
then differ (the generators of `random` and `numpy.random` are seeded alike in every session). The same happens when a
step has timed out or has killed its interpreter, which costs the variables: the next `run` starts from the state before
it.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from score.errors import InfrastructureError
from score.sandbox import scratch, snapshots, watch
from score.sandbox.base import Observation, Tools
from score.sandbox.channel import Lost, Process, TimedOut

if TYPE_CHECKING:
    from score.sandbox.zygote import ZygotePool

MAX_CALLS = 50
"""Tool calls of one step; a further one is a RuntimeError in the model's code."""

_START_S = 30.0
_DEATH_S = 0.1


class Unrepeatable(InfrastructureError):
    """Completed steps cannot be run again since one of them ends its interpreter now and did not then."""


@dataclass(frozen=True)
class _Call:
    name: str
    argument: str
    result: str


class ZygoteSession:
    """One episode's interpreter. Not for use by two threads at once; two sessions are independent, branches too.

    Args:
        reversible: keep a snapshot of the state before every step. The attribute can be switched off later: the steps
            from then on, and those of branches made from then on, cost nothing, and `branch` still forks.
    """

    def __init__(self, pool: ZygotePool, tools: Tools, *, reversible: bool = False) -> None:
        self._pool, self._tools, self.reversible = pool, tools, reversible
        self._completed: list[tuple[str, tuple[_Call, ...]]] = []
        self._closed = False
        self._process: Process | None = pool.spawn(tools, reversible=reversible)
        self._running = True  # the process's own channel is served; else only its snapshots are left

    @property
    def steps(self) -> int:
        """How many steps have been completed. A step that lost its interpreter is none."""
        return len(self._completed)

    def run(self, code: str) -> Observation:
        """Executes one step.

        A step ends at final_answer_print: code after it is not run. Its prints to standard error are dropped.

        Raises:
            InfrastructureError: the sandbox or a tool's backend failed. The step left no trace in the session: the next
                `run` starts from the state after the last completed step.
        """
        try:
            self._ready()
            if self.reversible:
                self._snapshot()
        except Unrepeatable as problem:
            return Observation(f"Error: the variables are lost: {problem}.", "died")
        started = time.monotonic()
        calls: list[_Call] = []
        observation = self._execute(code, self._pool.limits.timeout_s, calls)
        if self._running:
            self._completed.append((code, tuple(calls)))
        counts = Counter(call.name for call in calls)
        seconds = time.monotonic() - started
        return Observation(observation.text, observation.error, observation.answer, tuple(counts.items()), seconds)

    def restore(self, step: int) -> None:
        """Goes back to the state before a step (0 is the first); that step and all later ones never happened.

        Raises:
            ValueError: no such step was completed, nor is it the next one.
            InfrastructureError: the state cannot be made again.
        """
        if not 0 <= step <= self.steps:
            raise ValueError(f"step {step} of a session that completed {self.steps}")
        if self._running and step == self.steps:
            return
        self._drop()
        near = self._return_to_snapshot(step)
        if near is None:
            self._renew()
        again = self._completed[near or 0 : step]
        del self._completed[step:]
        for code, calls in again:
            # Twice the time: what fitted its limit once must not fail now because the machine is busier.
            observation = self._execute(code, 2 * self._pool.limits.timeout_s, [], remembered=calls)
            if not self._running and observation.error == "died":
                raise Unrepeatable("an earlier step, run again, ended the interpreter")
            if not self._running:
                raise InfrastructureError(f"a completed step could not be run again: {observation.text}")

    def branch(self, step: int, count: int) -> list[ZygoteSession]:
        """`count` independent sessions in the state before a step; this one stays where it is.

        A path that the code has stored leads nowhere in a branch, which has a working folder of its own. Raises as
        `restore` does.
        """
        if not 0 <= step <= self.steps:
            raise ValueError(f"step {step} of a session that completed {self.steps}")
        if step == self.steps:
            self._ready()
            self._snapshot()
        branches: list[ZygoteSession] = []
        self._wake()
        try:
            while len(branches) < count and self._process is not None and step in self._process.snapshots:
                forked = snapshots.fork(
                    self._pool, self._process, step, min(count - len(branches), snapshots.MOST_AT_ONCE)
                )
                branches += [self._sibling(step, process) for process in forked]
        except (TimedOut, Lost):
            pass  # the others run the steps again
        except BaseException:
            for branch in branches:
                branch.close()
            raise
        self._rest()
        branches += [self._sibling(step, None) for _ in range(count - len(branches))]
        return branches

    def greet(self) -> tuple[str, ...]:
        """Waits until the interpreter is confined and ready; returns its active layers."""
        if self._process.layers is None:
            try:
                match self._process.channel.receive(time.monotonic() + _START_S):
                    case {"layers": [*layers]}:
                        self._process.layers = tuple(layers)
                    case _:
                        raise Lost("no greeting")
            except (TimedOut, Lost) as problem:
                self._discard()
                raise InfrastructureError(f"the sandbox did not start an interpreter: {problem!r}") from problem
        return self._process.layers

    def _ready(self) -> None:
        """Makes sure that an interpreter is there, in the state after the last completed step."""
        if self._closed:
            raise RuntimeError("this sandbox session is closed")
        if self._running and self._process.branched:
            with contextlib.suppress(InfrastructureError):  # it has been discarded: its past steps are run again
                self._check()
        if not self._running:
            self.restore(self.steps)

    def _wake(self) -> None:
        """Lets the session's processes go on."""
        if self._process is not None and self._process.paused:
            self._pool.pause(self._process.group, False)
            self._process.paused = False

    def _rest(self) -> None:
        """Stops the session's processes until it is their turn again, if they have threads that could go on."""
        if self._running and not self._process.paused and watch.threads(self._process) > 1:
            self._pool.pause(self._process.group, True)
            self._process.paused = True

    def _snapshot(self) -> None:
        """Keeps the state before the next step, if it is not kept yet and the system can."""
        process = self._process
        if not process.gated or self.steps in process.snapshots:
            return
        self._check()
        self._wake()
        try:
            snapshots.take(self._pool, process, self.steps)
        except (TimedOut, Lost):
            self._drop()
            self.restore(self.steps)

    def _sibling(self, step: int, process: Process | None) -> ZygoteSession:
        """A session in the state before a step: that of a process, or, without one, to be made by running it again."""
        session = object.__new__(ZygoteSession)
        session._pool, session._tools, session.reversible = self._pool, self._tools, self.reversible
        session._completed, session._closed = self._completed[:step], False
        session._process, session._running = process, process is not None
        return session

    def _return_to_snapshot(self, step: int) -> int | None:
        """Makes the latest snapshot up to a step the interpreter; returns its step, or None if there is none."""
        if self._process is None:
            return None
        snapshots = self._process.snapshots
        for later in [number for number in snapshots if number > step]:
            snapshots.pop(later)[0].close()
        if not snapshots:
            return None
        near = max(snapshots)
        self._process.channel, files = snapshots.pop(near)
        try:
            scratch.put_back(self._process.folder, files)
        except OSError:  # the disk is full, or another process of the session is in the way
            self._discard()
            return None
        self._running = True
        return near

    def _renew(self) -> None:
        """A fresh interpreter in place of all that is left of the old one."""
        self._discard()
        self._process, self._running = self._pool.spawn(self._tools, reversible=self.reversible), True

    def _check(self) -> None:
        """Raises `InfrastructureError` unless the interpreter is as confined as the pool's first one."""
        if self.greet() != self._pool.layers:
            self._discard()
            raise InfrastructureError("an isolation layer of the sandbox is no longer active")

    def _execute(
        self, code: str, timeout_s: float, calls: list[_Call], remembered: Iterable[_Call] = ()
    ) -> Observation:
        """One step in the living interpreter, which is dropped if the step ends it; `calls` collects the tool calls."""
        self._check()
        self._wake()
        channel = self._process.channel
        memory = deque(remembered)
        deadline = time.monotonic() + timeout_s
        try:
            channel.send({"code": code}, deadline)
            while True:
                frame = self._receive(deadline)
                match frame:
                    case {"call": str(name), "argument": str(argument)} if name in self._tools:
                        asked = time.monotonic()
                        reply = self._answer_call(name, _clean(argument), calls, memory)
                        deadline += time.monotonic() - asked
                        channel.send(reply, deadline)
                    case {"text": str(text), "error": None | "exception" as error, "answer": str() | None as answer}:
                        watch.look(self._process)
                        self._rest()
                        return Observation(_clean(text), error, None if answer is None else _clean(answer))
                    case _:
                        raise Lost("the interpreter broke the protocol")
        except watch.TooMuch as problem:
            self._drop()
            return Observation(f"Error: the code made {problem} and was stopped.", "died")
        except TimedOut:
            self._drop()
            text = f"TimeoutError: the code ran longer than {self._pool.limits.timeout_s:g} s and was stopped."
            return Observation(text, "timeout")
        except Lost:
            if self._drop(patience_s=_DEATH_S) == signal.SIGKILL:  # which the code cannot send
                raise InfrastructureError("a sandbox interpreter was killed from outside; is memory short?") from None
            return Observation("Error: the code ended the interpreter (a crash, too little memory or an exit).", "died")
        except BaseException:  # a tool failed: the code still waits for its answer
            self._drop()
            raise

    def _receive(self, deadline: float) -> Any:
        """The next frame; raises `watch.TooMuch` if the step meanwhile uses too much, else what a channel raises."""
        channel = self._process.channel
        while not channel.wait(max(0.0, min(watch.LOOK_S, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                raise TimedOut
            watch.look(self._process)
        return channel.receive(deadline)

    def _answer_call(self, name: str, argument: str, calls: list[_Call], memory: deque[_Call]) -> dict[str, str]:
        if len(calls) >= MAX_CALLS:
            return {"refusal": f"{name}() can be called at most {MAX_CALLS} times in one step"}
        known = memory.popleft() if memory else None
        if known is not None and (known.name, known.argument) == (name, argument):
            result = known.result
        else:
            result = self._tools[name](argument)
        calls.append(_Call(name, argument, result))
        return {"result": result}

    def _drop(self, patience_s: float = 0.0) -> int | None:
        """Ends the running interpreter, not its snapshots; the signal that had ended it before, if one had."""
        if not self._running:
            return None
        process, self._running = self._process, False
        process.channel.close()
        if not process.snapshots:
            return self._discard(process.channel.pid, patience_s)
        try:
            return self._pool.end(process.group, process.channel.pid, whole=False, patience_s=patience_s)
        except InfrastructureError:  # what the code has done to its interpreter is in the snapshots, too
            return self._discard()

    def _discard(self, pid: int | None = None, patience_s: float = 0.0) -> int | None:
        """Ends all processes of the session and removes its files; returns as `_drop` does."""
        process, self._process, self._running = self._process, None, False
        if process is None:
            return None
        process.channel.close()
        for channel, _ in process.snapshots.values():
            channel.close()
        return self._pool.end(process.group, pid, whole=True, patience_s=patience_s)

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(InfrastructureError):  # the parent is gone, and the interpreter with it
            self._discard()

    def __enter__(self) -> ZygoteSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _clean(text: str) -> str:
    """Text that can be written as UTF-8: lone surrogates, which JSON and Python let pass, become their escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
