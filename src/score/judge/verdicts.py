"""A judge model decides what rules cannot: is a candidate equivalent to a reference?

One fixed, versioned prompt; a verdict is parsed, never found as a substring (hazard 19), and kept with the raw reply. A
reply that holds no verdict, also when asked again, is stored as unparseable: such an answer has no score. A judge that
is down raises `InfrastructureError`: it never yields a verdict, a score or a reward (hazard 18). Not here: which
answers of a benchmark a judge is asked about (`python -m score.judge`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel

from score import fingerprint, prompts, replies
from score.agent.protocol import Message
from score.config.schema import Model, Sampling
from score.engine import digest_of
from score.engine.base import AsyncEngine, Completion, Request
from score.jsonl import ResumableRows
from score.records import Task, content_key, derive_seed

LONGEST = 4000
"""Characters of a candidate that the judge reads. Without a limit an endless answer fits no context, and its question
would leave the mean instead of counting as wrong."""


class Verdict(BaseModel):
    """What the judge's prompt asks for."""

    equivalent: bool


@dataclass(frozen=True)
class Case:
    """One question to the judge."""

    question: str
    reference: str
    candidate: str

    @classmethod
    def of(cls, task: Task, answer: str) -> Case:
        """Is this the task's answer? All aliases are shown."""
        return cls(task.question, " or ".join(task.answers), answer)

    @property
    def key(self) -> str:
        return content_key(prompts.load("judge").key, self.question, self.reference, self.candidate)

    def prompt(self) -> replies.Prompt:
        return prompts.load("judge").render(
            question=self.question, reference=self.reference, candidate=_shortened(self.candidate)
        )


def _shortened(candidate: str) -> str:
    left_out = len(candidate) - LONGEST
    if left_out <= 0:
        return candidate
    half = LONGEST // 2
    return f"{candidate[:half]} [... {left_out} characters left out ...] {candidate[-half:]}"


@dataclass(frozen=True)
class Ruling:
    """A verdict and the reply that it was read from. `equivalent` is None where there is none, for the reason that
    `failure` names; `first_reply` is the unreadable one before, if the judge had to be asked again."""

    equivalent: bool | None
    reply: str
    failure: replies.Failing | None = None
    first_reply: str | None = None

    @property
    def verdict(self) -> Literal["yes", "no", "unparseable"]:
        return {True: "yes", False: "no", None: "unparseable"}[self.equivalent]

    @property
    def repaired(self) -> bool:
        return self.first_reply is not None and self.equivalent is not None


def tally(rulings: Sequence[Ruling]) -> dict[str, int]:
    """How a judge did: rulings, cases that it had to be asked about again, those that this mended, and the unreadable
    rest."""
    return {
        "given": len(rulings),
        "asked_again": sum(ruling.first_reply is not None for ruling in rulings),
        "repaired": sum(ruling.repaired for ruling in rulings),
        "unparseable": sum(ruling.equivalent is None for ruling in rulings),
    }


class Judge:
    """Asks a model for verdicts, many at a time, and each case once.

    Args:
        engine: may be None as long as nothing is `missing`.
        identity: what else decides a verdict (the model, by name and digest); it enters the keys of `rows`.
        rows: a work file of rulings. Without one they are kept as long as the judge.
        anew: whether cases without a verdict in `rows` are asked about once more.
    """

    def __init__(
        self, engine: AsyncEngine | None, sampling: Sampling, identity: Any = None,
        rows: ResumableRows | None = None, *, anew: bool = False,
    ) -> None:  # fmt: skip
        self.engine, self.sampling, self.identity, self.rows = engine, sampling, identity, rows
        done = rows.done if rows is not None else {}
        kept = {key: Ruling(**{k: v for k, v in row.items() if k != "key"}) for key, row in done.items()}
        self._known = {key: ruling for key, ruling in kept.items() if not (anew and ruling.equivalent is None)}

    def key(self, case: Case) -> str:
        """Under which a ruling is kept: the same case, prompt, model and sampling give the same."""
        return content_key(case.key, self.identity, self.sampling.model_dump())

    def rulings(self, cases: Sequence[Case], on_done: Callable[[], None] = lambda: None) -> list[Ruling]:
        """One ruling per case, in order; `on_done` is called as each new one arrives.

        Raises `InfrastructureError` if the judge is down; the rulings until then are kept.
        """
        if missing := self.missing(cases):
            asyncio.run(self._all(missing, on_done))
        return [self._known[self.key(case)] for case in cases]

    def missing(self, cases: Sequence[Case]) -> dict[str, Case]:
        """The distinct cases without a ruling yet, by key."""
        return {key: case for case in cases if (key := self.key(case)) not in self._known}

    async def _all(self, cases: dict[str, Case], on_done: Callable[[], None]) -> None:
        slots = asyncio.Semaphore(self.engine.concurrency)

        async def limited(key: str, case: Case) -> None:
            async with slots:
                ruling = await self._ask(case)
            self._known[key] = ruling
            if self.rows is not None:
                self.rows.append(key, asdict(ruling))
            on_done()

        async with self.engine:
            await asyncio.gather(*(limited(key, case) for key, case in cases.items()))

    async def _ask(self, case: Case) -> Ruling:
        async def complete(prompt: tuple[Message, ...], schema: dict[str, Any]) -> Completion:
            seed = derive_seed("judge", case.key, len(prompt))
            return await self.engine.complete(Request(prompt, self.sampling, seed, schema))

        reply = await replies.ask(complete, case.prompt(), Verdict)
        return Ruling(reply.value and reply.value.equivalent, reply.text, reply.failure, reply.first)


def identity(name: str, model: Model) -> list[Any]:
    """What a judge is: its entry in `models`, what decides about it, and the digest of its files."""
    return [name, fingerprint.deciding(model), digest_of(model) if model.path else None]
