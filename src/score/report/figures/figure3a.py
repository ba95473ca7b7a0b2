"""Figure 3a: how many corrections the teacher needed, as shares of the mentored tasks.

    python -m score.report.figures.figure3a --corrections correct/bc20-s*/trajectories.jsonl --out-dir figures

A task ends solved after 0, 1, 2, ... corrections; or hard, which is unsolved after all of them; or failed, when the
teacher or the infrastructure failed. Shares are over all seeds; the seeds of a task are not independent, so n counts
different tasks. With `--reported`, the paper's shares stand beside ours, which then end in its category "2+".
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from score import cli
from score.data import benchmarks
from score.errors import ScoreError
from score.jsonl import numbered_rows
from score.report import reported
from score.report.figures import style, values
from score.report.stats import wilson
from score.report.tables import GROUP_LABELS

PAPER = "{} (paper)"
LABELS = GROUP_LABELS | {"search": "search"}
LABELS |= {PAPER.format(group): PAPER.format(label) for group, label in LABELS.items()}
MOST = "2+"
"""The paper's category of tasks that took two corrections or more."""
REMAINDER = ("hard", "failed")
COLUMNS = ("group", "corrections", "tasks", "share", "low", "high", "n")

CAPTION = (
    "Share of the tasks of mentored problem solving, in %, by the teacher's corrections until the student solved them, "
    "over all seeds, with Wilson's 95 % interval for n different tasks, which does not contain the variance between "
    "training runs. hard: unsolved after all corrections. failed: the teacher or the infrastructure failed."
)
BESIDE = (
    f"{MOST}: two corrections or more. The paper gives no numbers of tasks; its hard tasks are what its others leave."
)

Endings = Counter[tuple[str, str, str]]
"""(group, task, number of corrections or how else it ended) -> how many seeds."""


def count(paths: Sequence[Path], most: bool = False) -> Endings:
    """Counts the tasks of mentored files, row by row: the files are large. Raises `ScoreError` with file and line.

    With `most`, two corrections or more are one ending, as in the paper.
    """
    counts: Endings = Counter()
    for path in paths:
        for number, row in numbered_rows(path):
            try:
                counts[_group(row["task"]), row["task"]["id"], _ending(row, most)] += 1
            except (KeyError, TypeError) as error:
                raise ScoreError(
                    f"{path}:{number}: not a mentored task ({type(error).__name__}: {error}); give the "
                    "trajectories.jsonl of `score.correct`"
                ) from None
    return counts


def _group(task: Mapping[str, Any]) -> str:
    if task["dataset"] in benchmarks.BENCHMARKS:
        return benchmarks.get(task["dataset"]).group
    return "math" if task["meta"].get("metric") == "math" else "search"


def _ending(row: Mapping[str, Any], most: bool) -> str:
    if row["outcome"] != "solved":
        return row["outcome"]
    corrections = len(row["corrections"])
    return MOST if most and corrections >= 2 else str(corrections)


def shares(counts: Endings, most: bool = False) -> pd.DataFrame:
    """One line per group and ending, zeros included; the shares of a group add up to 1.

    `tasks` counts a task once per seed, `n` once. With `most`, the endings are those of the paper.
    """
    solved = {int(ending) for _, _, ending in counts if ending not in (*REMAINDER, MOST)}
    numbers = ["0", "1", MOST] if most else [str(number) for number in range(max(solved, default=0) + 1)]
    endings = [*numbers, *REMAINDER]
    lines = []
    for group in (group for group in LABELS if any(group == counted for counted, _, _ in counts)):
        of_group = {key: seeds for key, seeds in counts.items() if key[0] == group}
        n, total = len({task for _, task, _ in of_group}), sum(of_group.values())
        for ending in endings:
            tasks = sum(seeds for (_, _, of_task), seeds in of_group.items() if of_task == ending)
            share = wilson(n * tasks / total, n)
            lines.append((group, ending, tasks, share.mean, share.low, share.high, n))
    return pd.DataFrame(lines, columns=COLUMNS)


def beside_paper(data: pd.DataFrame) -> pd.DataFrame:
    """Our shares and the paper's, over the same endings; a share that somebody has not is missing."""
    lines = [
        (PAPER.format(key.column), key.method, None, value / 100, None, None, None)
        for key, value in reported.numbers().items()
        if key.part == "figure3a"
    ]
    paper = pd.DataFrame(lines, columns=COLUMNS)
    both = pd.concat([data, paper], ignore_index=True) if len(data) else paper
    endings = ["0", "1", MOST, *REMAINDER]
    filled = both.set_index(["group", "corrections"]).reindex(
        pd.MultiIndex.from_product([both["group"].unique(), endings], names=["group", "corrections"])
    )
    return filled.reset_index()[list(COLUMNS)]


def table(data: pd.DataFrame) -> pd.DataFrame:
    """One line per ending, one column per group."""
    shown = pd.DataFrame({"corrections": data["corrections"].unique()})
    for group, of_group in data.groupby("group", sort=False):
        shown[_label(group, of_group)] = [values.percent(row, "share") for _, row in of_group.iterrows()]
    return shown


def _label(group: str, of_group: pd.DataFrame) -> str:
    n = of_group["n"].max()
    return LABELS[group] if pd.isna(n) else f"{LABELS[group]} (n = {n:.0f})"


def draw(data: pd.DataFrame, note: str) -> style.Figure:
    figure, (axes,) = style.canvas(note)
    if data.empty:
        style.say(axes, "no task was mentored")
        return figure
    import seaborn as sns

    looks = style.looks(LABELS, data["group"])
    shown = data.assign(**{name: 100 * data[name] for name in ("low", "high")}, mean=100 * data["share"])
    sns.barplot(
        shown, x="corrections", y="mean", hue="group", errorbar=None, legend=False, ax=axes, edgecolor="0.15",
        linewidth=0.8, hue_order=list(looks), palette={group: look.colour for group, look in looks.items()},
        saturation=1,
    )  # fmt: skip
    for bars, (group, look) in zip(list(axes.containers), looks.items(), strict=True):
        of_group = shown[shown["group"] == group].dropna(subset="mean")  # a share that is missing has no bar
        bars.set_label(_label(group, of_group))
        for bar in bars:
            bar.set_hatch(look.hatch)
        style.intervals(axes, [bar.get_x() + bar.get_width() / 2 for bar in bars], of_group, "0.15")
    edge = data["corrections"].nunique() - len(REMAINDER) - 0.5
    axes.axvline(edge, color="0.5", linewidth=0.8, linestyle=":")
    axes.text(edge + 0.1, 0.97, "not solved", transform=axes.get_xaxis_transform(), va="top")
    axes.set(xlabel="teacher corrections until solved", ylabel="share of tasks (%)", ylim=(0, None))
    style.legend_above(figure, axes)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the share of tasks by number of teacher corrections.")
    parser.add_argument("--corrections", required=True, type=Path, nargs="*", help="mentored tasks, a file per seed")
    parser.add_argument("--reported", action="store_true", help="with the paper's shares beside ours")
    style.arguments(parser)
    args = parser.parse_args(argv)
    data = shares(count(args.corrections, args.reported), args.reported)
    data = beside_paper(data) if args.reported else data
    caption = style.caption("Figure 3a: Teacher corrections", args.note, CAPTION, BESIDE if args.reported else "")
    style.save(draw(data, args.note), data, table(data), caption, args.out_dir, "figure3a")


if __name__ == "__main__":
    cli.run(main)
