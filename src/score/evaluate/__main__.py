"""Evaluation: an agent attempts every question of the benchmarks, once. Scoring is a stage of its own.

    python -m score.evaluate --config ... --agent score_sft --seed 0 --tasks data/math2.jsonl data/hop2.jsonl \
        --shard 1-of-2 --out results/micro/eval/score_sft/0/main.shards/1-of-2.jsonl ...

One job loads the model once and attempts its share of all benchmarks; `score.gather` makes one file per benchmark.
With `--ruled-only` questions that only a judge could decide are left out: the hard training tasks of figure 3b are
scored by rules. One attempt is one attempt: nothing is retried until an answer appears (hazard 28). All benchmarks
share one work file, so adding a benchmark runs that benchmark's questions only.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from score import cli, fingerprint, shards
from score.attempts import Attempt, acting, open_tools, work_rows
from score.config import read
from score.data.metric import metric_of
from score.jsonl import read_rows, write_rows
from score.provenance import provenance, write
from score.records import Task
from score.usage import Usage

log = logging.getLogger("evaluate")


def questions(path: Path, *, ruled_only: bool = False) -> list[Task]:
    """The questions of one benchmark that are attempted."""
    tasks = [Task.from_json(row) for row in read_rows(path)]
    return [task for task in tasks if not ruled_only or metric_of(task) != "judge"]


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
    tasks = [task for path in args.tasks for task in questions(path, ruled_only=args.ruled_only)]
    attempts = [Attempt(task) for task in args.shard.take(tasks)]
    with (
        work_rows(args.work, "attempts", args.shard) as rows,
        Usage(args.work, "attempts", args.shard) as usage,
        open_tools(config, "test") as tools,
        acting(config, args.agent, args.seed, args.root, args.work / f"server.{args.shard}.log", tools) as agent,
    ):
        agent = agent.counted(usage)
        done = agent.run(attempts, config.sampling.evaluate, rows, f"evaluate {args.agent}")
        facts = {"seed": args.seed, "model": agent.digest, "sandbox": [*agent.pool.layers, agent.pool.versions]}
        facts |= {"stage": "evaluate", "agent": args.agent, **usage.facts()}
    write_rows(args.out, [trajectory.to_json() for trajectory in done])
    write(args.provenance, provenance(fingerprint.settings(config, "evaluate", args.agent), **facts))
    log.info("%s: %s", args.agent, dict(Counter(trajectory.stop.value for trajectory in done)))


if __name__ == "__main__":
    cli.run(main)
