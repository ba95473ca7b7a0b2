"""Published test files -> the tasks of one benchmark.

    python -m score.data.benchmark --name aime24 --raw raw/aime24.jsonl --out data/aime24.jsonl [--limit 10 --seed 0]

Asserts the published number of questions; a file of another size, a duplicate id or a question without text or answer
is an error. `--limit` takes a subset that depends on the seed and the questions, not on the order of the file; a
smaller subset lies within a larger one of the same seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from score import cli
from score.data import benchmarks
from score.data.benchmarks.base import Benchmark
from score.data.questions import questions_by_file, subset
from score.errors import ScoreError
from score.jsonl import write_rows
from score.records import Task

log = logging.getLogger("benchmark")

_SOLUTIONS = ("solution", "rationale", "answer")
"""Fields that give the answer away: a task travels with every trajectory, so they stay behind."""


def read_benchmark(benchmark: Benchmark, files: Sequence[Path]) -> list[Task]:
    """All tasks of a benchmark from its published files, given in any order.

    Task ids are `<benchmark>-<published id>`, unique over all benchmarks. Raises `ScoreError` unless all is there.
    """
    if not benchmark.files:
        raise ScoreError(f"benchmark {benchmark.name!r} has no published files; score.micro makes its questions")
    names = [Path(path).name for path in benchmark.files]
    files = sorted(files, key=lambda file: file.name)
    if [file.name for file in files] != sorted(names):
        given = ", ".join(map(str, files))
        raise ScoreError(f"benchmark {benchmark.name!r} is made of {', '.join(names)}; given: {given}")
    levels = dict(zip(names, benchmark.levels, strict=False))  # no levels for most benchmarks
    found = questions_by_file(files, benchmark.name, aliases=benchmark.metric == "f1")
    tasks = [_named(task, levels.get(file.name)) for file, task in found]
    if len(tasks) != benchmark.n:
        raise ScoreError(f"{', '.join(map(str, files))}: {len(tasks)} questions, {benchmark.label} has {benchmark.n}")
    return tasks


def _named(task: Task, level: int | None) -> Task:
    meta = {name: value for name, value in task.meta.items() if name not in _SOLUTIONS}
    if level is not None:
        meta["level"] = level
    return dataclasses.replace(task, id=f"{task.dataset}-{task.id}", meta=meta)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make the task file of one benchmark.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--raw", required=True, type=Path, nargs="+", help="the published file(s), as fetched")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--limit", type=int, help="take a seeded subset of this many questions")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    benchmark = benchmarks.get(args.name)
    tasks = subset(read_benchmark(benchmark, args.raw), args.limit, args.seed)
    write_rows(args.out, (task.to_json() for task in tasks))
    log.info("%s: %d of %d questions", args.out, len(tasks), benchmark.n)


if __name__ == "__main__":
    cli.run(main)
