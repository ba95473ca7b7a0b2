"""Predicted against true first errors of planted attempts, as a heat map.

    python -m score.report.figures.confusion --audit audit/audit.jsonl --out-dir audit

Left out are values that are right by luck, whose true turn is a matter of definition, and reviews that the
infrastructure ended.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from score import cli
from score.correct.teacher import INFRASTRUCTURE
from score.errors import ScoreError
from score.jsonl import numbered_rows
from score.micro.mutations import LUCKY
from score.report.figures import style

NONE = "none"
"""The column of reviews that named no turn."""

CAPTION = (
    "Number of attempts by the turn of the planted error (rows) and the turn that the teacher named as the earliest "
    "wrong one (columns); 0 is the plan, none a review that ended in a named failure. Shades are shares of a row."
)


def read_pairs(path: Path) -> list[tuple[int, int | None]]:
    """(true, predicted) turns. Raises `ScoreError` with file and line on a row that is none of an audit."""
    pairs = []
    for number, row in numbered_rows(path):
        try:
            pairs += pairs_of([row])
        except KeyError as error:
            raise ScoreError(f"{path}:{number}: not a row of an audit (no {error})") from None
    return pairs


def pairs_of(rows: Iterable[Mapping[str, Any]]) -> list[tuple[int, int | None]]:
    return [
        (row["k"], row["predicted"])
        for row in rows
        if row["mutation"] != LUCKY and row["failure"] != INFRASTRUCTURE
    ]  # fmt: skip


def matrix(pairs: Sequence[tuple[int, int | None]]) -> pd.DataFrame:
    """One line per true turn, one column per turn that was named; counts."""
    counts = Counter(pairs)
    last = max((turn for pair in pairs for turn in pair if turn is not None), default=0)
    lines = [
        {"true": true}
        | {str(named): counts[true, named] for named in range(last + 1)}
        | {NONE: counts[true, None]}
        for true in sorted({true for true, _ in pairs})
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=["true", *map(str, range(last + 1)), NONE])


def draw(data: pd.DataFrame, note: str) -> style.Figure:
    figure, (axes,) = style.canvas(note, height=1.2 + 0.3 * max(len(data), 4))
    if data.empty:
        style.say(axes, "nothing was audited")
        return figure
    import seaborn as sns

    counts = data.set_index("true")
    shares = counts.div(counts.sum(axis=1), axis=0)
    sns.heatmap(
        shares, annot=counts.astype(str).replace("0", ""), fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, ax=axes,
        linewidths=0.5, linecolor="0.85",
    )  # fmt: skip
    axes.set(xlabel="turn that the teacher named", ylabel="turn of the planted error")
    axes.tick_params(axis="y", rotation=0)
    return figure


def save(pairs: Sequence[tuple[int, int | None]], note: str, out_dir: Path) -> None:
    data = matrix(pairs)
    style.save(draw(data, note), data, data, style.caption("Localisation", note, CAPTION), out_dir, "confusion")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw predicted against true first errors of an audit.")
    parser.add_argument("--audit", required=True, type=Path, help="audit.jsonl of `score.correct.audit`")
    style.arguments(parser)
    args = parser.parse_args(argv)
    save(read_pairs(args.audit), args.note, args.out_dir)


if __name__ == "__main__":
    cli.run(main)
