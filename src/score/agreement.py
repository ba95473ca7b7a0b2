"""How far a judge agrees with rules: a seeded sample of pairs that rules decide, put to the judge as well. Pure.

Right pairs are answers of agents that match a reference. Of a benchmark that needs a judge rules never call a given
answer wrong, and a judge that says yes to everything would look perfect; so as many wrong pairs are made, each a
question with the reference answer of another one. All of these are easy: a judge that disagrees here cannot be trusted
on the open answers, one that agrees may still err there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from score.data import benchmarks
from score.evaluate import metrics
from score.records import Task, derive_seed
from score.report.stats import wilson

if TYPE_CHECKING:
    from score.judge.verdicts import Ruling

SHOWN = 20
"""Disagreements that the report lists."""


@dataclass(frozen=True)
class Pair:
    """A question with a candidate, and whether rules call them a match."""

    task: Task
    candidate: str
    right: bool


def sample(benchmark: str, tasks: Sequence[Task], answers: Sequence[tuple[Task, str]], *, size: int) -> list[Pair]:
    """At most `size` distinct pairs, half of them right where there are so many; the same for any order of `answers`,
    which are distinct."""
    metric = benchmarks.get(benchmark).metric
    right = [
        Pair(task, answer, True) for task, answer in answers if metrics.decide(metric, answer, task.answers) == 1.0
    ]
    dealt = _shuffled(tasks, benchmark)
    wrong = [
        Pair(task, other.answers[0], False)
        for task, other in zip(dealt, dealt[1:] + dealt[:1], strict=True)
        if not metrics.decide(metric, other.answers[0], task.answers)
    ]
    shuffled = sorted(right, key=lambda pair: (derive_seed(benchmark, pair.task.id, pair.candidate), pair.candidate))
    return shuffled[: size - size // 2] + wrong[: size // 2]


def _shuffled(tasks: Sequence[Task], benchmark: str) -> list[Task]:
    return sorted(tasks, key=lambda task: (derive_seed("agreement", benchmark, task.id), task.id))


def report(pairs: Sequence[Pair], rulings: Sequence[Ruling]) -> dict[str, Any]:
    """Counts of rules against judge, the share of pairs on which they agree with its 95 % interval (Wilson), and
    Cohen's kappa, which is None where it is not defined. An unparseable verdict agrees with nothing."""
    verdicts = [(pair.right, ruling.verdict) for pair, ruling in zip(pairs, rulings, strict=True)]
    counts = {
        rules: {verdict: verdicts.count((right, verdict)) for verdict in ("yes", "no", "unparseable")}
        for rules, right in (("right", True), ("wrong", False))
    }
    agreed = [verdict == ("yes" if right else "no") for right, verdict in verdicts]
    share = wilson(sum(agreed), len(agreed)) if agreed else None
    return {
        "n": len(pairs),
        "counts": counts,
        "agreement": share and {"share": share.mean, "low": share.low, "high": share.high},
        "kappa": kappa([("yes" if right else "no", verdict) for right, verdict in verdicts]),
        "disagreements": [
            {"question": p.task.question, "references": p.task.answers, "candidate": p.candidate, "reply": r.reply}
            for p, r, same in zip(pairs, rulings, agreed, strict=True)
            if not same
        ][:SHOWN],
    }


def kappa(labels: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa of two raters: agreement beyond what their label frequencies give by chance. None where chance
    alone agrees always, or nothing was rated."""
    n = len(labels)
    left, right = Counter(a for a, _ in labels), Counter(b for _, b in labels)
    chance = sum(left[label] * right[label] for label in left) / n**2 if n else 1.0
    return None if chance == 1.0 else (sum(a == b for a, b in labels) / n - chance) / (1 - chance)
