"""First-error correction (mentored problem solving): the student acts, the teacher corrects its earliest error.

    python -m score.correct --config ... --agent bc20 --seed 0 --tasks data/seeds/micro.jsonl \
        --splits data/splits.json --out-dir results/micro/correct/bc20-s0 ...

Writes `trajectories.jsonl` (one mentored record per task), and the training sets made from them: `sft.jsonl`,
`rl.jsonl`, `hard.jsonl` (kept out of both), and `other_half.jsonl`, the trajectories of the tasks in `rl.jsonl`; counts
are in `provenance.json`.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from score import cli, fingerprint
from score.agent.sessions import Rewinding
from score.attempts import Acting, Attempt, acting, open_tools, work_rows
from score.config import Config, read
from score.correct.mps import Mentored, Start, mentor
from score.correct.sets import Sets, make_sets
from score.correct.teacher import Teacher
from score.data.splits import part_of
from score.engine import open_engine
from score.errors import ScoreError
from score.jsonl import ResumableRows, read_rows, write_rows
from score.provenance import provenance, write
from score.records import Task, Trajectory

log = logging.getLogger("correct")


def mentor_with(agent: Acting, teacher: Teacher, tasks: Sequence[Task], rows: ResumableRows) -> list[Mentored]:
    """Mentored problem solving with a real student and teacher; the student's attempts are kept in `rows`."""
    config = agent.config

    def play(starts: Sequence[Start]) -> list[Trajectory]:
        sessions.forget(but={start.task.id for start in starts})
        attempts = [Attempt(start.task, start.forced, start.attempt) for start in starts]
        label = f"mentor {agent.agent} round {starts[0].attempt}"
        return agent.run(attempts, config.sampling.student, rows, label, sessions=sessions)

    def report(round_: int, running: int, solved: int) -> None:
        log.info("after %d corrections: %d solved, %d go on", round_, solved, running)

    with Rewinding(agent.pool, agent.tools, config.sandbox.kept) as sessions:
        return mentor(tasks, play, teacher.review, config.correct.max_corrections, report)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.stage_arguments(parser)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--out-dir", type=Path, required=True)
    args = parser.parse_args(argv)
    config: Config = read(args.config)
    tasks = part_of([Task.from_json(row) for path in args.tasks for row in read_rows(path)], args.splits, "mentored")
    if not tasks:
        raise ScoreError(f"{args.splits}: part 'mentored' is empty; lower data.cold_start_share or give more questions")
    with (
        work_rows(args.work, "attempts") as rows,
        work_rows(args.work, "replies") as replies,
        open_tools(config, "train") as tools,
        open_engine(config.models[config.roles.teacher], args.work / "teacher.log") as teacher_engine,
        acting(config, args.agent, args.seed, args.root, args.work / "student.log", tools) as agent,
    ):
        sampling = config.sampling
        advice = config.correct.advice
        teacher = Teacher(teacher_engine, step=sampling.step, judge=sampling.judge, advice=advice, replies=replies)
        records = mentor_with(agent, teacher, tasks, rows)
        facts = {"seed": args.seed, "model": agent.digest, "sandbox": [*agent.pool.layers, agent.pool.versions]}
    settings = config.correct
    seed = config.data.split_seed
    sets = make_sets(records, sft_share=settings.sft_share, hard_in_rl=settings.hard_in_rl, seed=seed)
    _write(args.out_dir, records, sets)
    section = fingerprint.settings(config, "correct", args.agent)
    write(args.out_dir / "provenance.json", provenance(section, **facts, summary=sets.summary))
    log.info("%s", sets.summary)


def _write(folder: Path, records: Sequence[Mentored], sets: Sets) -> None:
    write_rows(folder / "trajectories.jsonl", [record.to_json() for record in records])
    write_rows(folder / "sft.jsonl", [trajectory.to_json() for trajectory in sets.sft])
    write_rows(folder / "other_half.jsonl", [trajectory.to_json() for trajectory in sets.other_half])
    write_rows(folder / "rl.jsonl", [key_step.to_json() for key_step in sets.rl])
    write_rows(folder / "hard.jsonl", [task.to_json() for task in sets.hard])


if __name__ == "__main__":
    cli.run(main)
