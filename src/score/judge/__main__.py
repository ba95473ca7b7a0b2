"""The evaluation judge: what it is asked about a benchmark, and what is written down of it.

    python -m score.judge --config ... --benchmark hle --tasks data/hle.jsonl --predictions eval/*/*/hle.jsonl \
        --out verdicts/hle.jsonl --agreement verdicts/hle.agreement.json ...

writes one verdict per distinct (question, answer) of all agents that rules leave undecided, and how far the judge
agrees with the rules where they do decide (`score.agreement`). Not here: how a verdict comes about
(`score.judge.verdicts`).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from score import agreement, cli, fingerprint, prompts
from score.config import Config, read
from score.data import benchmarks
from score.engine import digest_of, open_engine
from score.errors import ScoreError
from score.evaluate import metrics
from score.evaluate.outcome import numbered_outcomes
from score.evaluate.score import verdict_key
from score.jsonl import ResumableRows, Row, write_json, write_rows
from score.judge.verdicts import Case, Judge, Ruling, identity, tally
from score.progress import Progress
from score.provenance import provenance, write
from score.records import Task
from score.tasks import read_tasks
from score.usage import Usage

log = logging.getLogger("judge")


def answered(paths: Sequence[Path], tasks: Sequence[Task]) -> list[tuple[Task, str]]:
    """The distinct answers in prediction files, with their questions, in the order in which they first occur.

    Raises `ScoreError` with file and line on a prediction for a question that is not in the task file.
    """
    by_id, found = {task.id: task for task in tasks}, {}
    for path in paths:
        for _, outcome in numbered_outcomes(path, by_id):
            if outcome.answer is not None:
                found[outcome.task.id, outcome.answer] = (by_id[outcome.task.id], outcome.answer)
    return list(found.values())


def open_cases(benchmark: str, answers: Sequence[tuple[Task, str]]) -> dict[str, Case]:
    """The answers that rules leave undecided, by the key under which `score.evaluate.score` looks them up."""
    metric = benchmarks.get(benchmark).metric
    return {
        verdict_key(benchmark, task.question, answer): Case.of(task, answer)
        for task, answer in answers
        if metrics.decide(metric, answer, task.answers) is None
    }


def row(ruling: Ruling) -> Row:
    """What a verdict file says of a ruling."""
    return asdict(ruling) | {"repaired": ruling.repaired}


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
    tasks = read_tasks(args.tasks)
    answers = answered(args.predictions, tasks)
    cases = open_cases(args.benchmark, answers)
    name = config.roles.evaluation_judge
    if cases and name is None:
        raise ScoreError(f"{args.benchmark}: {len(cases)} answers need a judge; name one in roles.evaluation_judge")
    sample = agreement.sample(args.benchmark, tasks, answers, size=args.sample) if name else []
    asked = [*cases.values(), *(Case.of(pair.task, pair.candidate) for pair in sample)]
    with Usage(args.work, args.benchmark) as usage:
        rulings = _decide(config, asked, args, usage) if asked else []
        facts = usage.facts()
    given = rulings[: len(cases)]
    rows = [
        {"key": key, "candidate": case.candidate, "judge": name, "prompt": prompts.load("judge").key} | row(ruling)
        for (key, case), ruling in zip(cases.items(), given, strict=True)
    ]
    write_rows(args.out, rows)
    report = agreement.report(sample, rulings[len(cases) :])
    write_json(args.agreement, {"benchmark": args.benchmark, "judge": name} | report)
    counts = tally(given)
    write(args.provenance, _provenance(config, facts | {"verdicts": counts}))
    log.info("%s: %s", args.benchmark, counts)
    if lost := counts["unparseable"]:
        log.warning(
            "%s: %d of %d verdicts are unparseable; those answers have no score", args.benchmark, lost, len(rows)
        )


def _provenance(config: Config, facts: dict) -> dict:
    entry = config.models.get(config.roles.evaluation_judge or "")
    model = entry and digest_of(entry)
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
