"""The teacher in mentored problem solving: is the answer right, which turn is the earliest wrong one, how should it
read.

Every question goes through the same prompts to any OpenAI-compatible model, the micro-world's oracle included. Replies
are validated; one that cannot be read is asked for once more and then becomes a named failure, never a guess (hazards
5, 11). The reference answer is shown to judge and to locate, never in the rewrite; of the analysis only the turn's
number gets there, unless `advice` is on (hazard 7).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, Field

from score import prompts, replies
from score.agent import protocol
from score.agent.protocol import Message
from score.agent.syntax import squeeze, tree
from score.config.schema import Sampling
from score.correct.leaks import given_away
from score.correct.render import render_trajectory
from score.data.metric import by_rules
from score.engine.base import AsyncEngine, Completion, Request, Turn
from score.errors import InfrastructureError
from score.jsonl import ResumableRows
from score.judge.verdicts import Case, Verdict
from score.records import Step, StopReason, Task, Trajectory, content_key, derive_seed

log = logging.getLogger("teacher")

INFRASTRUCTURE = "infrastructure"
"""The reason of a `Failure` that says nothing about the attempt or the teacher: an endpoint or a sandbox failed."""


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
    although nothing before it does; `analysis_leak`: the analysis does. `advised`: the rewrite was shown the analysis.
    """

    k: int
    wrong: Step
    fix: Step
    analysis: str = ""
    leak: bool = False
    analysis_leak: bool = False
    advised: bool = False


@dataclass(frozen=True)
class Failure:
    """The teacher could not give a usable correction; `reason` says why, `k` which turn it named if it got that far."""

    reason: str
    detail: str = ""
    k: int | None = None


Review = Right | Wrong | Correction | Failure


class _Location(BaseModel):
    step: int | None
    analysis: str = Field("", json_schema_extra={"maxLength": 400})  # a bound for servers; a longer one is read as well


T = TypeVar("T", bound=BaseModel)


class _Failed(Exception):
    """The teacher's replies are no use; the failure says why."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.failure = Failure(reason, detail)


class Teacher:
    """Reviews attempts through a model. `review` never raises for a bad reply; a dead endpoint is a `Failure` too, once
    all the others are done and it has been asked again.

    Args:
        identity: what else decides a reply (the digest of the model); it enters the keys of `replies`.
        replies: a work file that keeps every reply, so that a killed job does not pay for it twice.
    """

    def __init__(
        self, engine: AsyncEngine, *, step: Sampling, judge: Sampling, advice: bool = False,
        identity: Any = None, replies: ResumableRows | None = None,
    ) -> None:  # fmt: skip
        self.engine, self.step, self.judge, self.advice = engine, step, judge, advice
        self.identity, self.replies = identity, replies
        self._repaired: dict[str, bool] = {}  # of each question that was put again: did that help?

    @property
    def repairs(self) -> dict[str, int]:
        """How many questions had to be asked again because the reply was not the JSON asked for, and how many of these
        repairs could be read."""
        return {"asked": len(self._repaired), "made": sum(self._repaired.values())}

    def review(self, attempts: Sequence[Trajectory], *, correct: bool = True) -> list[Review]:
        """One review per attempt, in order, with at most `engine.concurrency` requests in flight.

        With `correct` off a wrong attempt is `Wrong` and no correction is asked for.
        """
        return self._all(lambda attempt: self._review(attempt, correct), attempts)

    def right(self, attempts: Sequence[Trajectory]) -> list[bool | Failure]:
        """Whether each attempt's answer is right: rules first, the model only where they cannot tell."""
        return self._all(lambda attempt: self._guard(self._right(attempt)), attempts)

    def _all(self, ask: Callable[[Trajectory], Coroutine], attempts: Sequence[Trajectory]) -> list:
        """What `ask` makes of each attempt; where the teacher could not be reached it is asked once more."""
        done = asyncio.run(self._gather([ask(attempt) for attempt in attempts]))
        missing = [i for i, said in enumerate(done) if unanswered(attempts[i], said)]
        if missing:
            log.warning("no answer about %d of %d attempts; they are put again", len(missing), len(done))
            again = asyncio.run(self._gather([ask(attempts[i]) for i in missing]))
            for i, said in zip(missing, again, strict=True):
                done[i] = said
        return done

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
            return Failure(INFRASTRUCTURE, str(error))
        except _Failed as error:
            return error.failure

    async def _review(self, attempt: Trajectory, correct: bool) -> Review:
        if attempt.stop == StopReason.INFRASTRUCTURE_ERROR:
            return Failure(INFRASTRUCTURE, attempt.meta.get("failure", ""))
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
        case = Case.of(attempt.task, attempt.answer)
        return (await self._ask_json("judge", case.prompt(), Verdict, attempt.task, 0)).equivalent

    async def _correct(self, attempt: Trajectory) -> Review:
        task, steps = attempt.task, attempt.steps
        prompt = prompts.load("locate").render(
            question=task.question, reference=" or ".join(task.answers), trajectory=_text_of(attempt, len(steps))
        )
        there = {"type": "integer", "enum": [*range(len(steps) + 1)]}
        narrower = {"step": {"anyOf": [there, {"type": "null"}]}}
        located = await self._ask_json("locate", prompt, _Location, task, len(steps), narrower)
        k = located.step
        if k is None:
            return Failure("no_wrong_step", located.analysis)
        if not 0 <= k <= len(steps):
            return Failure("step_out_of_range", f"turn {k} of {len(steps)}")
        wrong = _wrong_turn(attempt, k)
        turn = "plan" if k == 0 else "step"
        reply = await self._ask(self._rewrite_prompt(attempt, located, wrong), self.step, task, k, turn=turn)
        if reply.finish != "stop":
            return Failure("rewrite_truncated" if reply.finish == "length" else "context", f"rewrite of turn {k}", k)
        fix = _read_turn(reply.text, k)
        if fix is None:
            return Failure("rewrite_unreadable", reply.text[:200], k)
        if _same(fix, wrong, k):
            return Failure("rewrite_identical", reply.text[:200], k)
        return Correction(
            k, wrong, fix, located.analysis,
            leak=given_away(attempt, k, f"{fix.thought}\n{fix.code}"),
            analysis_leak=given_away(attempt, k, located.analysis), advised=self.advice,
        )  # fmt: skip

    def _rewrite_prompt(self, attempt: Trajectory, located: _Location, wrong: Step) -> replies.Prompt:
        advice = prompts.Markup(f"<advice>{prompts.material(located.analysis)}</advice>")
        return prompts.load("rewrite").render(
            question=attempt.task.question,
            trajectory=_text_of(attempt, located.step - 1),
            number=str(located.step),
            wrong=protocol.step_message(wrong).content,
            advice=advice if self.advice else "",
        )

    async def _ask(
        self, prompt: replies.Prompt, sampling: Sampling, task: Task, what: object,
        *, schema: dict[str, Any] | None = None, turn: Turn | None = None,
    ) -> Completion:  # fmt: skip
        """The completion of a prompt, from the work file if it is there."""
        texts = [message.content for message in prompt]
        asked = content_key(task.id, [what], texts, sampling.model_dump())
        key = content_key(asked, self.identity)
        if self.replies is not None and (row := self.replies.done.get(key)):
            return Completion(row["reply"], row["finish"])
        completion = await self.engine.complete(Request(prompt, sampling, derive_seed("teacher", asked), schema, turn))
        if self.replies is not None:
            self.replies.append(key, {"reply": completion.text, "finish": completion.finish})
        return completion

    async def _ask_json(
        self, name: str, prompt: replies.Prompt, schema: type[T], task: Task, what: object,
        narrower: Mapping[str, Any] | None = None,
    ) -> T:  # fmt: skip
        """`narrower`: of the schema's properties, for a server that can hold the model to them."""

        async def complete(prompt: tuple[Message, ...], schema: dict[str, Any]) -> Completion:
            schema = schema | {"properties": schema["properties"] | dict(narrower or {})}
            return await self._ask(prompt, self.judge, task, what, schema=schema)

        reply = await replies.ask(complete, prompt, schema)
        if reply.first is not None:
            self._repaired[content_key(name, task.id, what, [message.content for message in prompt])] = reply.repaired
        if reply.failure is not None:
            raise _Failed(reply.failure, f"{name}: {reply.text[:200]!r}")
        return reply.value


def unanswered(attempt: Trajectory, said: Any) -> bool:
    """Could the teacher not be reached about an attempt that has an outcome?"""
    return (
        isinstance(said, Failure)
        and said.reason == INFRASTRUCTURE
        and attempt.stop != StopReason.INFRASTRUCTURE_ERROR
    )  # fmt: skip


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


def _same(fix: Step, wrong: Step, k: int) -> bool:
    """Does the rewritten turn do just what the wrong one did? Layout, comments and the thought change nothing."""
    return squeeze(fix.thought) == squeeze(wrong.thought) if k == 0 else tree(fix.code) == tree(wrong.code)
