"""The teacher in mentored problem solving: is the answer right, which turn is the earliest wrong one, how should it
read.

Every question goes through the same prompts to any OpenAI-compatible model, the micro-world's oracle included. Replies
are validated; one that cannot be read is asked for once more and then becomes a named failure, never a guess (hazards
5, 11). Of the analysis only the turn's number reaches the rewrite, unless `advice` is on (hazard 7).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, StrictBool, StrictInt, ValidationError

from score import prompts
from score.agent import protocol
from score.agent.protocol import Message
from score.config.schema import Sampling
from score.correct.render import render_trajectory
from score.data.metric import by_rules
from score.engine.base import AsyncEngine, Request
from score.errors import InfrastructureError
from score.jsonl import ResumableRows
from score.records import Step, StopReason, Task, Trajectory, content_key, derive_seed


@dataclass(frozen=True)
class Right:
    """The attempt reached the gold answer."""


@dataclass(frozen=True)
class Wrong:
    """The attempt is wrong, and no correction was asked for."""


@dataclass(frozen=True)
class Correction:
    """Turn k of an attempt (0 is the plan) and what the teacher puts in its place.

    A plan is held as a Step whose thought is the plan and whose code is empty. `leak`: the fix holds the gold answer
    although nothing before it does.
    """

    k: int
    wrong: Step
    fix: Step
    analysis: str = ""
    leak: bool = False


@dataclass(frozen=True)
class Failure:
    """The teacher could not give a usable correction; `reason` says why."""

    reason: str
    detail: str = ""


Review = Right | Wrong | Correction | Failure


class _Verdict(BaseModel):
    equivalent: StrictBool


class _Location(BaseModel):
    step: StrictInt | None
    analysis: str = ""


Reply = TypeVar("Reply", _Verdict, _Location)


class _Unreadable(Exception):
    """A reply that is not the JSON asked for, twice."""


class Teacher:
    """Reviews attempts through a model. `review` never raises for a bad reply; a dead endpoint is a `Failure` too.

    Args:
        replies: a work file that keeps every reply, so that a killed job does not pay for it twice.
    """

    def __init__(
        self, engine: AsyncEngine, *, step: Sampling, judge: Sampling, advice: bool = False,
        replies: ResumableRows | None = None,
    ) -> None:  # fmt: skip
        self.engine, self.step, self.judge, self.advice, self.replies = engine, step, judge, advice, replies

    def review(self, attempts: Sequence[Trajectory], *, correct: bool = True) -> list[Review]:
        """One review per attempt, in order, with at most `engine.concurrency` requests in flight.

        With `correct` off a wrong attempt is `Wrong` and no correction is asked for.
        """
        return asyncio.run(self._gather([self._review(attempt, correct) for attempt in attempts]))

    def right(self, attempts: Sequence[Trajectory]) -> list[bool | Failure]:
        """Whether each attempt's answer is right: rules first, the model only where they cannot tell."""
        return asyncio.run(self._gather([self._guard(self._right(attempt)) for attempt in attempts]))

    async def _gather(self, jobs: Sequence) -> list:
        slots = asyncio.Semaphore(self.engine.concurrency)

        async def limited(job):
            async with slots:
                return await job

        async with self.engine:
            return list(await asyncio.gather(*map(limited, jobs)))

    async def _guard(self, job):
        try:
            return await job
        except InfrastructureError as error:
            return Failure("infrastructure", str(error))
        except _Unreadable as error:
            return Failure("unreadable", str(error))

    async def _review(self, attempt: Trajectory, correct: bool) -> Review:
        if attempt.stop == StopReason.INFRASTRUCTURE_ERROR:
            return Failure("infrastructure", attempt.meta.get("failure", ""))
        right = await self._guard(self._right(attempt))
        if isinstance(right, Failure):
            return right
        if right:
            return Right()
        return await self._guard(self._correct(attempt)) if correct else Wrong()

    async def _right(self, attempt: Trajectory) -> bool:
        if attempt.answer is None:
            return False
        decided = by_rules(attempt.task, attempt.answer)
        if decided is not None:
            return decided == 1.0
        reference = " or ".join(attempt.task.answers)
        prompt = prompts.load("judge").render(
            question=attempt.task.question, reference=reference, candidate=attempt.answer
        )
        return (await self._ask_json(prompt, _Verdict, attempt.task, 0)).equivalent

    async def _correct(self, attempt: Trajectory) -> Review:
        task, steps = attempt.task, attempt.steps
        prompt = prompts.load("locate").render(
            question=task.question, reference=" or ".join(task.answers), trajectory=_text_of(attempt, len(steps))
        )
        located = await self._ask_json(prompt, _Location, task, len(steps))
        if located.step is None:
            return Failure("no_wrong_step", located.analysis)
        if not 0 <= located.step <= len(steps):
            return Failure("step_out_of_range", f"turn {located.step} of {len(steps)}")
        wrong = _wrong_turn(attempt, located.step)
        reply = await self._ask(self._rewrite_prompt(attempt, located, wrong), self.step, task, located.step)
        fix = _read_turn(reply, located.step)
        if fix is None:
            return Failure("rewrite_unreadable", reply[:200])
        if (fix.thought, fix.code) == (wrong.thought, wrong.code):
            return Failure("rewrite_identical", reply[:200])
        return Correction(located.step, wrong, fix, located.analysis, _leaks(attempt, located.step, fix))

    def _rewrite_prompt(self, attempt: Trajectory, located: _Location, wrong: Step) -> tuple[Message, ...]:
        return prompts.load("rewrite").render(
            question=attempt.task.question,
            trajectory=_text_of(attempt, located.step - 1),
            number=str(located.step),
            wrong=protocol.step_message(wrong).content,
            advice=f"<advice>{located.analysis}</advice>" if self.advice else "",
        )

    async def _ask(self, prompt: tuple[Message, ...], sampling: Sampling, task: Task, *what: object) -> str:
        texts = [message.content for message in prompt]
        key = content_key(task.id, what, texts, sampling.model_dump())
        if self.replies is not None and key in self.replies.done:
            return self.replies.done[key]["reply"]
        reply = (await self.engine.complete(Request(prompt, sampling, derive_seed("teacher", key)))).text
        if self.replies is not None:
            self.replies.append(key, {"reply": reply})
        return reply

    async def _ask_json(self, prompt: tuple[Message, ...], schema: type[Reply], task: Task, turn: int) -> Reply:
        reply = await self._ask(prompt, self.judge, task, turn)
        try:
            return _read_json(reply, schema)
        except ValueError as error:
            repair = Message("user", f"That was not the JSON asked for ({str(error)[:200]}). Reply with the JSON only.")
            reply = await self._ask((*prompt, Message("assistant", reply), repair), self.judge, task, turn)
        try:
            return _read_json(reply, schema)
        except ValueError as error:
            raise _Unreadable(f"{schema.__name__.strip('_').lower()}: {reply[:200]!r}") from error


def _read_json(reply: str, schema: type[Reply]) -> Reply:
    """The reply as JSON, bare or in one code fence. Raises ValueError (ValidationError is one)."""
    text = reply.strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    try:
        return schema.model_validate(json.loads(text))
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from error


def _text_of(attempt: Trajectory, steps: int) -> str:
    """The plan and the first `steps` steps; nothing at all for -1, the prefix of the plan itself."""
    return "" if steps < 0 else render_trajectory(attempt.plan_text or "", attempt.steps[:steps])


def _wrong_turn(attempt: Trajectory, k: int) -> Step:
    if k > 0:
        return attempt.steps[k - 1]
    return Step(attempt.plan or "", "", text=attempt.plan_text, token_ids=attempt.plan_token_ids)


def _read_turn(reply: str, k: int) -> Step | None:
    if k == 0:
        plan = protocol.parse_plan(reply)
        return None if plan is None else Step(plan, "", text=protocol.plan_text(plan))
    parsed = protocol.parse_step(reply)
    return None if parsed is None else Step(*parsed, text=protocol.step_text(*parsed))


def _leaks(attempt: Trajectory, k: int, fix: Step) -> bool:
    """Does the fix hold the gold answer although question, plan and observations before it do not?"""
    before = " ".join([attempt.task.question, *(f"{s.code} {s.observation}" for s in attempt.steps[: max(k - 1, 0)])])
    gold = attempt.task.answers[0]
    return gold in f"{fix.thought} {fix.code}" and gold not in before
