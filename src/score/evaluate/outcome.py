"""What scoring needs of a trajectory, read without the rest of it.

Most of a trajectory is text and token ids; leaving them out makes reading a prediction file five times as fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from score.errors import ScoreError
from score.jsonl import numbered_lines
from score.records import TRAJECTORY_VERSION, StopReason, Task


@dataclass(frozen=True)
class Question:
    """Which question was asked."""

    id: str
    question: str


@dataclass(frozen=True)
class Turn:
    """A step's error, if it has one."""

    error: str | None


@dataclass(frozen=True)
class Outcome:
    """A `score.records.Trajectory` as far as its score, rates and counts go; the fields are named as there."""

    version: int
    task: Question
    steps: tuple[Turn, ...]
    stop: StopReason
    answer: str | None
    tokens: dict[str, int]
    meta: dict[str, Any]

    @property
    def sample(self) -> int:
        return self.meta.get("sample", 0)


_READER = TypeAdapter(Outcome)


def numbered_outcomes(path: Path, tasks: Mapping[str, Task]) -> Iterator[tuple[str, Outcome]]:
    """Yields (file:line, outcome) of a prediction file; `tasks` are the questions by id.

    Raises `ScoreError` with file and line on a row that is no trajectory, or of a question that is not in `tasks`.
    """
    for number, line in numbered_lines(path):
        place = f"{path}:{number}"
        try:
            outcome = _READER.validate_json(line, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise ScoreError(f"{place}: not a trajectory ({where}: {first['msg']})") from None
        if outcome.version != TRAJECTORY_VERSION:
            raise ScoreError(f"{place}: trajectory version {outcome.version}, this code reads {TRAJECTORY_VERSION}")
        if not isinstance(outcome.sample, int):
            raise ScoreError(f"{place}: not a trajectory (meta.sample: {outcome.sample!r} is no number)")
        asked = outcome.task
        if asked.id not in tasks or tasks[asked.id].question != asked.question:
            raise ScoreError(f"{place}: question {asked.id!r} is not in the task file; evaluate again with these tasks")
        yield place, outcome
