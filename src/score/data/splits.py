"""Training questions without those of any benchmark, split into cold start, mentored problem solving and held out.

    python -m score.data.splits --seeds data/seeds/*.jsonl --benchmarks data/*.jsonl --share 0.2 --seed 0 \
        --out data/splits.json --contamination data/contamination.json --report data/contamination.md

A training question is dropped if it equals a test question after normalisation (`score.data.questions.normalise`); the
published search seeds hold 593 test questions. Paraphrases are not found. The split depends on the seed and the
questions, not on the order of files; the published code splits by completion order, quick questions first (hazard 14).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from score import cli
from score.data.questions import normalise
from score.data.seeds import distinct
from score.errors import ScoreError
from score.jsonl import read_rows, write_json, write_text
from score.records import Task, content_key

log = logging.getLogger("splits")


@dataclass(frozen=True)
class Contamination:
    """`dropped` maps a training task's id to the test tasks it equals; `found` a benchmark to its found test tasks."""

    dropped: dict[str, list[str]]
    found: dict[str, list[str]]

    @property
    def n_found(self) -> int:
        return sum(map(len, self.found.values()))


def find_contamination(train: Sequence[Task], tests: Mapping[str, Sequence[Task]]) -> Contamination:
    """Which training questions are test questions, and how many of each benchmark."""
    by_question: dict[str, list[Task]] = {}
    for task in train:
        by_question.setdefault(normalise(task.question), []).append(task)
    by_question.pop("", None)  # two questions without a letter or digit are not the same question
    dropped: dict[str, list[str]] = {}
    found: dict[str, list[str]] = {name: [] for name in tests}
    for name, tasks in tests.items():
        for test in tasks:
            matches = by_question.get(normalise(test.question), [])
            if matches:
                found[name].append(test.id)
            for match in matches:
                dropped.setdefault(match.id, []).append(test.id)
    return Contamination(dropped, found)


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


def report(contamination: Contamination, tests: Mapping[str, Sequence[Task]], n_train: int) -> str:
    """The contamination of a training set in Markdown."""
    lines = [
        "# Test questions in the training questions",
        "",
        f"{contamination.n_found} test questions stand in the {n_train} distinct training questions (equal after NFKC, "
        f"lower case and removal of all but letters and digits). {len(contamination.dropped)} training questions were "
        "dropped for it.",
        "",
        "| benchmark | questions | in training |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {len(tasks)} | {len(contamination.found[name])} |" for name, tasks in tests.items()),
        "",
        "Dropped training questions and the test questions they equal:",
        "",
        *(f"- `{train}`: {', '.join(f'`{test}`' for test in found)}" for train, found in contamination.dropped.items()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Drop training questions that are test questions, and split the rest.")
    parser.add_argument("--seeds", required=True, type=Path, nargs="+", help="task files of training questions")
    parser.add_argument(
        "--benchmarks", required=True, type=Path, nargs="+", help="task files, named after the benchmark"
    )
    parser.add_argument("--share", type=float, default=0.2, help="share of the cold start")
    parser.add_argument("--held-out", type=int, default=0, help="questions kept aside for learning curves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--contamination", required=True, type=Path, help="JSON")
    parser.add_argument("--report", required=True, type=Path, help="the same in Markdown")
    args = parser.parse_args(argv)
    given = [Task.from_json(row) for path in args.seeds for row in read_rows(path)]
    train = distinct(given)
    tests = {path.stem: [Task.from_json(row) for row in read_rows(path)] for path in args.benchmarks}
    contamination = find_contamination(train, tests)
    kept = [task for task in train if task.id not in contamination.dropped]
    parts = split(kept, args.share, args.seed, args.held_out)
    counts = {
        "given": len(given),
        "distinct": len(train),
        "dropped": len(contamination.dropped),
        "test_questions_found": contamination.n_found,
        **{part: len(ids) for part, ids in parts.items()},
    }
    found = {name: {"questions": len(tests[name]), "found": ids} for name, ids in contamination.found.items()}
    write_json(args.contamination, {"counts": counts, "benchmarks": found, "dropped": contamination.dropped})
    write_text(args.report, report(contamination, tests, len(train)))
    write_json(args.out, parts)
    log.info("%s", json.dumps(counts))


if __name__ == "__main__":
    cli.run(main)
