"""Published training questions -> `Task`s.

    python -m score.data.seeds --raw raw/search_mps_seed.jsonl --out data/seeds/search_mps.jsonl [--limit 12]

A task's id is a hash of its question, so that it is the same in every file and in the published trajectories; the
published id stays in `meta`. The gold answer is what stands in the last \\boxed{} of the published one, which in the
search seeds is often a model's whole closing remark. `meta["metric"]` says how an answer is compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from score import cli
from score.data.questions import normalise, question_id, read_questions, subset
from score.errors import ScoreError
from score.evaluate.metrics import unboxed
from score.jsonl import write_rows
from score.records import Task

log = logging.getLogger("seeds")

_METRICS = {"math": "math", "search": "judge"}
"""By the first word of the published file's name."""


def read_seeds(path: Path) -> list[Task]:
    """The distinct questions of one published seed file, in file order. Raises `ScoreError` on any defect."""
    kind = path.name.split("_")[0]
    if kind not in _METRICS:
        raise ScoreError(f"{path}: the file's name must start with one of {', '.join(_METRICS)}: it decides the metric")
    dataset = path.stem.removesuffix("_seed")
    return distinct([_seed(task, _METRICS[kind]) for task in read_questions([path], dataset)])


def distinct(tasks: Sequence[Task]) -> list[Task]:
    """The first task of every question, in order."""
    first: dict[str, Task] = {}
    for task in tasks:
        first.setdefault(normalise(task.question), task)
    return list(first.values())


def _seed(task: Task, metric: str) -> Task:
    answers = tuple(unboxed(answer) for answer in task.answers)
    meta = task.meta | {"published_id": task.id, "metric": metric}
    if answers != task.answers:
        meta["published_answer"] = task.answers[0]
    return dataclasses.replace(task, id=question_id(task.question), answers=answers, meta=meta)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make the task file of published training questions.")
    parser.add_argument("--raw", required=True, type=Path, help="the published file, as fetched")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--limit", type=int, help="take a seeded subset of this many questions")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    tasks = subset(read_seeds(args.raw), args.limit, args.seed)
    write_rows(args.out, (task.to_json() for task in tasks))
    log.info("%s: %d distinct questions", args.out, len(tasks))


if __name__ == "__main__":
    cli.run(main)
