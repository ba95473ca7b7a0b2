"""Rollouts: an agent attempts a set of training questions.

    python -m score.rollout --config results/micro/config.resolved.yaml --agent teacher --seed 0 \
        --tasks data/seeds/micro.jsonl --splits data/splits.json --part cold_start --shard 1-of-4 \
        --out rollout/teacher/cold_start.shards/1-of-4.jsonl ...

The teacher's rollouts are the demonstrations of the cold start. Each is marked `right` or not by rules first and the
teacher itself where they cannot tell; training keeps the right ones (rejection sampling). Attempts whose
correctness could not be established are marked None, counted by reason, and not trained on.
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
from score.correct.teacher import Failure, Teacher, unanswered
from score.data.metric import by_rules
from score.data.splits import part_of
from score.errors import InfrastructureError, ScoreError
from score.jsonl import ResumableRows, write_rows
from score.provenance import provenance, write
from score.records import StopReason, Trajectory
from score.tasks import read_tasks
from score.usage import Usage

log = logging.getLogger("rollout")


def asking(agent: Acting, replies: ResumableRows | None = None) -> Teacher | None:
    """The agent's own model as the one that tells right from wrong, its replies kept in `replies`. None if it runs in
    this process: such a model is not asked."""
    if not hasattr(agent.engine, "concurrency"):
        return None
    sampling = agent.config.sampling
    return Teacher(agent.engine, step=sampling.step, judge=sampling.judge, identity=agent.digest, replies=replies)


def mark_right(trajectories: Sequence[Trajectory], teacher: Teacher | None) -> list[Trajectory]:
    """Adds `meta["right"]`: True, False, or None where neither rules nor the model could tell, with the reason as
    `meta["undecided"]`.

    Raises `InfrastructureError` if the model could not be reached about all of them: an outage is no reason to train on
    fewer.
    """
    notes: list[dict] = [{"right": _by_rules(trajectory)} for trajectory in trajectories]
    undecided = [i for i, note in enumerate(notes) if note["right"] is None and trajectories[i].answer is not None]
    verdicts = _by_model([trajectories[i] for i in undecided], teacher)
    missing = [(i, v) for i, v in zip(undecided, verdicts, strict=True) if unanswered(trajectories[i], v)]
    if missing:
        (first, verdict), *_ = missing
        raise InfrastructureError(
            f"the teacher did not say whether {len(missing)} of {len(undecided)} attempts are right; the first, "
            f"{trajectories[first].task.id}: {verdict.detail}; run it again, what is done is kept"
        )
    for i, verdict in zip(undecided, verdicts, strict=True):
        unknown = isinstance(verdict, Failure)
        notes[i] = {"right": None, "undecided": verdict.reason} if unknown else {"right": verdict}
    return [dataclasses.replace(t, meta=t.meta | note) for t, note in zip(trajectories, notes, strict=True)]


def _by_model(trajectories: Sequence[Trajectory], teacher: Teacher | None) -> Sequence[bool | Failure]:
    if teacher is None:
        return [Failure("no_endpoint", "an in-process model is not asked to judge")] * len(trajectories)
    return teacher.right(trajectories) if trajectories else []


def _by_rules(trajectory: Trajectory) -> bool | None:
    """True or False where rules can tell; None for an answer that needs a model and for an attempt without outcome."""
    if trajectory.stop == StopReason.INFRASTRUCTURE_ERROR:
        return None
    if trajectory.answer is None:
        return False
    decided = by_rules(trajectory.task, trajectory.answer)
    return None if decided is None else decided == 1.0


def summary(trajectories: Sequence[Trajectory]) -> dict[str, object]:
    return {
        "attempts": len(trajectories),
        "right": sum(t.meta["right"] is True for t in trajectories),
        "undecided": sum(t.meta["right"] is None for t in trajectories),
        "undecided_because": dict(Counter(t.meta["undecided"] for t in trajectories if "undecided" in t.meta)),
        "stops": dict(Counter(t.stop.value for t in trajectories)),
        "infrastructure_errors": sum(t.stop == StopReason.INFRASTRUCTURE_ERROR for t in trajectories),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.stage_arguments(parser)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--part", required=True)
    shards.argument(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--provenance", type=Path, required=True)
    args = parser.parse_args(argv)
    config: Config = read(args.config)
    tasks = part_of(read_tasks(*args.tasks, repeated=True), args.splits, args.part)
    if not tasks:
        raise ScoreError(
            f"{args.splits}: part {args.part!r} is empty; lower data.cold_start_share or give more questions"
        )
    sampling = config.sampling
    server_log = args.work / f"{args.part}.{args.shard}.server.log"
    with (
        work_rows(args.work, args.part, args.shard) as rows,
        work_rows(args.work, f"replies.{args.part}", args.shard) as replies,
        Usage(args.work, args.part, args.shard) as usage,
        open_tools(config, "train") as tools,
        acting(config, args.agent, args.seed, args.root, server_log, tools) as agent,
    ):
        agent = agent.counted(usage)
        attempts = [Attempt(task) for task in args.shard.take(tasks)]
        done = agent.run(attempts, sampling.step, rows, f"rollout {args.agent}", plan=sampling.plan)
        require_outcomes(done)
        teacher = asking(agent, replies)
        marked = mark_right(done, teacher)
        facts = {
            "stage": "rollout",
            "agent": args.agent,
            "seed": args.seed,
            "model": agent.digest,
            "sandbox": [*agent.pool.layers, agent.pool.versions],
            **({"repairs": teacher.repairs} if teacher else {}),
            **usage.facts(),
        }
    write_rows(args.out, [trajectory.to_json() for trajectory in marked])
    write(args.provenance, provenance(fingerprint.settings(config, "rollout", args.agent), **facts))
    log.info("%s", summary(marked))


if __name__ == "__main__":
    cli.run(main)
