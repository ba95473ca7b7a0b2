"""One result from the shards of a stage, in the order of the tasks; the number of shards leaves no trace in it.

    python -m score.gather rollout     --rows 1-of-2.jsonl 2-of-2.jsonl ... --out cold_start.jsonl
    python -m score.gather corrections --rows ... --config ... --out-dir correct/bc20-s0
    python -m score.gather evaluation  --rows ... --tasks data/math2.jsonl ... --out-dir eval/bc20/0

Of the corrections' records it makes the training sets: `sft.jsonl`, `rl.jsonl`, `hard.jsonl` (kept out of both), and
`other_half.jsonl`, the trajectories of the tasks in `rl.jsonl`. Counts go into the provenance, those of
tokens and repaired replies summed. No model runs here.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from score import cli, usage
from score.config import read
from score.correct.mps import Mentored
from score.correct.sets import make_sets
from score.errors import ScoreError
from score.evaluate.__main__ import questions
from score.jsonl import Row, read_rows, write_rows
from score.provenance import write
from score.records import Trajectory
from score.rollout import summary
from score.shards import join, merge


def rollout(rows: list[Row], args: argparse.Namespace) -> dict[str, Any]:
    """Writes the demonstrations; returns their counts."""
    write_rows(args.out, rows)
    return {"summary": summary([Trajectory.from_json(row) for row in rows])}


def corrections(rows: list[Row], args: argparse.Namespace) -> dict[str, Any]:
    """Writes the mentored records and the training sets made of them; returns their counts."""
    config = read(args.config)
    settings = config.correct
    sets = make_sets(
        [Mentored.from_json(row) for row in rows],
        sft_share=settings.sft_share, hard_in_rl=settings.hard_in_rl, seed=config.data.split_seed,
    )  # fmt: skip
    write_rows(args.out_dir / "trajectories.jsonl", rows)
    for name in ("sft", "other_half", "rl", "hard"):
        write_rows(args.out_dir / f"{name}.jsonl", [entry.to_json() for entry in getattr(sets, name)])
    return {"summary": sets.summary}


def evaluation(rows: list[Row], args: argparse.Namespace) -> dict[str, Any]:
    """Writes one file per benchmark; returns how the attempts stopped."""
    pairs = [(task.id, path) for path in args.tasks for task in questions(path, ruled_only=args.ruled_only)]
    asked = dict(pairs)
    if [task for task, _ in groupby(row["task"]["id"] for row in rows)] != [task for task, _ in pairs]:
        files = ", ".join(map(str, args.tasks))
        raise ScoreError(f"{args.rows[0].parent}: attempts at other questions than those of {files}")
    for path in args.tasks:
        write_rows(args.out_dir / path.name, [row for row in rows if asked[row["task"]["id"]] == path])
    return {"stops": dict(Counter(row["stop"] for row in rows))}


STAGES = {"rollout": rollout, "corrections": corrections, "evaluation": evaluation}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--rows", type=Path, nargs="+", required=True, help="the shards' rows, from 1-of-N to N-of-N")
    parser.add_argument("--records", type=Path, nargs="+", required=True, help="the shards' provenance")
    parser.add_argument("--provenance", type=Path, required=True)
    parser.add_argument("--fingerprint", required=True, help="of the stage's settings and code, for the provenance")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--out-dir", type=Path)
    parser.add_argument("--config", type=Path, help="corrections: the resolved config")
    parser.add_argument("--tasks", type=Path, nargs="+", help="evaluation: one file per benchmark")
    parser.add_argument("--ruled-only", action="store_true")
    args = parser.parse_args(argv)
    rows = join([read_rows(path) for path in args.rows])
    counts = STAGES[args.stage](rows, args)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in args.records]
    counts |= {"usage": usage.gathered(records), "fingerprint": args.fingerprint}
    if repairs := [record["repairs"] for record in records if "repairs" in record]:
        counts["repairs"] = {name: sum(one[name] for one in repairs) for name in repairs[0]}
    write(args.provenance, merge(records) | counts)


if __name__ == "__main__":
    cli.run(main)
