"""What comes of the method as its teacher gets worse: SCoRe-SFT by the accuracy of the oracle that corrected for it.

    python -m score.report.figures.teacher_quality --teacher 1.0 score_sft bc20 \
        --teacher 0.6 score_sft_p60 score_sft_p60 --scores eval/*/*/*.score.json \
        --corrections correct/*/trajectories.jsonl --out-dir figures

Each --teacher names the accuracy, the agent, and whose name its corrections have (`correct/<name>-s<seed>/`). Any other
agent with scores is a student before correction, drawn as a line to compare with.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from score import cli
from score.errors import ScoreError
from score.evaluate.score import read_scores
from score.jsonl import numbered_rows
from score.report.cells import Cells, average, pool
from score.report.figures import style, values
from score.report.stats import average as mean_of
from score.report.stats import macro_average

ACCURACY, SOLVED, FAILED, KEY_STEP = "accuracy of SCoRe-SFT", "solved after correction", "teacher failed", "key step"
MEASURES = (ACCURACY, SOLVED, FAILED, KEY_STEP)
BEFORE = "before correction"
COLUMNS = ("teacher", "agent", "measure", "mean", "low", "high", "n", "seeds", "complete")

CAPTION = (
    "The oracle that corrects is right with probability p when it locates the earliest wrong turn, and with the same "
    "probability when it rewrites it. Accuracy of SCoRe-SFT: average over benchmarks, in %, of n questions. Solved "
    "after correction: share of the n training tasks that the student got wrong at first and right in the end, in %; "
    "teacher failed: share of these tasks that were dropped as the teacher gave no usable correction. Key step: mean "
    "turn of the first correction (0 is the plan) over n tasks. Means over seeds; 95 % bootstrap over questions or "
    "tasks (Wilson's interval where all are alike), which does not contain the variance between training runs."
)


@dataclass(frozen=True)
class Taught:
    """An agent, the accuracy of its teacher, and the name of its corrections."""

    accuracy: float
    agent: str
    corrections: str


Outcomes = dict[str, dict[str, dict[str, list[float]]]]
"""Measure -> name of the corrections -> task -> one value per seed."""


def read_outcomes(paths: Sequence[Path]) -> Outcomes:
    """What correction came to, row by row: the files are large. Raises `ScoreError` with file and line.

    A task that was right at first, or that an infrastructure failure ended, says nothing of the teacher.
    """
    found: Outcomes = {name: defaultdict(lambda: defaultdict(list)) for name in (SOLVED, FAILED, KEY_STEP)}
    for path in paths:
        match = re.search(r"(?:^|/)correct/([^/]+)-s\d+/trajectories\.jsonl$", path.as_posix())
        if not match:
            raise ScoreError(f"{path}: whose are they? Give paths like correct/<agent>-s<seed>/trajectories.jsonl")
        for number, row in numbered_rows(path):
            try:
                for measure, value in _outcomes(row).items():
                    found[measure][match[1]][row["task"]["id"]].append(value)
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                raise ScoreError(f"{path}:{number}: not a mentored task ({type(error).__name__}: {error})") from None
    return found


def _outcomes(row: Mapping[str, Any]) -> dict[str, float]:
    outcome, corrections = row["outcome"], row["corrections"]
    if (row["failure"] or "").startswith("infrastructure") or (outcome == "solved" and not corrections):
        return {}
    values = {SOLVED: float(outcome == "solved"), FAILED: float(outcome == "failed")}
    return values | ({KEY_STEP: float(corrections[0]["k"])} if corrections else {})


def measure(taught: Sequence[Taught], cells: Cells, outcomes: Outcomes) -> pd.DataFrame:
    """One line per teacher and measure, and one per student before correction.

    Raises `ScoreError` where an agent has no scores or no corrections.
    """
    benchmarks = list(dict.fromkeys(benchmark for _, benchmark in cells))
    lines = []
    for one in sorted(taught, key=lambda one: one.accuracy):
        lines.append((one.accuracy, one.agent, ACCURACY, *_score(one.agent, cells, benchmarks)))
        for name in (SOLVED, FAILED, KEY_STEP):
            of_task = outcomes[name].get(one.corrections, {})
            if not of_task and name != KEY_STEP:
                raise ScoreError(f"no corrections named {one.corrections!r}; give its trajectories.jsonl")
            lines.append((one.accuracy, one.agent, name, *_mean(of_task, share=name != KEY_STEP)))
    others = dict.fromkeys(agent for agent, _ in cells if agent not in {one.agent for one in taught})
    lines += [(None, agent, BEFORE, *_score(agent, cells, benchmarks)) for agent in others]
    return pd.DataFrame(lines, columns=COLUMNS)


def _score(agent: str, cells: Cells, benchmarks: Sequence[str]) -> tuple[Any, ...]:
    of_agent = [cells.get((agent, benchmark)) for benchmark in benchmarks]
    interval, _ = average(of_agent)
    if interval is None:
        raise ScoreError(f"{agent} has no scores on some of the benchmarks that others have; evaluate it on all")
    counts = sum(len(cell.values) for cell in of_agent), max(len(cell.seeds) for cell in of_agent)
    return interval.mean, interval.low, interval.high, *counts, all(cell.complete for cell in of_agent)


def _mean(of_task: Mapping[str, Sequence[float]], *, share: bool) -> tuple[Any, ...]:
    if not of_task:
        return None, None, None, 0, 0, True
    means_T = np.array([np.mean(of_seeds) for of_seeds in of_task.values()])
    interval = mean_of([means_T])[0] if share else macro_average([means_T])
    return interval.mean, interval.low, interval.high, len(of_task), max(map(len, of_task.values())), True


def table(data: pd.DataFrame) -> pd.DataFrame:
    """One line per teacher, one column per measure."""
    lines = []
    for accuracy, rows in data[data["measure"] != BEFORE].groupby("teacher", sort=False):
        of_measure = {row["measure"]: row for _, row in rows.iterrows()}
        shown = [f"{_text(of_measure[name])} (n = {of_measure[name]['n']})" for name in MEASURES]
        lines.append([f"{accuracy:g}", *shown, rows["seeds"].max()])
    for _, row in data[data["measure"] == BEFORE].iterrows():
        lines.append([f"none: {row['agent']}", f"{_text(row)} (n = {row['n']})", *["–"] * 3, row["seeds"]])
    return pd.DataFrame(lines, columns=["p", *MEASURES, "seeds"])


def _text(row: pd.Series) -> str:
    if row["measure"] != KEY_STEP:
        return values.percent(row)
    return "–" if pd.isna(row["mean"]) else f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def draw(data: pd.DataFrame, note: str) -> style.Figure:
    figure, (left, right) = style.canvas(note, panels=2)
    looks = style.looks(MEASURES, data["measure"])
    shown = data.assign(label=data["measure"])
    shares = shown[shown["measure"].isin(MEASURES[:3])]
    shares = shares.assign(**{name: 100 * shares[name] for name in ("mean", "low", "high")})
    style.lines(left, shares, "teacher", {name: looks[name] for name in MEASURES[:3]}, spread=0.02)
    for _, row in data[data["measure"] == BEFORE].iterrows():
        left.axhline(100 * row["mean"], color="0.4", linestyle=":", label=f"{row['agent']}, {BEFORE}")
    style.legend_above(figure, left)
    left.set(xlabel="p: how often the teacher is right", ylabel="%", ylim=(-3, 103))
    steps = shown[(shown["measure"] == KEY_STEP) & shown["mean"].notna()]
    if steps.empty:
        style.say(right, "nothing was corrected")
        return figure
    style.lines(right, steps, "teacher", {KEY_STEP: looks[KEY_STEP]}, spread=0, legend=False)
    right.set(xlabel="p: how often the teacher is right", ylabel="mean turn of the first correction", ylim=(0, None))
    return figure


def _taught(words: Sequence[str]) -> Taught:
    accuracy, agent, corrections = words
    try:
        return Taught(float(accuracy), agent, corrections)
    except ValueError:
        raise ScoreError(f"--teacher {' '.join(words)}: the accuracy must be a number") from None


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the method's result by the accuracy of its teacher.")
    parser.add_argument(
        "--teacher", required=True, nargs=3, action="append", metavar=("ACCURACY", "AGENT", "CORRECTIONS")
    )
    parser.add_argument("--scores", required=True, type=Path, nargs="+")
    parser.add_argument("--corrections", required=True, type=Path, nargs="+", help="mentored tasks, a file per seed")
    style.arguments(parser)
    args = parser.parse_args(argv)
    taught = [_taught(words) for words in args.teacher]
    data = measure(taught, pool(map(read_scores, args.scores)), read_outcomes(args.corrections))
    incomplete = "" if data["complete"].all() else values.INCOMPLETE
    caption = style.caption("Teacher quality", args.note, CAPTION, incomplete)
    style.save(draw(data, args.note), data, table(data), caption, args.out_dir, "teacher_quality")


if __name__ == "__main__":
    cli.run(main)
