"""The model card of a training run: what a model folder says of itself once it leaves the results it belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from score.report.stats import wilson
from score.train.heldout import ACCURACY, N, best

METRICS = ("loss", "reward", "entropy", "mean_token_accuracy", "rewards/accuracies", ACCURACY)
"""What is shown of a log, where it has it."""
_HELD_OUT = (
    "Held-out questions are of the training distribution and never a benchmark's; intervals are Wilson's, 95 %, and "
    "cover questions only."
)
_SELECTED = "The chosen accuracy is the highest of several and for that too high."


def chosen(history: Sequence[Mapping[str, Any]], select: str) -> tuple[int, float | None]:
    """(update, held-out accuracy or None if it was not looked at) of the model that a run leaves behind."""
    last = max((row["step"] for row in history if "step" in row), default=0)
    if select == "best" and (found := best(history)):
        return found
    return last, next((row[ACCURACY] for row in history if row.get("step") == last and ACCURACY in row), None)


def model_card(
    record: Mapping[str, Any], history: Sequence[Mapping[str, Any]], *, select: str, merged: bool, digest: str
) -> str:
    """Markdown with the header that model hubs read.

    Args:
        record: the run's provenance.
        history: the trainer's log.
        merged: the folder holds complete weights, not an adapter alone.
        digest: of the weights.
    """
    settings = record["settings"]
    agent, step = settings["agent"], chosen(history, select)[0]
    header = {
        "base_model": settings["model"]["path"],
        "library_name": "transformers" if merged else "peft",
        "tags": ["score", agent["method"]],
    }
    looked = any(ACCURACY in row for row in history)
    picked = "the one that solved most held-out questions" if select == "best" and looked else "its last"
    lines = [
        "---", yaml.safe_dump(header, sort_keys=False).strip(), "---",
        f"# {agent['name']}, seed {record['seed']}", "", f"*{record['title']}*", "",
        f"{'Complete weights' if merged else 'A LoRA adapter'} of update {step}, {picked}.", "",
        "| | |", "| --- | --- |",
        f"| method | `{agent['method']}`, `score.train.{agent['method']}` |",
        f"| started from | `{agent['start']}`: `{record['start']}` |",
        f"| data | {_counts(record['data'])} |",
        f"| commit | `{record['commit']}` |",
        f"| weights | sha256 `{digest}` |",
        "", "## Metrics", "", *_metrics(history, step), "",
        *((_HELD_OUT,) if looked else ()), *((_SELECTED,) if looked and select == "best" else ()),
        "`log.csv` beside the model folder has every update.",
        "", "## Settings", "", "```yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).strip(), "```",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _counts(data: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in data.items())


def _metrics(history: Sequence[Mapping[str, Any]], step: int) -> list[str]:
    """A table of the first row, the chosen one and the last one that were logged of each metric."""
    lines = ["| metric | first | chosen | last |", "| --- | --- | --- | --- |"]
    for name in METRICS:
        rows = [row for row in history if name in row and "step" in row]
        if not rows:
            continue
        at = [rows[0], next((row for row in rows if row["step"] == step), None), rows[-1]]
        lines.append(f"| {name} | " + " | ".join(_value(name, row) for row in at) + " |")
    return lines


def _value(name: str, row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not logged"
    value, where = float(row[name]), f"(update {row['step']})"
    if name != ACCURACY or not row.get(N):
        return f"{value:.4g} {where}" if math.isfinite(value) else f"{value} {where}"
    within = wilson(value * row[N], int(row[N]))
    return f"{100 * value:.1f} % [{100 * within.low:.1f}, {100 * within.high:.1f}], n {int(row[N])} {where}"
