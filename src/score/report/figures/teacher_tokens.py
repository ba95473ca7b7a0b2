"""Accuracy over the tokens that the teacher wrote: what a correction buys, compared with a full demonstration.

    python -m score.report.figures.teacher_tokens --scores eval/*/*/*.score.json --agents agents.json \
        --taught bc20 rollout/teacher/cold_start.provenance.json --taught untrained --out-dir figures

Not a figure of the paper: it argues that corrections are worth the teacher's effort, and does not count that effort.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from score import cli
from score.errors import ScoreError
from score.evaluate.score import read_scores
from score.report.cells import Cells, average, pool
from score.report.figures import style, values
from score.report.tables import GROUPS, Row, read_rows
from score.report.tables import table as table_of

PANELS = {1: "maths and facts", 2: "deep search"}
"""Table -> title: agents are compared where they stand in one table."""
NONE = "no agent was scored on every benchmark of its table"
METHODS = (
    "Teacher tokens: what the teacher generated in the stages behind an agent (plans, steps, verdicts, failed "
    "attempts; no prompts), averaged over seeds where each has its own corrections. Corrections are charged whole to "
    "every agent that learns from any of them. Accuracy in %: mean of the benchmarks of table 1 or 2, with a 95 % "
    "interval from a percentile bootstrap over questions, not over training runs; who lacks one of them is left out."
)


def spent(records: Iterable[Mapping[str, Any]]) -> float:
    """Completion tokens of the teacher in some stages, given by their provenance.

    What several seeds share was made once; corrections are each seed's own, so their mean counts.
    """
    shared, of_seeds = 0, defaultdict(int)
    for record in records:
        tokens = record["usage"].get("teacher", {}).get("completion_tokens", 0)
        if record["stage"] == "correct":
            of_seeds[record["seed"]] += tokens
        else:
            shared += tokens
    return shared + (fmean(of_seeds.values()) if of_seeds else 0)


def accuracies(cells: Cells, rows: Sequence[Row], tokens: Mapping[str, float]) -> pd.DataFrame:
    """One line per table and agent of it that has tokens and a score in every column, in the order of `rows`."""
    labels, lines = values.labels(rows), []
    for number, title in PANELS.items():
        columns = table_of(rows, cells, GROUPS[number]).columns
        for row in rows:
            of_row = [cells.get((row.name, column)) for column in columns]
            interval, method = average(of_row)
            if interval is None or row.name not in tokens or number not in row.tables:
                continue
            numbers = (interval.mean, interval.low, interval.high, method)
            counts = (sum(len(cell.values) for cell in of_row), max(len(cell.seeds) for cell in of_row))
            complete = all(cell.complete for cell in of_row)
            lines.append([title, row.name, labels[row.name], tokens[row.name], *numbers, *counts, complete])
    return pd.DataFrame(lines, columns=["panel", "agent", "label", "tokens", *values.NUMBERS])


def table(data: pd.DataFrame) -> pd.DataFrame:
    shown = [
        [row["panel"], row["label"], f"{row['tokens']:,.0f}", values.percent(row), row["n"], row["seeds"]]
        for _, row in data.iterrows()
    ]
    return pd.DataFrame(shown, columns=["benchmarks", "agent", "teacher tokens", "accuracy [95 %]", "n", "seeds"])


def draw(data: pd.DataFrame, rows: Sequence[Row], note: str) -> style.Figure:
    titles = list(dict.fromkeys(data["panel"]))
    figure, panels = style.canvas(note, panels=max(1, len(titles)), height=3.2)
    if data.empty:
        style.say(panels[0], NONE)
        return figure
    shown = data.assign(**{name: 100 * data[name] for name in ("mean", "low", "high")}, tokens=data["tokens"] / 1000)
    for title, axes in zip(titles, panels, strict=True):
        of_panel = shown[shown["panel"] == title]
        looks = style.looks(values.labels(rows).values(), of_panel["label"])
        width = max(shown["tokens"].max(), 1)  # agents of one cost stand side by side
        style.lines(axes, of_panel, "tokens", looks, spread=0.06 * width)
        axes.set(title=title, xlabel="teacher tokens (thousands)", ylabel="accuracy (%)", ylim=(-3, 103))
    style.legend_above(figure, *panels)
    return figure


def read_records(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Provenance records. Raises `ScoreError` on a file that is none."""
    records = []
    for path in paths:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            records.append({name: record[name] for name in ("stage", "seed", "usage")})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ScoreError(f"{path}: not a provenance record ({type(error).__name__}: {error})") from None
    return records


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the accuracy over the tokens that the teacher wrote.")
    parser.add_argument("--scores", required=True, type=Path, nargs="+")
    parser.add_argument("--agents", required=True, type=Path)
    parser.add_argument(
        "--taught", action="append", nargs="+", default=[], metavar=("AGENT", "RECORD"),
        help="an agent, and the provenance of the stages in which the teacher worked for it",
    )  # fmt: skip
    style.arguments(parser)
    args = parser.parse_args(argv)
    rows = read_rows(args.agents)
    tokens = {agent: spent(read_records([Path(path) for path in paths])) for agent, *paths in args.taught}
    data = accuracies(pool(map(read_scores, args.scores)), rows, tokens)
    incomplete = "" if data["complete"].all() else values.INCOMPLETE
    caption = style.caption("Accuracy by the tokens that the teacher wrote", args.note, METHODS, incomplete)
    style.save(draw(data, rows, args.note), data, table(data), caption, args.out_dir, "teacher_tokens")


if __name__ == "__main__":
    cli.run(main)
