"""Mentored problem solving (paper section 3.2): the student acts, the teacher corrects its earliest error.

    attempt <- student from the question
    up to `max_corrections` times, while the answer is wrong:
        k, fix <- teacher                       # earliest wrong turn, rewritten
        attempt <- student from (turns before k, fix), in the true sandbox state before turn k

Pure: the student and the teacher are callables over lists, so all tasks advance together, round by round, and no
result depends on the order in which anything finishes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from score.agent.episode import Forced, forced_prefix
from score.agent.protocol import plan_message, step_message
from score.correct.teacher import Correction, Failure, Review, Right, Wrong
from score.records import Step, Task, Trajectory

Outcome = Literal["solved", "hard", "failed"]
"""solved: right in the end. hard: still wrong after all corrections. failed: the teacher or the infrastructure
failed."""


@dataclass(frozen=True)
class Mentored:
    """What mentored problem solving made of one task: `attempts[i]` is the one after i corrections."""

    task: Task
    attempts: tuple[Trajectory, ...]
    corrections: tuple[Correction, ...]
    outcome: Outcome
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task.to_json(),
            "attempts": [attempt.to_json() for attempt in self.attempts],
            "corrections": [
                dataclasses.asdict(c) | {"wrong": c.wrong.to_json(), "fix": c.fix.to_json()} for c in self.corrections
            ],
            "outcome": self.outcome,
            "failure": self.failure,
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Mentored:
        corrections = [
            Correction(**(c | {"wrong": Step.from_json(c["wrong"]), "fix": Step.from_json(c["fix"])}))
            for c in row["corrections"]
        ]
        attempts = tuple(map(Trajectory.from_json, row["attempts"]))
        return cls(Task.from_json(row["task"]), attempts, tuple(corrections), row["outcome"], row["failure"])


@dataclass(frozen=True)
class Start:
    """Where an attempt starts: a task, the given turns, and which attempt at the task it is."""

    task: Task
    forced: tuple[Forced, ...]
    attempt: int


Play = Callable[[Sequence[Start]], list[Trajectory]]


class Examine(Protocol):
    """Reviews attempts, in order; with `correct` off it only tells right from wrong."""

    def __call__(self, attempts: Sequence[Trajectory], *, correct: bool) -> list[Review]: ...


def mentor(
    tasks: Sequence[Task],
    play: Play,
    examine: Examine,
    max_corrections: int,
    report: Callable[[int, int, int], None] = lambda round_, running, solved: None,
) -> list[Mentored]:
    """Runs mentored problem solving on every task, in the order given.

    `report(round, still running, solved)` is called after each round.
    """
    running = {task.id: Mentored(task, (), (), "hard") for task in tasks}
    ended: dict[str, Mentored] = {}
    starts = [Start(task, (), 0) for task in tasks]
    for round_ in range(max_corrections + 1):
        attempts = play(starts)
        reviews = examine(attempts, correct=round_ < max_corrections)
        starts = []
        for attempt, review in zip(attempts, reviews, strict=True):
            record = dataclasses.replace(
                running[attempt.task.id], attempts=(*running[attempt.task.id].attempts, attempt)
            )
            match _conclude(review):
                case Correction() as correction:
                    running[attempt.task.id] = dataclasses.replace(
                        record, corrections=(*record.corrections, correction)
                    )
                    starts.append(Start(attempt.task, corrected_turns(attempt, correction), round_ + 1))
                case (outcome, failure):
                    del running[attempt.task.id]
                    ended[attempt.task.id] = dataclasses.replace(record, outcome=outcome, failure=failure)
        report(round_, len(running), sum(record.outcome == "solved" for record in ended.values()))
        if not starts:
            break
    return [ended[task.id] for task in tasks]


def _conclude(review: Review) -> Correction | tuple[Outcome, str | None]:
    """The correction to go on with, or how the task ended."""
    match review:
        case Right():
            return "solved", None
        case Wrong():
            return "hard", None
        case Failure(reason, detail):
            return "failed", f"{reason}: {detail}"
    return review


def corrected_turns(attempt: Trajectory, correction: Correction) -> tuple[Forced, ...]:
    """The turns before the wrong one, as they were, and the teacher's in its place."""
    fix = Forced(step_message(correction.fix))
    if correction.k == 0:
        return (fix,)
    return (*forced_prefix(plan_message(attempt), attempt.steps[: correction.k - 1]), fix)
