"""The reward of one RL rollout (paper section 3.3): what the first generated step and the final answer are worth. Pure.

    1.0   the final answer is right                                         (R_final)
    0.5   else, the key turn is equivalent to the teacher's fix             (R_key)
    0.1   else, it differs from the student's original error as well        (R_avoid)
    0.0   else

Equivalence is decided by execution: the same syntax tree, or code that ran and printed the same. Where execution cannot
tell (nothing printed, or a plan, which is text), the answer is None and a judge is asked, if the config names one. What
its reply does not tell either leaves the rollout undecided: it has no reward, and nothing is learned from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from score.agent import protocol
from score.agent.syntax import squeeze, tree
from score.correct.sets import KeyStep
from score.records import Step, Trajectory

Tier = Literal["final", "key", "avoid", "none", "undecided"]
VALUES: dict[Tier, float] = {"final": 1.0, "key": 0.5, "avoid": 0.1, "none": 0.0}


@dataclass(frozen=True)
class Equality:
    """How the rollout's key turn relates to the teacher's fix and to the original error; None where nobody can tell."""

    to_fix: bool | None
    to_error: bool | None


def tier(right: bool | None, equality: Equality | None, *, well_formed: bool, avoid_requires: str) -> Tier:
    """The reward's tier. `equality` is None where there is no key turn to compare: a hard task, an episode that ended
    before it, or `key_step_reward` switched off; then only the final answer counts."""
    if right is None:
        return "undecided"
    if right:
        return "final"
    if equality is None:
        return "none"
    if equality.to_fix is None:
        return "undecided"
    if equality.to_fix:
        return "key"
    if equality.to_error or (avoid_requires == "well_formed" and not well_formed):
        return "none"
    return "undecided" if equality.to_error is None else "avoid"


def key_turn(trajectory: Trajectory, k: int) -> Step | None:
    """Turn k as a Step (the plan as one without code), or None if the episode ended before it."""
    if k == 0:
        return Step(trajectory.plan or "", "", text=trajectory.plan_text)
    return trajectory.steps[k - 1] if len(trajectory.steps) >= k else None


def well_formed(step: Step, k: int) -> bool:
    """Does the turn parse and, if it is a step, run without error?"""
    if k == 0:
        return protocol.parse_plan(step.text or "") is not None
    return step.error is None


def same_turn(a: Step, b: Step, k: int) -> bool | None:
    """Are two versions of turn k equivalent? None if neither text nor execution can tell."""
    if k == 0:
        return True if squeeze(a.thought) == squeeze(b.thought) else None
    if "parse_error" in (a.error, b.error) or "truncated" in (a.error, b.error):
        return a.text == b.text
    if tree(a.code) == tree(b.code):
        return True
    if a.error or b.error:
        return a.error == b.error and a.observation == b.observation
    if a.observation or b.observation:
        return squeeze(a.observation or "") == squeeze(b.observation or "")
    return None


def compare(trajectory: Trajectory, key_step: KeyStep) -> tuple[bool | None, bool | None] | None:
    """(equal to the fix, equal to the error), each None where a judge would be needed; None without a key turn."""
    if key_step.fix is None:
        return None
    generated = key_turn(trajectory, key_step.k)
    if generated is None:
        return None
    return same_turn(generated, key_step.fix, key_step.k), same_turn(generated, key_step.wrong, key_step.k)
