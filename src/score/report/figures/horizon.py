"""Accuracy over the number of gold steps of a question: what theorems 3.1 and 3.2 say of the horizon, measured.

    python -m score.report.figures.horizon --scores eval/*/*/*.score.json --tasks data/*.jsonl --agents agents.json \
        --out-dir figures
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from score import cli
from score.errors import ScoreError
from score.evaluate.score import read_scores
from score.jsonl import numbered_rows
from score.report.cells import Cell, Cells, pool
from score.report.figures import style, values
from score.report.tables import Row, read_rows


def read_steps(paths: Sequence[Path]) -> dict[str, int]:
    """Question id -> number of gold steps. Raises `ScoreError` with file and line on a task that does not say it."""
    steps: dict[str, int] = {}
    for path in paths:
        for number, row in numbered_rows(path):
            meta = row.get("meta")
            count = meta.get("steps") if isinstance(meta, dict) else None
            if "id" not in row or not isinstance(count, int):
                raise ScoreError(f"{path}:{number}: the task has no gold steps (meta.steps); give tasks that have them")
            if steps.setdefault(row["id"], count) != count:
                raise ScoreError(f"{path}:{number}: question {row['id']!r} has another number of steps elsewhere")
    return steps


def by_steps(cells: Cells, steps: Mapping[str, int], rows: Sequence[Row]) -> pd.DataFrame:
    """One line per agent and number of gold steps. Raises `ScoreError` on a question whose steps are not known."""
    labels = values.labels(rows)
    lines = []
    for row in rows:
        of_agent = {benchmark: cell for (agent, benchmark), cell in cells.items() if agent == row.name}
        for count, cell in sorted(_regrouped(of_agent, steps).items()):
            lines.append({"agent": row.name, "label": labels[row.name], "steps": count} | values.numbers(cell))
    return pd.DataFrame(lines, columns=["agent", "label", "steps", *values.NUMBERS])


def _regrouped(cells: Mapping[str, Cell], steps: Mapping[str, int]) -> dict[int, Cell]:
    """One agent's cells per number of steps instead of per benchmark."""
    scores: dict[int, dict[str, float]] = defaultdict(dict)
    origins: dict[int, dict[str, Cell]] = defaultdict(dict)
    for benchmark, cell in cells.items():
        for question, score in cell.values.items():
            if question not in steps:
                raise ScoreError(f"question {question!r} of {benchmark} is in no task file; add its file to --tasks")
            scores[steps[question]][f"{benchmark}/{question}"] = score
            origins[steps[question]][benchmark] = cell
    return {
        count: Cell(
            values=of_count,
            seeds=tuple(sorted({seed for cell in origins[count].values() for seed in cell.seeds})),
            complete=all(cell.complete for cell in origins[count].values()),
        )
        for count, of_count in scores.items()
    }


def table(data: pd.DataFrame) -> pd.DataFrame:
    """One line per agent, one column per number of steps."""
    counts = values.counts(data, "steps")
    lines = []
    for label, of_agent in data.groupby("label", sort=False):
        shown = {row["steps"]: values.percent(row) for _, row in of_agent.iterrows()}
        lines.append([label, of_agent["seeds"].max(), *(shown.get(steps, "–") for steps in counts)])
    return pd.DataFrame(lines, columns=["agent", "seeds", *(f"{steps} steps (n = {n})" for steps, n in counts.items())])


def draw(data: pd.DataFrame, rows: Sequence[Row], note: str) -> style.Figure:
    figure, (axes,) = style.canvas(note, height=3.6)
    if data.empty:
        style.say(axes, "no question was scored")
        return figure
    shown = data.assign(**{name: 100 * data[name] for name in ("mean", "low", "high")})
    looks = style.looks(values.labels(rows).values(), data["label"])
    style.lines(axes, shown, "steps", looks, spread=0.3)
    style.counted_ticks(axes, shown, "steps")
    axes.set(xlabel="gold steps of a question", ylabel="accuracy (%)", ylim=(-3, 103))
    style.legend_above(figure, axes)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the accuracy over the number of gold steps of a question.")
    parser.add_argument("--scores", required=True, type=Path, nargs="+")
    parser.add_argument("--tasks", required=True, type=Path, nargs="+", help="the questions, with meta.steps")
    parser.add_argument("--agents", required=True, type=Path)
    style.arguments(parser)
    args = parser.parse_args(argv)
    rows = read_rows(args.agents)
    data = by_steps(pool(map(read_scores, args.scores)), read_steps(args.tasks), rows)
    incomplete = "" if data["complete"].all() else values.INCOMPLETE
    caption = style.caption("Accuracy by the number of gold steps", args.note, values.POOLING, incomplete)
    style.save(draw(data, rows, args.note), data, table(data), caption, args.out_dir, "horizon")


if __name__ == "__main__":
    cli.run(main)
