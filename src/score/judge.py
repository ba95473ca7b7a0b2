"""A judge model decides what rules cannot: is a candidate equivalent to a reference?

One fixed, versioned prompt; a parsed verdict, never a substring test (hazard 19). A judge that is down raises
`InfrastructureError`: it never yields a verdict, a score or a reward (hazard 18).

    python -m score.judge --config ... --benchmark hle --tasks data/hle.jsonl --predictions eval/*/*/hle.jsonl \
        --out verdicts/hle.jsonl ...

writes one verdict per distinct (question, answer) of all agents that rules leave undecided.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from score import cli, prompts
from score.config import Config, read
from score.config.schema import Sampling
from score.data import benchmarks
from score.engine import open_engine, resolve_path
from score.engine.base import AsyncEngine, Request
from score.errors import InfrastructureError, ScoreError
from score.evaluate import metrics
from score.evaluate.score import verdict_key
from score.fingerprint import deciding
from score.jsonl import ResumableRows, read_rows, write_rows
from score.progress import Progress
from score.provenance import model_digest, provenance, write
from score.records import Task, content_key, derive_seed
from score.usage import Usage

log = logging.getLogger("judge")


@dataclass(frozen=True)
class Case:
    """One question to the judge."""

    question: str
    reference: str
    candidate: str

    @property
    def key(self) -> str:
        return content_key(prompts.load("judge").key, self.question, self.reference, self.candidate)


class Judge:
    """Asks a model for verdicts, many at a time."""

    def __init__(self, engine: AsyncEngine, sampling: Sampling, tries: int = 3) -> None:
        self.engine, self.sampling, self.tries = engine, sampling, tries

    def verdicts(self, cases: Sequence[Case]) -> list[bool]:
        """One verdict per case. Raises `InfrastructureError` if the judge is down or never gives a readable verdict."""
        return asyncio.run(self._all(cases))

    async def _all(self, cases: Sequence[Case]) -> list[bool]:
        slots = asyncio.Semaphore(self.engine.concurrency)

        async def limited(case: Case) -> bool:
            async with slots:
                return await self._ask(case)

        async with self.engine:
            return list(await asyncio.gather(*map(limited, cases)))

    async def _ask(self, case: Case) -> bool:
        prompt = prompts.load("judge").render(
            question=case.question, reference=case.reference, candidate=case.candidate
        )
        reply = ""
        for attempt in range(self.tries):
            request = Request(prompt, self.sampling, derive_seed("judge", case.key, attempt))
            reply = (await self.engine.complete(request)).text
            verdict = read_verdict(reply)
            if verdict is not None:
                return verdict
        raise InfrastructureError(
            f"the judge gave no readable verdict in {self.tries} tries; the last: {reply[:200]!r}"
        )


def read_verdict(reply: str) -> bool | None:
    """The verdict of a reply, or None if it is not the JSON object asked for."""
    text = reply.strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    try:
        verdict = json.loads(text)["equivalent"]
    except (ValueError, KeyError, TypeError):
        return None
    return verdict if isinstance(verdict, bool) else None


def open_cases(benchmark: str, tasks: Sequence[Task], predictions: Sequence[dict]) -> dict[str, Case]:
    """The distinct answers that rules leave undecided, by the key under which `score.evaluate.score` looks them up."""
    by_id = {task.id: task for task in tasks}
    metric = benchmarks.get(benchmark).metric
    cases = {}
    for row in predictions:
        task, answer = by_id[row["task"]["id"]], row["answer"]
        if answer is not None and metrics.decide(metric, answer, task.answers) is None:
            cases[verdict_key(benchmark, task.question, answer)] = Case(
                task.question, " or ".join(task.answers), answer
            )
    return cases


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--benchmark", required=True)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, nargs="*", default=[])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--provenance", type=Path, required=True)
    args = parser.parse_args(argv)
    config = read(args.config)
    tasks = [Task.from_json(row) for row in read_rows(args.tasks)]
    cases = open_cases(args.benchmark, tasks, [row for path in args.predictions for row in read_rows(path)])
    if cases and config.roles.evaluation_judge is None:
        raise ScoreError(f"{args.benchmark}: {len(cases)} answers need a judge; name one in roles.evaluation_judge")
    with ResumableRows(args.work / f"{args.benchmark}.jsonl") as rows, Usage(args.work, args.benchmark) as usage:
        missing = [case for case in cases.values() if case.key not in rows.done]
        if missing:
            _decide(config, missing, rows, args, usage)
        write_rows(args.out, [rows.done[case.key] | {"key": key} for key, case in cases.items()])
        write(args.provenance, _provenance(config, usage))


def _provenance(config: Config, usage: Usage) -> dict:
    entry = config.models.get(config.roles.evaluation_judge or "")
    model = entry and model_digest(resolve_path(entry.path or entry.engine), entry.revision)
    settings = {"judge": deciding(entry), "sampling": deciding(config.sampling.judge)}
    return provenance(settings, stage="judge", prompt=prompts.load("judge").key, model=model, **usage.facts())


def _decide(config: Config, cases: Sequence[Case], rows: ResumableRows, args: argparse.Namespace, usage: Usage) -> None:
    name = config.roles.evaluation_judge
    progress = Progress(f"judge {args.benchmark}", len(cases))
    with open_engine(config.models[name], args.work / "judge.log") as engine:
        judge = Judge(usage.counted(engine, "evaluation_judge"), config.sampling.judge)
        step = 4 * engine.concurrency
        for start in range(0, len(cases), step):
            chunk = cases[start : start + step]
            for case, verdict in zip(chunk, judge.verdicts(chunk), strict=True):
                rows.append(case.key, {"equivalent": verdict, "judge": name, "prompt": prompts.load("judge").key})
                progress.tick()


if __name__ == "__main__":
    cli.run(main)
