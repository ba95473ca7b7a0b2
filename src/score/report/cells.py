"""Scores -> the cells of a table: one agent on one benchmark, seeds pooled; and averages over cells with intervals.

Pure; no files and no layout (`score.report.tables`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from score.errors import ScoreError
from score.evaluate.score import Scores
from score.report import stats
from score.report.stats import Difference, Interval, holm, paired_difference, share


@dataclass(frozen=True)
class Cell:
    """One agent on one benchmark: a score per question, each the mean over the seeds that scored it.

    `complete` is False when a question has no score in some seed, or a seed is missing.
    """

    values: Mapping[str, float]
    seeds: tuple[int, ...]
    complete: bool

    @property
    def array(self) -> np.ndarray:
        return np.array(list(self.values.values()))

    @property
    def mean(self) -> float:
        return float(self.array.mean())

    def interval(self) -> Interval:
        """The cell's mean with its 95 % interval."""
        return share(self.array)


Cells = dict[tuple[str, str], Cell]
"""(agent, benchmark) -> cell; a cell without any scored question is absent."""


def pool(scores: Iterable[Scores]) -> Cells:
    """Pools the seeds of every (agent, benchmark).

    Raises `ScoreError` if something is given twice, or if agents were scored on other questions or by other rules.
    """
    scores = list(scores)
    seeds = {s.seed for s in scores}
    by_cell: dict[tuple[str, str], dict[int, Scores]] = {}
    for s in scores:
        of_cell = by_cell.setdefault((s.agent, s.benchmark), {})
        if s.seed in of_cell:
            raise ScoreError(f"scores of {s.agent}, seed {s.seed}, on {s.benchmark} are given twice")
        of_cell[s.seed] = s
    _check_comparable(scores)
    cells = {key: _cell(list(of_cell.values()), seeds) for key, of_cell in by_cell.items()}
    return {key: cell for key, cell in cells.items() if cell.values}


def average(cells: Sequence[Cell | None]) -> tuple[Interval | None, str]:
    """Mean of the cells' means with its 95 % interval, and the method; None if a cell is absent: fewer columns are
    another average."""
    if not cells or any(cell is None for cell in cells):
        return None, ""
    return stats.average([cell.array for cell in cells])


def difference(left: Sequence[Cell | None], right: Sequence[Cell | None]) -> Difference | None:
    """Macro-average of `left` minus `right` over the questions that both have scores of; None if a cell is absent."""
    pairs = list(zip(left, right, strict=True))
    if not pairs or any(a is None or b is None for a, b in pairs):
        return None
    common = [(a, b, [q for q in a.values if q in b.values]) for a, b in pairs]
    if not all(questions for _, _, questions in common):
        return None
    return paired_difference(
        [np.array([a.values[q] for q in questions]) for a, _, questions in common],
        [np.array([b.values[q] for q in questions]) for _, b, questions in common],
    )


def best(rows: Mapping[str, Sequence[Cell | None]], level: float = 0.05) -> str | None:
    """Of some rows over the same columns, the name of the one that is better than every other.

    Each paired difference has to be significant at `level` after Holm's correction. None if no row is, if there is
    nothing to compare with, or if a row cannot be compared.
    """
    means = {name: fmean(cell.mean for cell in cells) for name, cells in rows.items() if cells and all(cells)}
    if len(means) < 2:
        return None
    top, *others = sorted(means, key=means.__getitem__, reverse=True)
    p_values = []
    for name in others:  # the nearest first, which most often settles it: Holm's p is never smaller than p
        gap = difference(rows[top], rows[name])
        if gap is None or gap.interval.mean <= 0 or gap.p >= level:
            return None
        p_values.append(gap.p)
    return top if max(holm(p_values)) < level else None


def _cell(scores: Sequence[Scores], seeds: set[int]) -> Cell:
    values: dict[str, list[float]] = {}
    for row in (row for s in scores for row in s.rows if row.score is not None):
        values.setdefault(row.id, []).append(row.score)
    return Cell(
        values={question: fmean(of_question) for question, of_question in values.items()},
        seeds=tuple(sorted(s.seed for s in scores)),
        complete=all(s.complete for s in scores) and {s.seed for s in scores} == seeds,
    )


def _check_comparable(scores: Sequence[Scores]) -> None:
    first: dict[str, Scores] = {}
    for s in scores:
        other = first.setdefault(s.benchmark, s)
        who = f"{s.agent} (seed {s.seed}) and {other.agent} (seed {other.seed})"
        if (s.metric, s.version, s.normalisation) != (other.metric, other.version, other.normalisation):
            raise ScoreError(f"{who} were scored by different rules on {s.benchmark}; score them again")
        if {row.id for row in s.rows} != {row.id for row in other.rows}:
            raise ScoreError(f"{who} were scored on different questions of {s.benchmark}; evaluate them again")
