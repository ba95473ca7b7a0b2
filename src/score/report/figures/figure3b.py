"""Figure 3b: accuracy on the hard tasks kept out of training, after each stage.

    python -m score.report.figures.figure3b --scores eval/*/*/hard.score.json --agents agents.json --out-dir figures

Every seed keeps its own hard tasks out, so questions are pooled over the seeds that have them. With `--reported`, the
paper's accuracies stand beside ours.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd

from score import cli
from score.errors import ScoreError
from score.evaluate.score import Scores, read_scores
from score.report import reported
from score.report.cells import Cell, pool
from score.report.figures import style, values
from score.report.tables import Row, read_rows

HARD = "hard"
"""The benchmark that score files of hard tasks name."""
NONE = "no hard task was kept out"
PAPER = "{} (paper)"
BESIDE = "The paper's: 200 held-out mathematics tasks; in how many runs is not reported."


def pool_hard(scores: Sequence[Scores]) -> dict[str, Cell]:
    """Agent -> its cell; an agent without any scored question is absent.

    Raises `ScoreError` on other scores, on scores given twice, and on agents of one seed with other questions.
    """
    for s in scores:
        if s.benchmark != HARD:
            raise ScoreError(f"scores of {s.agent}, seed {s.seed}, are on {s.benchmark!r}; give those on {HARD!r}")
    seeds = sorted({s.seed for s in scores})
    of_seeds = [pool(s for s in scores if s.seed == seed) for seed in seeds]
    cells = {}
    for agent in dict.fromkeys(s.agent for s in scores):
        of_question: dict[str, list[float]] = {}
        for of_seed in of_seeds:
            for question, value in of_seed[agent, HARD].values.items() if (agent, HARD) in of_seed else ():
                of_question.setdefault(question, []).append(value)
        of_agent = [s for s in scores if s.agent == agent]
        cells[agent] = Cell(
            values={question: fmean(of_seeds) for question, of_seeds in of_question.items()},
            seeds=tuple(sorted(s.seed for s in of_agent)),
            complete=len(of_agent) == len(seeds) and all(s.complete for s in of_agent),
        )
    return {agent: cell for agent, cell in cells.items() if cell.values}


def accuracies(cells: dict[str, Cell], rows: Sequence[Row]) -> pd.DataFrame:
    """One line per agent, in the order of `rows`."""
    labels = values.labels(rows)
    lines = [
        {"agent": row.name, "label": labels[row.name]} | values.numbers(cells[row.name])
        for row in rows
        if row.name in cells
    ]
    return pd.DataFrame(lines, columns=["agent", "label", *values.NUMBERS])


def beside_paper(data: pd.DataFrame, rows: Sequence[Row]) -> pd.DataFrame:
    """The paper's accuracies after our own, for the agents that it reports on."""
    found = {(key.student, key.method): value for key, value in reported.numbers().items() if key.part == "figure3b"}
    labels = values.labels(rows)
    lines = [
        {"agent": row.name, "label": PAPER.format(labels[row.name]), "mean": value / 100, "complete": True}
        for row in rows
        if (value := found.get((row.student, row.reported))) is not None
    ]
    return (
        pd.concat([data, pd.DataFrame(lines, columns=data.columns)], ignore_index=True)
        if len(data)
        else (pd.DataFrame(lines, columns=data.columns))
    )


def table(data: pd.DataFrame) -> pd.DataFrame:
    counts = data[["n", "seeds"]].astype("Int64").astype(object).fillna("–")
    shown = [[row["label"], values.percent(row), *counts.loc[i]] for i, row in data.iterrows()]
    return pd.DataFrame(shown, columns=["agent", "accuracy [95 %]", "n", "seeds"])


def draw(data: pd.DataFrame, rows: Sequence[Row], note: str) -> style.Figure:
    figure, (axes,) = style.canvas(note, height=0.8 + 0.45 * max(len(data), 2))
    if data.empty:
        style.say(axes, NONE)
        return figure
    import seaborn as sns

    names = [form.format(label) for label in values.labels(rows).values() for form in ("{}", PAPER)]
    looks = style.looks(names, data["label"])
    shown = data.assign(**{name: 100 * data[name] for name in ("mean", "low", "high")})
    sns.barplot(
        shown, x="mean", y="label", hue="label", legend=False, errorbar=None, ax=axes, edgecolor="0.15", linewidth=0.8,
        palette={label: look.colour for label, look in looks.items()}, saturation=1, width=0.7,
    )  # fmt: skip
    for bars, look in zip(axes.containers, looks.values(), strict=True):
        for bar in bars:
            bar.set_hatch(look.hatch)
    style.intervals(axes, range(len(shown)), shown, "0.15", horizontal=True)
    for place, (_, row) in enumerate(shown.iterrows()):
        n = "" if pd.isna(row["n"]) else f" (n = {row['n']:.0f})"
        text, end = f"{row['mean']:.1f}{'' if row['complete'] else '*'}{n}", shown.loc[place, ["mean", "high"]].max()
        axes.annotate(text, (end, place), (5, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(shown)), [textwrap.fill(label, 28) for label in shown["label"]])
    axes.set(xlabel="accuracy on hard tasks kept out of training (%)", ylabel="")
    axes.set_xlim(0, 1.25 * shown[["mean", "high"]].max(axis=None))  # room for the numbers
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the accuracy on the hard tasks kept out of training.")
    parser.add_argument("--scores", required=True, type=Path, nargs="*", help="on the hard tasks, per agent and seed")
    parser.add_argument("--agents", required=True, type=Path)
    parser.add_argument("--reported", action="store_true", help="with the paper's accuracies beside ours")
    style.arguments(parser)
    args = parser.parse_args(argv)
    rows = read_rows(args.agents)
    data = accuracies(pool_hard([read_scores(path) for path in args.scores]), rows)
    data = beside_paper(data, rows) if args.reported else data
    incomplete = "" if data["complete"].all() else values.INCOMPLETE
    text = f"Here {NONE}." if data.empty else values.POOLING
    text = f"{text} {BESIDE}" if args.reported else text
    caption = style.caption("Figure 3b: Hard tasks kept out of training", args.note, text, incomplete)
    style.save(draw(data, rows, args.note), data, table(data), caption, args.out_dir, "figure3b")


if __name__ == "__main__":
    cli.run(main)
