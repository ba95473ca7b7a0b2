"""The host's side of one session: sends a step, serves its tool calls, judges how it ended, restores lost state.

The time limit counts the code's own wall-clock time; what the host spends in a tool is left out. A step that times out
or kills its interpreter costs the variables, so the next `run` forks a fresh one and runs the completed steps again,
their tool calls answered from memory. Only code that asks for the time or for system entropy may then differ (the
generators of `random` and `numpy.random` are seeded alike in every session).
"""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from score.errors import InfrastructureError
from score.sandbox import frames
from score.sandbox.base import Observation, Tools

if TYPE_CHECKING:
    from score.sandbox.zygote import ZygotePool

MAX_CALLS = 50
"""Tool calls of one step; a further one is a RuntimeError in the model's code."""

_START_S = 30.0
_DEATH_S = 0.1


@dataclass(frozen=True)
class _Call:
    name: str
    argument: str
    result: str


class _TimedOut(Exception):
    """The deadline passed."""


class _Lost(Exception):
    """The interpreter is gone, or sent something that is no frame."""


class Channel:
    """Frames to and from one child, each operation up to a deadline (of time.monotonic)."""

    def __init__(self, pid: int, ours: socket.socket, max_bytes: int) -> None:
        self.pid = pid
        self._socket = ours
        self._max_bytes = max_bytes

    def send(self, frame: dict[str, Any], deadline: float) -> None:
        data = frames.encode(frame)
        with self._until(deadline):
            self._socket.sendall(data)

    def receive(self, deadline: float) -> Any:
        with self._until(deadline):
            return frames.read(lambda count: self._read_exactly(count, deadline), self._max_bytes)

    def _read_exactly(self, count: int, deadline: float) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self._socket.recv(count - len(data))
            if not chunk:
                raise EOFError("the channel ended")
            data += chunk
            self._socket.settimeout(_left(deadline))
        return data

    @contextlib.contextmanager
    def _until(self, deadline: float) -> Iterator[None]:
        try:
            self._socket.settimeout(_left(deadline))
            yield
        except TimeoutError as problem:
            raise _TimedOut from problem
        except (EOFError, OSError, ValueError) as problem:
            raise _Lost(str(problem)) from problem

    def close(self) -> None:
        self._socket.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class ZygoteSession:
    """One episode's interpreter. Not for use by two threads at once; two sessions are independent."""

    def __init__(self, pool: ZygotePool, tools: Tools) -> None:
        self._pool = pool
        self._tools = tools
        self._completed: list[tuple[str, tuple[_Call, ...]]] = []
        self._closed = False
        self._ready = False
        self._channel: Channel | None = pool.spawn(tools)

    def run(self, code: str) -> Observation:
        """Executes one step.

        A step ends at final_answer_print: code after it is not run. Its prints to standard error are dropped.

        Raises:
            InfrastructureError: the sandbox or a tool's backend failed. The step left no trace in the session: the next
                `run` starts from the state after the last completed step.
        """
        if self._closed:
            raise RuntimeError("this sandbox session is closed")
        if self._channel is None:
            self._restore()
        started = time.monotonic()
        calls: list[_Call] = []
        observation = self._execute(code, self._pool.limits.timeout_s, calls)
        if self._channel is not None:
            self._completed.append((code, tuple(calls)))
        counts = Counter(call.name for call in calls)
        seconds = time.monotonic() - started
        return Observation(observation.text, observation.error, observation.answer, tuple(counts.items()), seconds)

    def greet(self) -> tuple[str, ...]:
        """Waits until the interpreter is confined and ready; returns its active layers."""
        try:
            layers = tuple(self._channel.receive(time.monotonic() + _START_S)["layers"])
        except (_TimedOut, _Lost) as problem:
            self._drop()
            raise InfrastructureError(f"the sandbox did not start an interpreter: {problem!r}") from problem
        self._ready = True
        return layers

    def _restore(self) -> None:
        self._channel, self._ready = self._pool.spawn(self._tools), False
        for code, calls in self._completed:
            # Twice the time: what fitted its limit once must not fail now because the machine is busier.
            again = self._execute(code, 2 * self._pool.limits.timeout_s, [], remembered=calls)
            if self._channel is None:
                raise InfrastructureError(f"a completed step could not be run again: {again.text}")

    def _execute(
        self, code: str, timeout_s: float, calls: list[_Call], remembered: Iterable[_Call] = ()
    ) -> Observation:
        """One step in the living interpreter, which is dropped if the step ends it; `calls` collects the tool calls."""
        if not self._ready and self.greet() != self._pool.layers:
            self._drop()
            raise InfrastructureError("an isolation layer of the sandbox is no longer active")
        memory = deque(remembered)
        deadline = time.monotonic() + timeout_s
        try:
            self._channel.send({"code": code}, deadline)
            while True:
                frame = self._channel.receive(deadline)
                match frame:
                    case {"call": str(name), "argument": str(argument)} if name in self._tools:
                        asked = time.monotonic()
                        reply = self._answer_call(name, _clean(argument), calls, memory)
                        deadline += time.monotonic() - asked
                        self._channel.send(reply, deadline)
                    case {"text": str(text), "error": None | "exception" as error, "answer": str() | None as answer}:
                        return Observation(_clean(text), error, None if answer is None else _clean(answer))
                    case _:
                        raise _Lost("the interpreter broke the protocol")
        except _TimedOut:
            self._drop()
            text = f"TimeoutError: the code ran longer than {self._pool.limits.timeout_s:g} s and was stopped."
            return Observation(text, "timeout")
        except _Lost:
            if self._drop(patience_s=_DEATH_S) == signal.SIGKILL:  # which the code cannot send
                raise InfrastructureError("a sandbox interpreter was killed from outside; is memory short?") from None
            return Observation("Error: the code ended the interpreter (a crash, too little memory or an exit).", "died")
        except BaseException:  # a tool failed: the code still waits for its answer
            self._drop()
            raise

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
        channel, self._channel = self._channel, None
        channel.close()
        return self._pool.end(channel.pid, patience_s)

    def close(self) -> None:
        self._closed = True
        if self._channel is not None:
            with contextlib.suppress(InfrastructureError):  # the parent is gone, and the interpreter with it
                self._drop()

    def __enter__(self) -> ZygoteSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _clean(text: str) -> str:
    """Text that can be written as UTF-8: lone surrogates, which JSON and Python let pass, become their escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
