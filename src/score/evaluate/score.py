"""Predictions + gold answers (+ verdicts) -> one agent's scores, by benchmark. CPU only, never runs a model.

    python -m score.evaluate.score --agent grpo --seed 0 --predictions eval/grpo/0/{gaia,hle}.jsonl \
        --tasks data/{gaia,hle}.jsonl --verdicts verdicts/{gaia,hle}.jsonl
        (writes eval/grpo/0/{gaia,hle}.score.json)

A question has a score, or it has none: an infrastructure error, a missing prediction and an answer without a judge's
verdict leave the mean and make the scores incomplete. They are never zeros.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from score import cli
from score.data import benchmarks
from score.data.benchmarks.base import Benchmark
from score.data.metric import metric_of
from score.errors import ScoreError
from score.evaluate import samples
from score.evaluate.metrics import Equality, Normalisation, canonical, decide
from score.evaluate.outcome import Outcome, numbered_outcomes
from score.evaluate.remembered import remembered
from score.jsonl import numbered_rows, write_json
from score.records import StopReason, Task, Trajectory, content_key
from score.tasks import read_tasks

log = logging.getLogger("score")


@dataclass(frozen=True)
class QuestionScore:
    """`score` in [0, 1] or None where there is none; `stop` is None where the prediction is missing.

    Of several samples, `score` is the mean of those that have one, `stop` the first one's, and `samples` has them all.
    """

    id: str
    score: float | None
    stop: str | None
    samples: tuple[float | None, ...] = ()

    def to_json(self) -> dict[str, Any]:
        several = {"samples": list(self.samples)} if self.samples else {}
        return {"id": self.id, "score": self.score, "stop": self.stop} | several


@dataclass(frozen=True)
class Scores:
    """One agent, one seed, one benchmark. `mean` is over the `n` scored of all `questions`; None if none is scored.

    `rates` are shares of all predictions; `means` are per episode. `complete` is False when any sample of any question
    has no score. `of_samples` is what several samples tell besides (`score.evaluate.samples`).
    """

    agent: str
    seed: int
    benchmark: str
    version: int
    metric: str
    normalisation: str
    questions: int
    n: int
    mean: float | None
    complete: bool
    rates: dict[str, float]
    means: dict[str, float]
    rows: tuple[QuestionScore, ...]
    of_samples: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"rows": [row.to_json() for row in self.rows]}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Scores:
        rows = tuple(QuestionScore(**q | {"samples": tuple(q.get("samples", ()))}) for q in row["rows"])
        return cls(**(row | {"rows": rows}))


def score(
    trajectories: Sequence[Outcome | Trajectory],
    tasks: Sequence[Task],
    benchmark: Benchmark,
    verdicts: Mapping[str, bool],
    *,
    agent: str,
    seed: int,
    normalisation: Normalisation = "squad",
    verifier: Equality | None = None,
) -> Scores:
    """Scores every task; of each as many samples as the tasks with most have, and none of other tasks.

    `verdicts` maps `verdict_key(benchmark, question, answer)` to whether the judge found the answer equivalent;
    `normalisation` and `verifier` are those of `metrics.decide`.
    """
    by_id: dict[str, dict[int, Outcome | Trajectory]] = defaultdict(dict)
    for trajectory in trajectories:
        by_id[trajectory.task.id][trajectory.sample] = trajectory
    n_samples = max((trajectory.sample for trajectory in trajectories), default=0) + 1
    rows, votes = [], []
    for task in tasks:
        drawn = [by_id[task.id].get(sample) for sample in range(n_samples)]
        values = [one and _value(one, task, benchmark, verdicts, normalisation, verifier) for one in drawn]
        known = [value for value in values if value is not None]
        stop = drawn[0] and drawn[0].stop.value
        rows.append(
            QuestionScore(task.id, fmean(known) if known else None, stop, tuple(values) if n_samples > 1 else ())
        )
        metric = metric_of(task) if benchmark.metric == "own" else benchmark.metric
        answers = (one and one.answer and canonical(metric, one.answer) for one in drawn)
        votes.append(samples.Drawn(tuple(values), tuple(answers)))
    scored = [row.score for row in rows if row.score is not None]
    return Scores(
        agent=agent,
        seed=seed,
        benchmark=benchmark.name,
        version=benchmark.version,
        metric=benchmark.metric,
        normalisation=normalisation,
        questions=len(tasks),
        n=len(scored),
        mean=fmean(scored) if scored else None,
        complete=all(None not in drawn.scores for drawn in votes),
        rates=_rates(trajectories),
        means=_means(trajectories),
        rows=tuple(rows),
        of_samples=samples.summary(votes) if n_samples > 1 else {},
    )


def verdict_key(benchmark: str, question: str, answer: str) -> str:
    """Under which a judge's verdict on an answer is stored: one for all agents that gave the same answer."""
    return content_key(benchmark, question, answer)


def _value(
    trajectory: Outcome | Trajectory,
    task: Task,
    benchmark: Benchmark,
    verdicts: Mapping[str, bool],
    normalisation: Normalisation,
    verifier: Equality | None,
) -> float | None:
    if trajectory.stop is StopReason.INFRASTRUCTURE_ERROR:
        return None
    metric = metric_of(task) if benchmark.metric == "own" else benchmark.metric
    value = decide(metric, trajectory.answer, task.answers, normalisation, verifier)
    if value is None:
        verdict = verdicts.get(verdict_key(benchmark.name, task.question, trajectory.answer))
        value = None if verdict is None else float(verdict)
    return value


def _rates(trajectories: Sequence[Outcome | Trajectory]) -> dict[str, float]:
    def share(holds: Sequence[bool]) -> float:
        return fmean(holds) if holds else 0.0

    stops = [trajectory.stop for trajectory in trajectories]
    cut = [any(step.error == "truncated" for step in trajectory.steps) for trajectory in trajectories]
    failed = [stop is StopReason.INFRASTRUCTURE_ERROR for stop in stops]
    return {
        "no_answer": share([t.answer is None and not f for t, f in zip(trajectories, failed, strict=True)]),
        "truncated": share([c or stop is StopReason.CONTEXT_OVERFLOW for c, stop in zip(cut, stops, strict=True)]),
        "infrastructure_error": share(failed),
        "parse_error": share([stop is StopReason.PARSE_ERROR for stop in stops]),
    }


def _means(trajectories: Sequence[Outcome | Trajectory]) -> dict[str, float]:
    """Mean steps, tokens of each kind and tool calls of an episode that has an outcome."""
    counts: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        if trajectory.stop is StopReason.INFRASTRUCTURE_ERROR:
            continue
        counts["steps"].append(len(trajectory.steps))
        counts["tool_calls"].append(sum(trajectory.meta.get("tool_calls", {}).values()))
        for kind, count in trajectory.tokens.items():
            counts["engine_calls" if kind == "calls" else f"{kind}_tokens"].append(count)
    return {name: fmean(values) for name, values in counts.items()}


def read_predictions(path: Path, tasks: Sequence[Task], agent: str, seed: int) -> list[Outcome]:
    """The outcomes in a prediction file.

    Raises `ScoreError` with file and line on a question that is not in `tasks`, a second prediction for the same sample
    of one, and a prediction of another agent or seed.
    """
    seen: dict[tuple[str, int], Outcome] = {}
    for place, outcome in numbered_outcomes(path, {task.id: task for task in tasks}):
        key = (outcome.task.id, outcome.sample)
        if key in seen:
            raise ScoreError(f"{place}: a second prediction for question {outcome.task.id!r}")
        for name, expected in (("agent", agent), ("run_seed", seed)):
            if outcome.meta.get(name, expected) != expected:
                raise ScoreError(f"{place}: {name} is {outcome.meta[name]!r}, these should be {expected!r}'s")
        seen[key] = outcome
    return list(seen.values())


def read_verdicts(path: Path) -> dict[str, bool]:
    """Verdicts by key, without those that the judge's reply did not hold ("equivalent" is null): such an answer has no
    score.

    Raises `ScoreError` with file and line on a row that is not a verdict.
    """
    verdicts = {}
    for number, row in numbered_rows(path):
        if not isinstance(row.get("key"), str) or not isinstance(row.get("equivalent", 0), bool | None):
            raise ScoreError(f'{path}:{number}: a verdict needs "key" and a true, false or null "equivalent"')
        if row["equivalent"] is not None:
            verdicts[row["key"]] = row["equivalent"]
    return verdicts


def read_scores(path: Path) -> Scores:
    """A score file. Raises `ScoreError` if it is none."""
    try:
        return Scores.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScoreError(f"{path}: not a score file ({type(error).__name__}: {error})") from None


def score_file(
    predictions: Path, tasks: Path, verdicts: Mapping[str, bool], *, agent: str, seed: int, **how: Any
) -> Scores:
    """The scores of a prediction file, which is named for its benchmark; errors as in `read_predictions`.

    `how` are the other options of `score`.
    """
    try:
        benchmark = benchmarks.get(predictions.stem)
    except ScoreError as error:
        raise ScoreError(f"{predictions}: it is named for its benchmark; {error}") from None
    asked = read_tasks(tasks)
    if benchmark.metric == "own":  # as in their evaluation (`--ruled-only`)
        asked = [task for task in asked if metric_of(task) != "judge"]
    given = read_predictions(predictions, asked, agent, seed)
    return score(given, asked, benchmark, verdicts, agent=agent, seed=seed, **how)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Score one agent's predictions, one file for each benchmark.")
    parser.add_argument("--predictions", required=True, type=Path, nargs="+", help="files named for their benchmarks")
    parser.add_argument("--tasks", required=True, type=Path, nargs="+", help="the questions of each, in the same order")
    parser.add_argument("--verdicts", type=Path, nargs="*", default=[], help="of a judge, named for benchmarks")
    parser.add_argument("--agent", required=True)
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--normalisation", choices=["squad", "arpo"], default="squad", help="of short texts")
    parser.add_argument("--remembered", type=Path, help="a file in which math-verify's verdicts are kept")
    args = parser.parse_args(argv)
    if len(args.predictions) != len(args.tasks):
        parser.error(f"{len(args.predictions)} prediction files need as many task files, not {len(args.tasks)}")
    judged = {path.stem: path for path in args.verdicts}
    if len(judged) < len(args.verdicts) or not judged.keys() <= {path.stem for path in args.predictions}:
        parser.error("--verdicts takes one file for a benchmark that there are predictions of, named for it")
    with remembered(args.remembered) if args.remembered else nullcontext() as verifier:
        how = {"agent": args.agent, "seed": args.seed, "normalisation": args.normalisation, "verifier": verifier}
        for predictions, tasks in zip(args.predictions, args.tasks, strict=True):
            verdicts = read_verdicts(judged[predictions.stem]) if predictions.stem in judged else {}
            scores = score_file(predictions, tasks, verdicts, **how)
            out = predictions.with_suffix(".score.json")
            write_json(out, scores.to_json())
            log.info("%s: mean %s over %d of %d questions", out, scores.mean, scores.n, scores.questions)


if __name__ == "__main__":
    cli.run(main)
