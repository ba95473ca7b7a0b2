"""What the paper reports, beside what came out here: cell by cell, with the difference.

`reported.csv` beside this file has one line per number: part (main: tables 1 and 3; deep: table 2; figure3a; figure3b),
student, method, column, value in %, and where it is from. Not every cell is known: of most rows only the average is.
An agent's row is found by its student and the `reported` of its config entry.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("reported.csv")
PART = {1: "main", 2: "deep", 3: "main"}
"""Table -> the part of `reported.csv` that has its numbers."""
NOT_RUN, NOT_REPORTED = "not run", "not reported"
LEGEND = (
    "Paper: as reported, in %, sources in src/score/report/reported.csv; not reported: the paper has no such number, "
    "or it is not known here. Difference: ours minus the paper's, in points."
)
LABELS = {"arpo": "ARPO", "grpo": "GRPO", "tir": "TIR prompting"}
"""Rows that the paper has and the config need not have."""


@dataclass(frozen=True)
class Key:
    """Which number: `column` is a benchmark, "average", or a figure's category."""

    part: str
    student: str
    method: str
    column: str


@cache
def numbers() -> Mapping[Key, float]:
    """Every reported number in %, in the order of the file."""
    with open(TABLE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {Key(row["part"], row["student"], row["method"], row["column"]): float(row["value"]) for row in rows}


def of_row(part: str, student: str, method: str | None, columns: Iterable[str]) -> list[float | None]:
    """A row's reported numbers, None where there is none."""
    return [method and numbers().get(Key(part, student, method, column)) for column in columns]


def others(part: str, students: Sequence[str], known: Iterable[tuple[str, str | None]]) -> list[tuple[str, str]]:
    """(student, method) of rows that the paper has of these students and nobody else shows, in the file's order."""
    rows = dict.fromkeys((key.student, key.method) for key in numbers() if key.part == part and key.student in students)
    shown = set(known)
    return [row for row in rows if row not in shown and row[1] in LABELS]


def lines(words: Sequence[str], ours: Sequence[str], means: Sequence[float | None], paper: Sequence[float | None]):
    """A row's lines [ours, paper, difference], the words that name it on the first one only; the last where there is
    any difference to show.

    Args:
        ours: cells as they are shown, empty where nothing was run; `means` are the same as numbers in %.
    """
    blank = [""] * len(words)
    shown = [
        [*words, "ours", *(text or NOT_RUN for text in ours)],
        [*blank, "paper", *(NOT_REPORTED if value is None else f"{value:.1f}" for value in paper)],
    ]
    gaps = [None if None in pair else pair[0] - pair[1] for pair in zip(means, paper, strict=True)]
    if any(gap is not None for gap in gaps):
        shown.append([*blank, "difference", *("" if gap is None else f"{gap:+.1f}" for gap in gaps)])
    return shown
