"""Evaluation: an agent attempts every question of the benchmarks, once. Scoring is a stage of its own.

    python -m score.evaluate --config ... --agent score_sft --seed 0 --tasks data/math2.jsonl data/hop2.jsonl \
        --shard 1-of-2 --out results/micro/eval/score_sft/0/main.shards/1-of-2.jsonl ...

One job loads the model once and attempts its share of all benchmarks; `score.gather` makes one file per benchmark.
With `--ruled-only` questions that only a judge could decide are left out: the hard training tasks of figure 3b are
scored by rules. One attempt is one attempt: nothing is retried until an answer appears (hazard 28), unless
`evaluation.as_published` asks for it. All benchmarks share one work file, so adding a benchmark, or samples of a
question, runs what is new only.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from score import cli, fingerprint, shards
from score.attempts import Acting, Attempt, acting, open_tools, require_outcomes, work_rows
from score.config import Config, read
from score.data.metric import metric_of
from score.jsonl import ResumableRows, write_rows
from score.provenance import provenance, write
from score.records import StopReason, Task, Trajectory
from score.tasks import read_tasks
from score.usage import Usage

log = logging.getLogger("evaluate")

TRIES = 5
"""Of a question, in the published code's evaluation."""
BROKEN = StopReason.INFRASTRUCTURE_ERROR
APART = 1000
"""Between the numbers of a sample's tries, so that they are no other sample's."""


def questions(path: Path, *, ruled_only: bool = False) -> list[Task]:
    """The questions of one benchmark that are attempted."""
    tasks = read_tasks(path)
    return [task for task in tasks if not ruled_only or metric_of(task) != "judge"]


def samples(config: Config, paths: Sequence[Path], *, ruled_only: bool = False) -> list[Attempt]:
    """Every attempt that is made: the samples of a question one after another, told apart by their number."""
    return [
        Attempt(task, number=number)
        for path in paths
        for task in questions(path, ruled_only=ruled_only)
        for number in range(config.evaluation.samples(path.stem))
    ]


def attempt(agent: Acting, attempts: Sequence[Attempt], rows: ResumableRows) -> list[Trajectory]:
    """One trajectory per attempt, with its number as `meta["sample"]` if that is not 0.

    With `evaluation.as_published` an attempt without an answer is made again, up to five times in all (hazard 28);
    `meta["tries"]` says how many were made. A failure of the infrastructure is neither silence nor a try.
    """
    config, label = agent.config, f"evaluate {agent.agent}"
    done = agent.run(attempts, config.sampling.evaluate, rows, label)
    meta: list[dict[str, int]] = [{"sample": one.number} if one.number else {} for one in attempts]
    for again in range(1, TRIES if config.evaluation.as_published else 1):
        silent = [i for i, one in enumerate(done) if one.answer is None and one.stop is not BROKEN]
        tries = [dataclasses.replace(attempts[i], number=attempts[i].number + again * APART) for i in silent]
        replies = agent.run(tries, config.sampling.evaluate, rows, f"{label}, try {again + 1}") if tries else []
        for i, trajectory in zip(silent, replies, strict=True):
            if trajectory.stop is not BROKEN:
                done[i], meta[i]["tries"] = trajectory, again + 1
    return [dataclasses.replace(t, meta=t.meta | more) for t, more in zip(done, meta, strict=True)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.stage_arguments(parser)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True, help="one file per benchmark, named after it")
    shards.argument(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--provenance", type=Path, required=True)
    parser.add_argument("--ruled-only", action="store_true", help="leave out questions that need a judge")
    args = parser.parse_args(argv)
    config = read(args.config)
    attempts = args.shard.take(samples(config, args.tasks, ruled_only=args.ruled_only))
    with (
        work_rows(args.work, "attempts", args.shard) as rows,
        Usage(args.work, "attempts", args.shard) as usage,
        open_tools(config, "test") as tools,
        acting(config, args.agent, args.seed, args.root, args.work / f"server.{args.shard}.log", tools) as agent,
    ):
        agent = agent.counted(usage)
        done = attempt(agent, attempts, rows)
        require_outcomes(done)
        facts = {"seed": args.seed, "model": agent.digest, "sandbox": [*agent.pool.layers, agent.pool.versions]}
        facts |= {"stage": "evaluate", "agent": args.agent, **usage.facts()}
    write_rows(args.out, [trajectory.to_json() for trajectory in done])
    write(args.provenance, provenance(fingerprint.settings(config, "evaluate", args.agent), **facts))
    log.info("%s: %s", args.agent, dict(Counter(trajectory.stop.value for trajectory in done)))


if __name__ == "__main__":
    cli.run(main)
