"""Which metric decides whether a task's answer is right."""

from __future__ import annotations

from score.data import benchmarks
from score.records import Task


def metric_of(task: Task) -> str:
    """A training question names its metric; a benchmark question has its benchmark's."""
    return task.meta.get("metric") or benchmarks.get(task.dataset).metric
