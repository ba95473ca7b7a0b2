"""A judge model decides what rules cannot: is a candidate equivalent to a reference?

One fixed, versioned prompt; a verdict is parsed, never found as a substring (hazard 19), and kept with the raw reply. A
reply that holds no verdict, also when asked again, is stored as unparseable: such an answer has no score. A judge that
is down raises `InfrastructureError`: it never yields a verdict, a score or a reward (hazard 18).

    python -m score.judge --config ... --benchmark hle --tasks data/hle.jsonl --predictions eval/*/*/hle.jsonl \
        --out verdicts/hle.jsonl --agreement verdicts/hle.agreement.json ...

writes one verdict per distinct (question, answer) of all agents that rules leave undecided, and how far the judge
agrees with the rules where they do decide (`score.agreement`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from score import agreement, cli, fingerprint, prompts, replies
from score.agent.protocol import Message
from score.config import Config, read
from score.config.schema import Model, Sampling
from score.data import benchmarks
from score.engine import open_engine, resolve_path
from score.engine.base import AsyncEngine, Completion, Request
from score.errors import ScoreError
from score.evaluate import metrics
from score.evaluate.score import verdict_key
from score.jsonl import ResumableRows, Row, read_rows, write_json, write_rows
from score.progress import Progress
from score.provenance import model_digest, provenance, write
from score.records import Task, content_key, derive_seed
from score.usage import Usage

log = logging.getLogger("judge")

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
    `failure` names."""

    equivalent: bool | None
    reply: str
    failure: replies.Failing | None = None

    @property
    def verdict(self) -> Literal["yes", "no", "unparseable"]:
        return {True: "yes", False: "no", None: "unparseable"}[self.equivalent]


class Judge:
    """Asks a model for verdicts, many at a time, and each case once.

    Args:
        engine: may be None as long as nothing is `missing`.
        identity: what else decides a verdict (the model, by name and digest); it enters the keys of `rows`.
        rows: a work file of rulings. Without one they are kept as long as the judge.
    """

    def __init__(
        self, engine: AsyncEngine | None, sampling: Sampling, identity: Any = None, rows: ResumableRows | None = None
    ) -> None:
        self.engine, self.sampling, self.identity, self.rows = engine, sampling, identity, rows
        done = rows.done if rows is not None else {}
        self._known = {key: Ruling(row["equivalent"], row["reply"], row["failure"]) for key, row in done.items()}

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
        return Ruling(reply.value and reply.value.equivalent, reply.text, reply.failure)


def identity(name: str, model: Model) -> list[Any]:
    """What a judge is: its entry in `models`, what decides about it, and the digest of its files."""
    digest = model_digest(resolve_path(model.path), model.revision) if model.path else None
    return [name, fingerprint.deciding(model), digest]


def open_cases(benchmark: str, tasks: Sequence[Task], predictions: Sequence[Row]) -> dict[str, Case]:
    """The distinct answers that rules leave undecided, by the key under which `score.evaluate.score` looks them up."""
    by_id = {task.id: task for task in tasks}
    metric = benchmarks.get(benchmark).metric
    cases = {}
    for row in predictions:
        task, answer = by_id[row["task"]["id"]], row["answer"]
        if answer is not None and metrics.decide(metric, answer, task.answers) is None:
            cases[verdict_key(benchmark, task.question, answer)] = Case.of(task, answer)
    return cases


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--benchmark", required=True)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, nargs="*", default=[])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--agreement", type=Path, required=True, help="where the agreement with rules goes")
    parser.add_argument("--sample", type=int, default=100, help="answers that rules decide, to ask the judge as well")
    parser.add_argument("--provenance", type=Path, required=True)
    args = parser.parse_args(argv)
    config = read(args.config)
    tasks = [Task.from_json(row) for row in read_rows(args.tasks)]
    predictions = [row for path in args.predictions for row in read_rows(path)]
    cases = open_cases(args.benchmark, tasks, predictions)
    name = config.roles.evaluation_judge
    if cases and name is None:
        raise ScoreError(f"{args.benchmark}: {len(cases)} answers need a judge; name one in roles.evaluation_judge")
    sample = agreement.sample(args.benchmark, tasks, predictions, size=args.sample) if name else []
    asked = [*cases.values(), *(Case.of(pair.task, pair.candidate) for pair in sample)]
    with Usage(args.work, args.benchmark) as usage:
        rulings = _decide(config, asked, args, usage) if asked else []
        facts = usage.facts()
    rows = [
        {"key": key, "candidate": case.candidate, "judge": name, "prompt": prompts.load("judge").key} | asdict(ruling)
        for (key, case), ruling in zip(cases.items(), rulings, strict=False)
    ]
    write_rows(args.out, rows)
    report = agreement.report(sample, rulings[len(cases) :])
    write_json(args.agreement, {"benchmark": args.benchmark, "judge": name} | report)
    write(args.provenance, _provenance(config, facts))
    lost = sum(row["equivalent"] is None for row in rows)
    if lost:
        log.warning(
            "%s: %d of %d verdicts are unparseable; those answers have no score", args.benchmark, lost, len(rows)
        )


def _provenance(config: Config, facts: dict) -> dict:
    entry = config.models.get(config.roles.evaluation_judge or "")
    model = entry and model_digest(resolve_path(entry.path or entry.engine), entry.revision)
    settings = {"judge": fingerprint.deciding(entry), "sampling": fingerprint.deciding(config.sampling.judge)}
    return provenance(settings, stage="judge", prompt=prompts.load("judge").key, model=model, **facts)


def _decide(config: Config, cases: Sequence[Case], args: argparse.Namespace, usage: Usage) -> list[Ruling]:
    """The rulings of the evaluation judge, which is started only if any is missing."""
    name = config.roles.evaluation_judge
    model = config.models[name]
    with ResumableRows(args.work / f"{args.benchmark}.jsonl") as rows, contextlib.ExitStack() as stack:
        judge = Judge(None, config.sampling.judge, identity(name, model), rows)
        missing = judge.missing(cases)
        if missing:
            engine = stack.enter_context(open_engine(model, args.work / f"{args.benchmark}.server.log"))
            judge.engine = usage.counted(engine, "evaluation_judge")
        return judge.rulings(cases, Progress(f"judge {args.benchmark}", len(missing)).tick)


if __name__ == "__main__":
    cli.run(main)
