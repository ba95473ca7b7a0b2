"""Training questions without those of any benchmark, split into cold start, mentored problem solving and held out.

    python -m score.data.splits --seeds data/seeds/*.jsonl --benchmarks data/*.jsonl --share 0.2 --seed 0 \
        --out data/splits.json --contamination data/contamination.json --report data/contamination.md

A training question that holds a test question is dropped (`score.data.contamination`); the published search seeds hold
593 of them word for word. The split depends on the seed and the questions, not on the order of files; the published
code splits by completion order, quick questions first (hazard 14).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from score import cli
from score.data.contamination import find_contamination, report
from score.data.questions import normalise
from score.data.seeds import distinct
from score.errors import ScoreError
from score.jsonl import write_json, write_text
from score.records import Task, content_key
from score.tasks import read_tasks

log = logging.getLogger("splits")


def split(tasks: Sequence[Task], share: float, seed: int, held_out: int = 0) -> dict[str, list[str]]:
    """Ids by part, drawn by seed and question: `held_out` tasks, a `share` of the others, and the rest.

    Raises `ScoreError` if nothing is left to train on.
    """
    if held_out and held_out >= len(tasks):
        raise ScoreError(f"data.held_out: {held_out} of {len(tasks)} training questions leave none to train on")
    drawn = [task.id for task in sorted(tasks, key=lambda t: content_key("split", seed, normalise(t.question)))]
    aside, drawn = drawn[len(drawn) - held_out :], drawn[: len(drawn) - held_out]
    n_first = round(share * len(drawn))
    return {"cold_start": drawn[:n_first], "mentored": drawn[n_first:], "held_out": aside}


def part_of(tasks: Sequence[Task], splits: Path, part: str) -> list[Task]:
    """The tasks of one part of a split file, in its order. Raises `ScoreError` if it has no such part."""
    by_id = {task.id: task for task in tasks}
    names = json.loads(splits.read_text(encoding="utf-8"))
    if part not in names:
        raise ScoreError(f"{splits}: no part {part!r}; it has {', '.join(names)}")
    return [by_id[id_] for id_ in names[part] if id_ in by_id]


def held_out_of(files: Sequence[Path], splits: Path | None, *, wanted: bool) -> list[Task]:
    """The held-out questions among those of some files, if they are wanted. Raises `ScoreError` if there are none."""
    if not wanted:
        return []
    found = part_of(read_tasks(*files, repeated=True), splits, "held_out") if splits else []
    if not found:
        where = splits or "no split file"
        raise ScoreError(f"{where}: no questions are held out; set data.held_out, or eval_every: 0")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Drop training questions that are test questions, and split the rest.")
    parser.add_argument("--seeds", required=True, type=Path, nargs="+", help="task files of training questions")
    parser.add_argument(
        "--benchmarks", required=True, type=Path, nargs="+", help="task files, named after the benchmark"
    )
    parser.add_argument("--near", type=float, help="share of n-grams from which on a question is nearly the same")
    parser.add_argument("--share", type=float, default=0.2, help="share of the cold start")
    parser.add_argument("--held-out", type=int, default=0, help="questions kept aside for learning curves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--contamination", required=True, type=Path, help="JSON")
    parser.add_argument("--report", required=True, type=Path, help="the same in Markdown")
    args = parser.parse_args(argv)
    given = read_tasks(*args.seeds, repeated=True)
    train = distinct(given)
    tests = {path.stem: read_tasks(path) for path in args.benchmarks}
    contamination = find_contamination(train, tests, args.near)
    dropped = contamination.dropped
    parts = split([task for task in train if task.id not in dropped], args.share, args.seed, args.held_out)
    counts = {
        "given": len(given),
        "distinct": len(train),
        "dropped": len(dropped),
        "test_questions_found": len(contamination.found(same=True)),
        "nearly_found": None if args.near is None else len(contamination.found(same=False)),
        **{part: len(ids) for part, ids in parts.items()},
    }
    write_json(args.contamination, {"counts": counts} | contamination.to_json(tests))
    write_text(args.report, report(contamination, tests, len(train)))
    write_json(args.out, parts)
    log.info("%s", json.dumps(counts))


if __name__ == "__main__":
    cli.run(main)
