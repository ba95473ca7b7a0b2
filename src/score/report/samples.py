"""What several samples of a question tell, as a table below a table: mean with standard error, pass@k, the vote."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from score.data import benchmarks
from score.evaluate.score import Scores
from score.report.text import Grid, markdown

if TYPE_CHECKING:
    from score.report.tables import Row

CAPTION = (
    "Several samples of each question, in %: mean with its standard error (between questions), pass@k (the chance that "
    "one of k samples is right; of graded scores, the expected best of k), and the vote of the majority; over the "
    "questions whose samples all have a score, averaged over seeds."
)


def section(scores: Sequence[Scores], rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Paragraphs in Markdown; none where every question was attempted once."""
    of_cell: dict[tuple[str, str], list[dict[str, float]]] = {}
    for s in scores:
        if s.of_samples.get("questions"):
            of_cell.setdefault((s.agent, s.benchmark), []).append(s.of_samples)
    passes = sorted({name for found in of_cell.values() for one in found for name in one if "@" in name}, key=_k)
    header = ["student", "method", "", "samples", "mean", *passes, "majority", "n"]
    lines = [
        [row.student, row.method, benchmarks.get(column).label, *_line(of_cell[row.name, column], passes)]
        for row in rows
        for column in columns
        if (row.name, column) in of_cell
    ]
    return [CAPTION, markdown(Grid(header, lines, words=3))] if lines else []


def _k(name: str) -> int:
    return int(name.partition("@")[2])


def _line(found: Sequence[dict[str, float]], passes: Sequence[str]) -> list[str]:
    """One cell's numbers; those that its samples do not give are left out."""

    def percent(name: str) -> str:
        values = [one[name] for one in found if name in one]
        return f"{100 * fmean(values):.1f}" if values else ""

    mean = percent("mean") + (f" ± {percent('standard_error')}" if percent("standard_error") else "")
    counts = [str(max(int(one[name]) for one in found)) for name in ("samples", "questions")]
    return [counts[0], mean, *map(percent, passes), percent("majority"), counts[1]]
