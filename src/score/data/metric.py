"""Which metric decides whether a task's answer is right, and what rules say of an answer."""

from __future__ import annotations

from score.data import benchmarks
from score.evaluate import metrics
from score.records import Task


def metric_of(task: Task) -> str:
    """A training question names its metric; a benchmark question has its benchmark's."""
    return task.meta.get("metric") or benchmarks.get(task.dataset).metric


def by_rules(task: Task, answer: str | None) -> float | None:
    """The score of an answer in [0, 1]; None where only a judge could decide. No answer scores 0."""
    return metrics.decide(metric_of(task), answer, task.answers)
