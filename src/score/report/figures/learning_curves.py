"""Learning curves of the RL runs: held-out accuracy and training reward over updates, and what they cost.

    python -m score.report.figures.learning_curves --logs train/*/log.csv --agents agents.json --out-dir figures

Agent and seed are read off the path, `.../train/<agent>-s<seed>/log.csv`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from score import cli
from score.errors import ScoreError
from score.report.figures import style, values
from score.report.stats import wilson
from score.report.tables import Row, read_rows

ACCURACY, N, REWARD, SMOOTHED = "heldout/accuracy", "heldout/n", "reward", "reward/smoothed"
TOKENS = "episode/new_tokens"
LOGGED = (ACCURACY, N, REWARD, "tier/final", "tier/key", "tier/avoid", TOKENS)
WINDOW = 5

CAPTION = (
    "Accuracy on held-out questions, and training reward as a rolling mean of {window} updates. Lines are means over "
    "seeds, bands reach from the lowest to the highest seed. Tokens are means over runs. Accuracies in %: "
    "mean over seeds, with Wilson's 95 % interval for n questions. {target}"
)
TARGET = (
    "A = {a:.1f} % is the midpoint between the agents' mean accuracy at the first evaluation and the best agent's mean "
    "accuracy at the last one; updates to A: the first evaluation at which an agent's mean over seeds reaches it."
)
NO_TARGET = "There is no A to reach: no agent ends above the agents' mean accuracy at the first evaluation."


@dataclass(frozen=True)
class Run:
    """Whose log it is."""

    agent: str
    seed: int


def run_of(path: Path) -> Run:
    """Agent and seed of a log by its path. Raises `ScoreError` if the path does not say."""
    match = re.search(r"(?:^|/)train/([^/]+)-s(\d+)/log\.csv$", path.as_posix())
    if not match:
        raise ScoreError(f"{path}: whose log is it? Give paths like train/<agent>-s<seed>/log.csv")
    return Run(match[1], int(match[2]))


def read_curves(paths: Sequence[Path]) -> pd.DataFrame:
    """All logs, tidy. Raises `ScoreError` on a file that is no RL log, and on a run given twice."""
    frames: dict[Run, pd.DataFrame] = {}
    for path in paths:
        if (run := run_of(path)) in frames:
            raise ScoreError(f"{path}: the log of {run.agent}, seed {run.seed}, is given twice")
        try:
            log = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise ScoreError(f"{path}: not a training log ({error})") from None
        if not {"step", REWARD} <= set(log.columns):
            raise ScoreError(f"{path}: no columns step and {REWARD}; give logs of RL runs")
        frames[run] = tidy(run, log)
    return pd.concat(frames.values(), ignore_index=True)


def tidy(run: Run, log: pd.DataFrame) -> pd.DataFrame:
    """One line per step and series; a series that was not logged has none."""
    log = log.reindex(columns=["step", *LOGGED])
    log[SMOOTHED] = log[REWARD].dropna().rolling(WINDOW, min_periods=1).mean()
    long = log.melt("step", var_name="series").dropna(subset="value")
    return long.assign(agent=run.agent, seed=run.seed)[["agent", "seed", "step", "series", "value"]]


def accuracy_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Held-out accuracy, mean over seeds: a line per step, a column per agent."""
    accuracy = curves[curves["series"] == ACCURACY]
    return accuracy.pivot_table(index="step", columns="agent", values="value")


def target(accuracies: pd.DataFrame) -> float | None:
    """A: midpoint between the agents' mean first accuracy and the best last one; None if no agent gets better."""
    columns = [accuracies[agent].dropna() for agent in accuracies]
    if not columns:
        return None
    first = sum(column.iloc[0] for column in columns) / len(columns)
    best = max(column.iloc[-1] for column in columns)
    return (first + best) / 2 if best > first else None


def updates_to(accuracy: pd.Series, target: float) -> int | None:
    """The first evaluated step at which the accuracy reaches the target."""
    reached = accuracy.dropna()[lambda column: column >= target - 1e-9]
    return None if reached.empty else int(reached.index[0])


def table(curves: pd.DataFrame, rows: Sequence[Row]) -> pd.DataFrame:
    """One line per agent, in the order of `rows`."""
    labels, accuracies = values.labels(rows), accuracy_curves(curves)
    a = target(accuracies)
    lines = []
    for row in rows:
        of_agent = curves[curves["agent"] == row.name]
        if of_agent.empty:
            continue
        accuracy = accuracies[row.name].dropna() if row.name in accuracies else pd.Series(dtype=float)
        n = _n(of_agent)
        lines.append({
            "agent": labels[row.name],
            "seeds": of_agent["seed"].nunique(),
            "updates": _mean_of_runs(of_agent[of_agent["series"] == REWARD].groupby("seed")["step"].max()),
            "rollout tokens": _mean_of_runs(of_agent[of_agent["series"] == TOKENS].groupby("seed")["value"].sum()),
            "n": n or "–",
            "first accuracy [95 %]": _accuracy(accuracy.iloc[:1], n),
            "last accuracy [95 %]": _accuracy(accuracy.iloc[-1:], n),
            f"updates to {'A' if a is None else f'{100 * a:.1f}'} %": _reached(accuracy, a),
        })  # fmt: skip
    return pd.DataFrame(lines)


def _n(curves: pd.DataFrame) -> int | None:
    """Held-out questions behind an accuracy: the fewest of any evaluation, some of which may lack an outcome."""
    counts = curves.loc[curves["series"] == N, "value"]
    return None if counts.empty else int(counts.min())


def _mean_of_runs(of_runs: pd.Series) -> str:
    return "–" if of_runs.empty else f"{of_runs.mean():,.0f}"


def _accuracy(one: pd.Series, n: int | None) -> str:
    """A mean over seeds with the interval of n questions, which is too wide rather than too narrow for it."""
    if one.empty:
        return "–"
    mean = one.iloc[0]
    interval = wilson(mean * n, n) if n else None
    return values.percent(
        pd.Series({"mean": mean, "low": interval and interval.low, "high": interval and interval.high})
    )


def _reached(accuracy: pd.Series, target: float | None) -> str:
    if accuracy.empty or target is None:
        return "–"
    updates = updates_to(accuracy, target)
    return "not reached" if updates is None else str(updates)


def draw(curves: pd.DataFrame, rows: Sequence[Row], note: str) -> style.Figure:
    figure, (left, right) = style.canvas(note, panels=2)
    labels = values.labels(rows)
    shown = curves.assign(label=curves["agent"].map(labels))
    looks = style.looks(labels.values(), shown["label"])
    n = _n(curves)
    left.set_ylabel("held-out accuracy (%)" + (f", n = {n}" if n else ""))
    right.set_ylabel("training reward (rolling mean)")
    for axes, series, unit in ((left, ACCURACY, 100), (right, SMOOTHED, 1)):
        of_series = shown[shown["series"] == series]
        axes.set_xlabel("updates")
        if of_series.empty:
            style.say(axes, "not logged")
        else:
            _panel(axes, of_series.assign(value=unit * of_series["value"]), looks)
    left.set_ylim(top=max(left.get_ylim()[1], 1))  # a percent at least, where every accuracy is 0
    if right.get_legend():
        left.get_legend() and left.get_legend().remove()
        style.legend_above(figure, right)
    return figure


def _panel(axes: style.Axes, of_series: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    import seaborn as sns

    per_line = of_series.groupby("label")["step"].nunique().max()
    sns.lineplot(
        of_series, x="step", y="value", hue="label", style="label", errorbar=("pi", 100), ax=axes,
        err_kws={"alpha": 0.12, "linewidth": 0}, markevery=max(1, per_line // 8), **style.seaborn_looks(looks),
    )  # fmt: skip
    axes.set(xlabel="updates", ylabel=axes.get_ylabel())
    axes.xaxis.get_major_locator().set_params(integer=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw held-out accuracy and training reward over updates.")
    parser.add_argument("--logs", required=True, type=Path, nargs="+", help="train/<agent>-s<seed>/log.csv")
    parser.add_argument("--agents", required=True, type=Path)
    style.arguments(parser)
    args = parser.parse_args(argv)
    rows = read_rows(args.agents)
    curves = read_curves(args.logs)
    curves = curves[curves["agent"].isin([row.name for row in rows])]
    a = target(accuracy_curves(curves))
    text = CAPTION.format(window=WINDOW, target=NO_TARGET if a is None else TARGET.format(a=100 * a))
    caption = style.caption("Learning curves", args.note, text)
    style.save(draw(curves, rows, args.note), curves, table(curves, rows), caption, args.out_dir, "learning_curves")


if __name__ == "__main__":
    cli.run(main)
