"""Evaluation: an agent attempts every question of the benchmarks, once. Scoring is a stage of its own.

    python -m score.evaluate --config ... --agent score_sft --seed 0 --tasks data/math2.jsonl data/hop2.jsonl \
        --out-dir results/micro/eval/score_sft/0 ...

One job loads the model once and writes one file per benchmark. With `--ruled-only` questions that only a judge could
decide are left out: the hard training tasks of figure 3b are scored by rules. One attempt is one attempt: nothing is
retried until an answer appears (hazard 28). All benchmarks share one work file, so adding a benchmark runs that
benchmark's questions only.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from score import cli, fingerprint
from score.attempts import Attempt, acting, open_tools, work_rows
from score.config import read
from score.data.metric import metric_of
from score.jsonl import read_rows, write_rows
from score.provenance import provenance, write
from score.records import Task, Trajectory

log = logging.getLogger("evaluate")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.stage_arguments(parser)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True, help="one file per benchmark, named after it")
    parser.add_argument("--out-dir", type=Path, required=True)
    parser.add_argument("--provenance", type=Path, required=True)
    parser.add_argument("--ruled-only", action="store_true", help="leave out questions that need a judge")
    args = parser.parse_args(argv)
    config = read(args.config)
    tasks = {path.stem: [Task.from_json(row) for row in read_rows(path)] for path in args.tasks}
    if args.ruled_only:
        tasks = {name: [task for task in of if metric_of(task) != "judge"] for name, of in tasks.items()}
    owner = [name for name, rows in tasks.items() for _ in rows]
    attempts = [Attempt(task) for rows in tasks.values() for task in rows]
    with (
        work_rows(args.work, "attempts") as rows,
        open_tools(config, "test") as tools,
        acting(config, args.agent, args.seed, args.root, args.work / "server.log", tools) as agent,
    ):
        done = agent.run(attempts, config.sampling.evaluate, rows, f"evaluate {args.agent}")
        facts = {"seed": args.seed, "model": agent.digest, "sandbox": [*agent.pool.layers, agent.pool.versions]}
    by_benchmark: dict[str, list[Trajectory]] = defaultdict(list)
    for name, trajectory in zip(owner, done, strict=True):
        by_benchmark[name].append(trajectory)
    for name in tasks:
        write_rows(args.out_dir / f"{name}.jsonl", [trajectory.to_json() for trajectory in by_benchmark[name]])
    stops = dict(Counter(trajectory.stop.value for trajectory in done))
    write(args.provenance, provenance(fingerprint.settings(config, "evaluate", args.agent), **facts, stops=stops))
    log.info("%s: %s", args.agent, stops)


if __name__ == "__main__":
    cli.run(main)
