"""Variance of the policy gradient over the length of the given prefix, beside the shape of theorem 3.3's bound.

    python -m score.report.figures.gradient_variance --data theory/score_sft-s*.csv --out-dir figures

Each input line is one task at one prefix length: how many steps remain, and the variance over its rollouts. The bound's
constant is unknown, so its curve starts at the first measured point: only the shapes can be compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from score import cli
from score.errors import ScoreError
from score.report.figures import style
from score.report.stats import macro_average

INPUT = (
    *("agent", "seed", "task", "prefix", "remaining", "rollouts", "success"),
    *("variance", "variance_with_baseline", "norm2"),
)
COLUMNS = (
    *("agent", "prefix", "remaining", "rollouts", "success", "mean", "low", "high"),
    *("with_baseline", "norm2", "bound", "n", "seeds"),
)

CAPTION = (
    "Variance of the policy gradient by the number of steps given as prefix: each task's mean over seeds, averaged "
    "over n tasks, with a 95 % bootstrap over tasks. remaining: mean number of steps after the prefix (H − k + 1). "
    "bound: the shape of theorem 3.3's bound at that number, scaled to the first point (γ = {gamma}; the rollouts are "
    "not discounted). with baseline: the variance if the mean return of a task's rollouts is taken off, as GRPO does. "
    "success: share of rollouts that end right; it grows with the prefix, and the return with it. "
    "A variance of 0 has no place in the figure."
)


def read_variances(paths: Sequence[Path]) -> pd.DataFrame:
    """The lines of all files. Raises `ScoreError` on a file that holds something else."""
    frames = []
    for path in paths:
        try:
            frame = pd.read_csv(path)
            frames.append(frame[list(INPUT)])
        except (OSError, ValueError, KeyError) as error:
            raise ScoreError(f"{path}: not a file of gradient variances ({error}); needs {', '.join(INPUT)}") from None
    return pd.concat(frames, ignore_index=True)


def aggregate(variances: pd.DataFrame, gamma: float) -> pd.DataFrame:
    """One line per agent and prefix length."""
    lines = []
    for agent, of_agent in variances.groupby("agent", sort=False):
        start = None
        for prefix, rows in of_agent.groupby("prefix"):
            of_task_T = rows.groupby("task")["variance"].mean().to_numpy()
            interval, remaining = macro_average([of_task_T]), rows["remaining"].mean()
            shape = bound_shape(remaining, gamma)
            start = start or (interval.mean, shape)
            lines.append({
                "agent": agent, "prefix": prefix, "remaining": remaining, "rollouts": rows["rollouts"].mean(),
                "success": rows["success"].mean(), "mean": interval.mean, "low": interval.low, "high": interval.high,
                "with_baseline": rows["variance_with_baseline"].mean(), "norm2": rows["norm2"].mean(),
                "bound": start[0] * shape / start[1], "n": len(of_task_T), "seeds": rows["seed"].nunique(),
            })  # fmt: skip
    return pd.DataFrame(lines, columns=COLUMNS)


def bound_shape(remaining: float, gamma: float) -> float:
    """[(H−k+1) − γ (1 − γ^(H−k+1)) / (1 − γ)]², which the variance is at most proportional to."""
    return (remaining - gamma * (1 - gamma**remaining) / (1 - gamma)) ** 2


def table(data: pd.DataFrame) -> pd.DataFrame:
    shown = [
        [row["agent"], row["prefix"], f"{row['remaining']:.1f}", f"{row['mean']:.3g} [{row['low']:.3g}, "
         f"{row['high']:.3g}]", f"{row['bound']:.3g}", f"{row['with_baseline']:.3g}", f"{100 * row['success']:.1f}",
         row["n"], row["seeds"]]
        for _, row in data.iterrows()
    ]  # fmt: skip
    header = ["agent", "prefix", "remaining", "variance [95 %]", "bound", "with baseline", "success %", "n", "seeds"]
    return pd.DataFrame(shown, columns=header)


def draw(data: pd.DataFrame, note: str) -> style.Figure:
    figure, (axes,) = style.canvas(note)
    if not (data["mean"] > 0).any():  # a logarithmic axis has no place for 0
        style.say(axes, "no gradient was measured" if data.empty else "the variance is 0 everywhere")
        return figure
    data = data.assign(label=data["agent"])
    looks = style.looks(names := data["label"].unique(), names)
    axes.set_yscale("log")
    style.lines(
        axes, data[data["mean"] > 0], "prefix", looks, spread=0.2 * (len(looks) > 1), dashes=False
    )  # dashes mean the bound
    for label, of_label in data.groupby("label", sort=False):
        axes.plot(of_label["prefix"], of_label["bound"], "--", color=looks[label].colour, linewidth=1)
    axes.plot([], [], "--", color="0.3", linewidth=1, label="shape of the bound of theorem 3.3")
    style.counted_ticks(axes, data, "prefix")
    axes.set(xlabel="steps given as prefix", ylabel="variance of the policy gradient")
    style.legend_above(figure, axes)
    return figure


def _gamma(text: str) -> float:
    if not 0 < (gamma := float(text)) < 1:
        raise argparse.ArgumentTypeError("must lie between 0 and 1")
    return gamma


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the variance of the policy gradient by prefix length.")
    parser.add_argument("--data", required=True, type=Path, nargs="+", help=f"csv with {', '.join(INPUT)}")
    parser.add_argument("--gamma", type=_gamma, default=0.99, help="discount of the bound")
    style.arguments(parser)
    args = parser.parse_args(argv)
    data = aggregate(read_variances(args.data), args.gamma)
    caption = style.caption("Gradient variance by prefix length", args.note, CAPTION.format(gamma=args.gamma))
    style.save(draw(data, args.note), data, table(data), caption, args.out_dir, "gradient_variance")


if __name__ == "__main__":
    cli.run(main)
