"""Numbers that several figures share: cells as columns, agents' labels, text for tables. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from score.report.cells import Cell
from score.report.tables import Row

NUMBERS = ("mean", "low", "high", "interval", "n", "seeds", "complete")

POOLING = (
    "Accuracies in %: each question's mean over the seeds that scored it, averaged over n questions, with Wilson's "
    "95 % interval for the number of questions that the scores are worth (their seeds stay together). It does not "
    "contain the variance between training runs."
)
INCOMPLETE = "\\* incomplete: questions without a score, or a seed, are left out."


def numbers(cell: Cell) -> dict[str, object]:
    """A cell as the columns `NUMBERS`."""
    interval = cell.interval()
    counts = (len(cell.values), len(cell.seeds), cell.complete)
    return dict(zip(NUMBERS, (interval.mean, interval.low, interval.high, "wilson", *counts), strict=True))


def labels(rows: Sequence[Row]) -> dict[str, str]:
    """Agent -> its name in a figure: the method, and the student where several have the same method."""
    methods = Counter(row.method for row in rows)
    return {row.name: row.method + (f", {row.student}" if methods[row.method] > 1 else "") for row in rows}


def percent(row: pd.Series, name: str = "mean", low: str = "low", high: str = "high") -> str:
    """ "71.0 [66.1, 75.4]", or "–" where there is no number; marked where the row says that it is incomplete."""
    if pd.isna(row[name]):
        return "–"
    mark = "" if row.get("complete", True) else "*"
    interval = "" if pd.isna(row[low]) else f" [{100 * row[low]:.1f}, {100 * row[high]:.1f}]"
    return f"{100 * row[name]:.1f}{mark}{interval}"


def counts(data: pd.DataFrame, by: str) -> dict[int, str]:
    """The n behind each value of a column; a range where the lines that share the value differ in it."""
    bounds = data.groupby(by)["n"].agg(["min", "max"])
    return {row.Index: f"{row.min}" if row.min == row.max else f"{row.min}–{row.max}" for row in bounds.itertuples()}
