"""Fakes for the swappable parts: an engine with scripted completions, a sandbox in this process."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from score.agent.protocol import Message
from score.config.load import merge
from score.engine.base import Completion, Request
from score.errors import InfrastructureError
from score.sandbox.base import Observation, Tools

ROOT = Path(__file__).parents[1]


def mapping(*overlays: str, **more) -> dict:
    """`config.yaml` with overlays of `configs/` and single keys on top, before it is checked."""
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    for overlay in overlays:
        raw = merge(raw, yaml.safe_load((ROOT / "configs" / overlay).read_text()))
    return merge(raw, more)


class ScriptedEngine:
    """A batch engine whose completions are a function of the request."""

    def __init__(self, reply: Callable[[Request], str | Completion], batch: int = 4) -> None:
        self.reply, self.batch, self.sizes = reply, batch, []

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        self.sizes.append(len(requests))
        replies = [self.reply(request) for request in requests]
        return [
            r if isinstance(r, Completion) else Completion(r, prompt_tokens=10, completion_tokens=5) for r in replies
        ]


class ScriptedAsyncEngine:
    """The same over the asynchronous shape; an exception as a reply is raised."""

    def __init__(self, reply: Callable[[Request], str | Completion | Exception], concurrency: int = 3) -> None:
        self.reply, self.concurrency, self.requests = reply, concurrency, []

    async def __aenter__(self) -> ScriptedAsyncEngine:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        reply = self.reply(request)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Completion) else Completion(reply, prompt_tokens=10, completion_tokens=5)


class _Answered(BaseException):
    pass


class LocalSession:
    """Runs trusted test code in this process, with the sandbox's two functions."""

    def __init__(self, tools: Tools) -> None:
        self.tools, self.ran, self.reversible = tools, [], False
        self._start()

    def _start(self) -> None:
        self.scope, self.answer = {"final_answer_print": self._finish, **self.tools}, None

    @property
    def steps(self) -> int:
        return len(self.ran)

    def restore(self, step: int) -> None:
        again, self.ran = self.ran[:step], []
        self._start()
        for code in again:
            self.run(code)

    def branch(self, step: int, count: int) -> list[LocalSession]:
        branches = [LocalSession(self.tools) for _ in range(count)]
        for branch in branches:
            for code in self.ran[:step]:
                branch.run(code)
        return branches

    def _finish(self, value: object) -> None:
        self.answer = str(value)
        print(value)
        raise _Answered

    def run(self, code: str) -> Observation:
        out, error = io.StringIO(), None
        with contextlib.redirect_stdout(out):
            try:
                exec(code, self.scope)
            except _Answered:
                pass
            except InfrastructureError:
                raise
            except Exception as exception:
                error = "exception"
                print(f"{type(exception).__name__}: {exception}")
        self.ran.append(code)
        return Observation(out.getvalue().rstrip("\n"), error, self.answer)

    def close(self) -> None: ...

    def __enter__(self) -> LocalSession:
        return self

    def __exit__(self, *exc: object) -> None: ...


class LocalPool:
    """A sandbox pool of `LocalSession`s."""

    layers, versions = ("none",), "python"

    def __init__(self) -> None:
        self.opened = 0

    def open(self, tools: Tools | None = None, *, reversible: bool = False) -> LocalSession:
        self.opened += 1
        return LocalSession(tools or {})

    def run_many(self, steps: Sequence[tuple[LocalSession, str]]) -> list[Observation | InfrastructureError]:
        outcomes = []
        for session, code in steps:
            try:
                outcomes.append(session.run(code))
            except InfrastructureError as error:
                outcomes.append(error)
        return outcomes


def by_turn(*turns: str) -> Callable[[Request], str]:
    """A reply that depends on how many assistant turns the conversation has; the last one repeats."""

    def reply(request: Request) -> str:
        done = sum(message.role == "assistant" for message in request.messages)
        return turns[min(done, len(turns) - 1)]

    return reply


def last_user(request: Request) -> str:
    return [m for m in request.messages if m.role == "user"][-1].content


def assistant(text: str) -> Message:
    return Message("assistant", text)
