"""From mentored records to training sets: SFT half, RL half, and the hard tasks kept out of both. Pure.

Deliberate differences from the published converters (docs/HAZARDS.md 2, 3, 14, 15, 16): halves by a seeded hash of the
task, not by completion order; the EARLIEST error, not the last correction; structured records, never re-parsed text;
hard means unsolved after the corrections; an infrastructure failure is neither hard nor easy but left out and counted.
A teacher's turn that crashed when it was executed is a model for nobody: no trajectory that still holds one is trained
on, and no key step is made of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from score.agent.protocol import Message, plan_message
from score.correct.mps import Mentored
from score.correct.teacher import Correction
from score.records import Step, StopReason, Task, Trajectory, derive_seed
from score.train.rows import unusable


@dataclass(frozen=True)
class KeyStep:
    """One RL prompt: a verified prefix and the two versions of the turn after it.

    `k` is the key turn (0 is the plan). `plan` is the prefix's plan turn, None if k is 0. `fix` and `wrong` carry their
    observations. A hard task has neither and starts at the bare question, rewarded by its outcome alone.
    """

    task: Task
    k: int
    plan: Message | None
    prefix: tuple[Step, ...]
    wrong: Step | None
    fix: Step | None

    @property
    def kind(self) -> Literal["key_step", "hard"]:
        return "hard" if self.fix is None else "key_step"

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task.to_json(),
            "kind": self.kind,
            "k": self.k,
            "plan": self.plan and {"content": self.plan.content, "token_ids": self.plan.token_ids},
            "prefix": [step.to_json() for step in self.prefix],
            "wrong": self.wrong and self.wrong.to_json(),
            "fix": self.fix and self.fix.to_json(),
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> KeyStep:
        plan = row["plan"]
        ids = plan and plan["token_ids"]
        return cls(
            task=Task.from_json(row["task"]),
            k=row["k"],
            plan=plan and Message("assistant", plan["content"], None if ids is None else tuple(ids)),
            prefix=tuple(map(Step.from_json, row["prefix"])),
            wrong=row["wrong"] and Step.from_json(row["wrong"]),
            fix=row["fix"] and Step.from_json(row["fix"]),
        )


@dataclass(frozen=True)
class Sets:
    """`other_half` holds the solved trajectories of the tasks that feed RL, for the control that trains on both."""

    sft: list[Trajectory]
    other_half: list[Trajectory]
    rl: list[KeyStep]
    hard: list[Task]
    summary: dict[str, Any]


def make_sets(records: Sequence[Mentored], *, sft_share: float, hard_in_rl: float, seed: int) -> Sets:
    """SFT and RL use disjoint tasks. A solved task without any correction has no key step, so the RL half drops it."""
    solved = [r for r in records if r.outcome == "solved"]
    hard = [r for r in records if r.outcome == "hard"]
    for_sft, for_rl = _divide(solved, sft_share, "halves", seed)
    hard_rl, held_out = _divide(hard, hard_in_rl, "hard", seed)
    sound = [r for r in for_sft if not holds_crash(r)]
    usable = [t for r in sound if unusable(t := r.attempts[-1]) is None]
    other_half = [t for r in for_rl if not holds_crash(r) and unusable(t := r.attempts[-1]) is None]
    corrected = [key_step(r) for r in for_rl if r.corrections]
    key_steps = [k for k in corrected if k.fix.error is None]
    rl = key_steps + [KeyStep(r.task, 0, None, (), None, None) for r in hard_rl]
    summary = summarise(records) | {
        "sft": len(usable),
        "sft_dropped_crashed": len(for_sft) - len(sound),
        "sft_dropped_unusable": len(sound) - len(usable),
        "other_half": len(other_half),
        "rl_key_step": sum(k.kind == "key_step" for k in rl),
        "rl_hard": sum(k.kind == "hard" for k in rl),
        "rl_dropped_no_error": sum(not r.corrections for r in for_rl),
        "rl_dropped_crashed": len(corrected) - len(key_steps),
        "hard_held_out": len(held_out),
        "key_step_position": _counts(k.k for k in rl if k.kind == "key_step"),
    }
    return Sets(usable, other_half, rl, [r.task for r in held_out], summary)


def _divide(records: Sequence[Mentored], share: float, *salt: object) -> tuple[list[Mentored], list[Mentored]]:
    """A seeded split by task: the first `share` in hash order, and the rest; both keep the given order."""
    order = sorted(range(len(records)), key=lambda i: (derive_seed(*salt, records[i].task.id), records[i].task.id))
    first = set(order[: round(share * len(records))])
    return [r for i, r in enumerate(records) if i in first], [r for i, r in enumerate(records) if i not in first]


def key_step(record: Mentored) -> KeyStep:
    """The earliest error of a solved task: the student's own verified prefix, its wrong turn, the teacher's fix.

    A teacher may correct a turn twice, or find an earlier error later on. The key turn is the earliest one corrected,
    the fix the last correction of it, which still stands in the attempt that ended right, with the observation that
    its execution gave.
    """
    k = min(correction.k for correction in record.corrections)
    at_k = [(c.wrong, ran or c.fix) for c, ran in zip(record.corrections, executed(record), strict=True) if c.k == k]
    first = record.attempts[0]
    return KeyStep(
        task=record.task,
        k=k,
        plan=plan_message(first) if k > 0 else None,
        prefix=first.steps[: max(k - 1, 0)],
        wrong=at_k[0][0],
        fix=at_k[-1][1],
    )


def executed(record: Mentored) -> list[Step | None]:
    """Of each correction, the teacher's step as it ran in the next attempt; None for a plan, which does not run, and
    where the attempt failed before it."""
    return [
        after.steps[c.k - 1] if 0 < c.k <= len(after.steps) else None
        for c, after in zip(record.corrections, record.attempts[1:], strict=True)
    ]


def holds_crash(record: Mentored) -> bool:
    """Does the last attempt still hold a teacher's step that crashed?"""
    later = [min((c.k for c in record.corrections[i + 1 :]), default=None) for i in range(len(record.corrections))]
    return any(
        step is not None and step.error is not None and (above is None or above > c.k)
        for c, step, above in zip(record.corrections, executed(record), later, strict=True)
    )


def summarise(records: Sequence[Mentored]) -> dict[str, Any]:
    """Counts for the log and for figure 3a: outcomes, tasks by number of corrections, first errors by turn; of the
    corrections, those that crashed, that hand in the final answer themselves, and that give the gold answer away."""
    corrections = [c for r in records for c in r.corrections]
    ran = [step for r in records for step in executed(r)]
    answering = [_answers(c, after) for r in records for c, after in zip(r.corrections, r.attempts[1:], strict=True)]
    leaks = sum(c.leak for c in corrections)
    return {
        "tasks": len(records),
        "outcomes": _counts(r.outcome for r in records),
        "failures": _counts((r.failure or "").split(":")[0] for r in records if r.outcome == "failed"),
        "solved_by_corrections": _counts(len(r.corrections) for r in records if r.outcome == "solved"),
        "first_error_turn": _counts(r.corrections[0].k for r in records if r.corrections),
        "corrections": len(corrections),
        "crashed": sum(step is not None and step.error is not None for step in ran),
        "answering": sum(answering),
        "leaks": leaks,
        "leak_share": leaks / len(corrections) if corrections else None,
        "leaks_answering": sum(c.leak and a for c, a in zip(corrections, answering, strict=True)),
        "analysis_leaks": sum(c.analysis_leak for c in corrections),
        "advised": sum(c.advised for c in corrections),
        "gold_in_advice": sum(c.advised and c.analysis_leak for c in corrections),
        "first_attempt_stops": _counts(r.attempts[0].stop for r in records),
        "answered": sum(r.attempts[-1].stop == StopReason.ANSWERED for r in records),
    }


def _answers(correction: Correction, after: Trajectory) -> bool:
    """Did the teacher's own step hand in the final answer?"""
    return after.stop == StopReason.ANSWERED and len(after.steps) == correction.k


def _counts(values) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(map(str, values)).items())}
