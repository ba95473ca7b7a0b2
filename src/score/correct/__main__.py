"""First-error correction (mentored problem solving): the student acts, the teacher corrects its earliest error.

    python -m score.correct --config ... --agent bc20 --seed 0 --tasks data/seeds/micro.jsonl \
        --splits data/splits.json --shard 1-of-4 --out results/micro/correct/bc20-s0/shards/1-of-4.jsonl ...

The agent is the cold-started student, or one with a `teacher` of its own, whose cold-started ancestor then acts.
Writes one mentored record per task; `score.gather` makes the training sets of them.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from score import cli, fingerprint, shards
from score.agent.sessions import Rewinding
from score.attempts import Acting, Attempt, acting, open_tools, require_outcomes, work_rows
from score.config import Config, lineage, read
from score.correct.mps import Mentored, Start, mentor
from score.correct.sets import summarise
from score.correct.teacher import INFRASTRUCTURE, Teacher
from score.data.splits import part_of
from score.engine import check_gpus, digest_of, open_engine
from score.errors import InfrastructureError, ScoreError
from score.jsonl import ResumableRows, write_rows
from score.provenance import provenance, write
from score.records import StopReason, Task, Trajectory
from score.tasks import read_tasks
from score.usage import Usage

log = logging.getLogger("correct")


def mentor_with(agent: Acting, teacher: Teacher, tasks: Sequence[Task], rows: ResumableRows) -> list[Mentored]:
    """Mentored problem solving with a real student and teacher; the student's attempts are kept in `rows`.

    Raises `InfrastructureError` at the end if the teacher could not be reached about a task, or the student about any,
    so that an outage makes no training set smaller: what is done is kept, and the next run asks for the rest.
    """
    config = agent.config

    def play(starts: Sequence[Start]) -> list[Trajectory]:
        sessions.forget(but={start.task.id for start in starts})
        attempts = [Attempt(start.task, start.forced, start.attempt) for start in starts]
        label = f"mentor {agent.agent} round {starts[0].attempt}"
        return agent.run(attempts, config.sampling.student, rows, label, sessions=sessions)

    def report(round_: int, running: int, solved: int) -> None:
        log.info("after %d corrections: %d solved, %d go on", round_, solved, running)

    with Rewinding(agent.pool, agent.tools, config.sandbox.kept) as sessions:
        records = mentor(tasks, play, teacher.review, config.correct.max_corrections, report)
    require_outcomes([record.attempts[0] for record in records])
    if missing := [record for record in records if _unanswered(record)]:
        _, reason = missing[0].failure.split(": ", 1)
        raise InfrastructureError(
            f"the teacher did not answer on {len(missing)} of {len(records)} tasks; the first, {missing[0].task.id}: "
            f"{reason}; run it again, what is done is kept"
        )
    return records


def _unanswered(record: Mentored) -> bool:
    reached = record.attempts[-1].stop != StopReason.INFRASTRUCTURE_ERROR
    return reached and (record.failure or "").startswith(f"{INFRASTRUCTURE}: ")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.stage_arguments(parser)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True)
    parser.add_argument("--splits", type=Path, required=True)
    shards.argument(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--provenance", type=Path, required=True)
    args = parser.parse_args(argv)
    config: Config = read(args.config)
    tasks = part_of(read_tasks(*args.tasks, repeated=True), args.splits, "mentored")
    if not tasks:
        raise ScoreError(f"{args.splits}: part 'mentored' is empty; lower data.cold_start_share or give more questions")
    student, teacher_name = lineage.cold_start(config, args.agent), lineage.teacher(config, args.agent)
    entry = config.models[teacher_name]
    check_gpus(teacher=entry, student=config.models[lineage.base_model(config, student)])
    with (
        work_rows(args.work, "attempts", args.shard) as rows,
        work_rows(args.work, "replies", args.shard) as replies,
        Usage(args.work, "attempts", args.shard) as usage,
        open_tools(config, "train") as tools,
        open_engine(entry, args.work / f"teacher.{args.shard}.log") as engine,
        acting(config, student, args.seed, args.root, args.work / f"student.{args.shard}.log", tools) as agent,
    ):
        sampling, digest = config.sampling, digest_of(entry)
        agent, engine = agent.counted(usage), usage.counted(engine, "teacher")
        teacher = Teacher(
            engine, step=sampling.step, judge=sampling.judge, advice=config.correct.advice, identity=digest,
            replies=replies,
        )  # fmt: skip
        records = mentor_with(agent, teacher, args.shard.take(tasks), rows)
        facts = {"seed": args.seed, "model": agent.digest, "sandbox": [*agent.pool.layers, agent.pool.versions]}
        facts |= {
            "stage": "correct",
            "agent": args.agent,
            "teacher": digest,
            "repairs": teacher.repairs,
            **usage.facts(),
        }
    write_rows(args.out, [record.to_json() for record in records])
    write(args.provenance, provenance(fingerprint.settings(config, "correct", args.agent), **facts))
    log.info("%s", summarise(records))


if __name__ == "__main__":
    cli.run(main)
